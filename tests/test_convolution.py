"""Convolutions by a detour: the same numbers, wherever a network is trained, and no crash.

As a program (`python tests/test_convolution.py`) this file trains the shapes that crash; a test
runs it in a process of its own under AVX2, where oneDNN's fault shows most.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from graphpruning import SearchSpace, narrow, trace
from graphpruning.common.convolution import SoundConvolutions, conv2d
from graphpruning.network.subnet import Subnet
from graphpruning.network.zoo import build
from graphpruning.pruningnet.cropped_sgd import CroppedSGD
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from graphpruning.training.datasets import generated
from graphpruning.training.fabric import make_fabric
from graphpruning.training.loop import fit
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.recipe import Recipe
from tests import processes

ROOT = Path(__file__).parents[1]
TIMES = 24
"""Of each call around the fault; without the detour some dozens in all are enough to crash."""


def gradients(
    convolve: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor, **how: Any
) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (x, weight, bias)]
    y = convolve(*leaves, **how)
    pull = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y.detach(), *torch.autograd.grad((y * pull).sum(), leaves)]


@given(
    channels=st.sampled_from([(1, 4, 1), (3, 5, 1), (4, 4, 4), (6, 8, 2)]),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from([0, 1, (0, 2), "valid"]),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_a_strided_1x1_convolution_is_a_dense_one_on_some_positions(
    channels: tuple[int, int, int],
    stride: tuple[int, int],
    padding: Any,
    size: tuple[int, int],
    layout: torch.memory_format,
) -> None:
    inputs, outputs, groups = channels
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    x = draw(2, inputs, *size).to(memory_format=layout)
    weight, bias = draw(outputs, inputs // groups, 1, 1), draw(outputs)
    how = dict(stride=stride, padding=padding, groups=groups)
    for ours, plain in zip(
        gradients(conv2d, x, weight, bias, **how),
        gradients(F.conv2d, x, weight, bias, **how),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [(2, 2), (2, 1), (3, 2)])
@pytest.mark.parametrize("size", [(9, 9), (8, 11)])
def test_a_strided_depthwise_convolution_is_the_same_at_stride_1(
    stride: tuple[int, int], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    tensors = draw(4, 8, *size), draw(8, 1, 3, 3), draw(8)
    how = dict(stride=stride, padding=1, groups=8)
    plain = gradients(F.conv2d, *tensors, **how)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)  # but not in fact
    with seen_convolutions() as strides:
        ours = gradients(conv2d, *tensors, **how)
    assert strides == [((3, 3), (1, 1), 8)]
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


class _Seen(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[tuple[int, ...], tuple[int, int], int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.conv2d:
            given = dict(
                zip(
                    ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
                    args,
                    strict=False,
                )
            ) | (kwargs or {})
            stride = given.get("stride", 1)
            pair = (stride, stride) if isinstance(stride, int) else tuple(stride)
            if given["weight"].requires_grad and torch.is_grad_enabled():
                self.calls.append((tuple(given["weight"].shape[2:]), pair, given.get("groups", 1)))
        return func(*args, **(kwargs or {}))


@contextmanager
def seen_convolutions() -> Iterator[list[tuple[tuple[int, ...], tuple[int, int], int]]]:
    """Kernel, stride and groups of every convolution that learns, as PyTorch meets it."""
    with _Seen() as seen:
        yield seen.calls


def test_forward_passes_and_dense_convolutions_are_left_alone() -> None:
    x, weight = torch.randn(1, 4, 6, 6), torch.randn(8, 4, 1, 1, requires_grad=True)
    with torch.no_grad():
        assert torch.equal(conv2d(x, weight, None, 2), F.conv2d(x, weight, None, 2))
    with seen_convolutions() as calls:
        conv2d(x, weight)
        conv2d(x, torch.randn(4, 1, 3, 3, requires_grad=True), None, 2, 1, 1, 4)  # fp32
        conv2d(x, torch.randn(8, 4, 3, 3, requires_grad=True), None, 2, 1)
    assert calls == [((1, 1), (1, 1), 1), ((3, 3), (2, 2), 4), ((3, 3), (2, 2), 1)]


class ByHand(nn.Module):
    """A user's network whose shortcut calls PyTorch's function itself, and a subclass."""

    class Padded(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight, self.bias, self.stride)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.short = self.Padded(4, 8, 1, stride=2)
        self.weight = nn.Parameter(torch.randn(8, 4, 1, 1))
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.fc((self.short(x) + F.conv2d(x, self.weight, stride=2)).mean((2, 3)))


def train(model: nn.Module, **how: Any) -> None:
    """One epoch of a few steps by `fit`, in fp32 and on the CPU."""
    images = generated(Path("nowhere"), train=True)
    if how.get("channels", 1) == 3:
        images = type(images)(images.images.expand(-1, 3, -1, -1), images.labels, images.classes)
    mean, std = (0.5,) * images.shape[0], (0.25,) * images.shape[0]
    recipe = Recipe(
        epochs=1, batch_size=20, lr=0.01, schedule="linear", images_per_epoch=how.get("images", 40)
    )
    extra = {key: how[key] for key in ("step", "optimizer") if key in how}
    fabric = make_fabric("32-true", accelerator="cpu")
    fit(
        fabric,
        model,
        images,
        Preprocessing(mean, std, pad=0, flip=False),
        recipe,
        0,
        name="training",
        **extra,
    )


def pruningnet() -> tuple[nn.Module, dict[str, Any]]:
    graph = trace(build("resnet8", 10, in_channels=1, width=8), (1, 16, 16))
    net = PruningNet(graph, "block")
    space = SearchSpace(graph, divisor=1, smallest=0.1)
    return net, {"step": RandomWidthStep(space, 0.1), "optimizer": partial(CroppedSGD, net)}


def narrowed() -> nn.Module:
    full = build("resnet8", 10, in_channels=1, width=16)
    graph = trace(full, (1, 16, 16))
    return narrow(full, graph, {group: 3 for group in graph.full_widths})


TRAINED: dict[str, Callable[[], tuple[nn.Module, dict[str, Any]]]] = {
    "a plain network": lambda: (build("resnet8", 10, in_channels=1, width=4), {}),
    "a narrowed network": lambda: (narrowed(), {}),
    "torchvision's ResNet": lambda: (build("resnet18", 10), {"channels": 3}),
    "a user's own": lambda: (ByHand(), {}),
    "a PruningNet": pruningnet,
}


@pytest.mark.parametrize("kind", TRAINED)
def test_no_training_reaches_the_crashing_kernel(kind: str) -> None:
    model, how = TRAINED[kind]()
    with seen_convolutions() as calls:
        train(model, **how)
    pointwise = [call for call in calls if call[0] == (1, 1)]
    assert pointwise and all(stride == (1, 1) for _, stride, _ in pointwise)


def test_a_subnet_by_itself_does_not_either() -> None:
    model = build("resnet8", 10, in_channels=1, width=4)
    graph = trace(model, (1, 16, 16))
    weights: Any = {
        layer.name: (model.get_submodule(layer.name).weight, None) for layer in graph.layers
    }
    weights["fc"] = (model.fc.weight, model.fc.bias)
    with seen_convolutions() as calls:
        Subnet(graph).logits(torch.randn(2, 1, 16, 16), weights)
    assert {stride for kernel, stride, _ in calls if kernel == (1, 1)} == {(1, 1)}


def test_the_shapes_that_crash_are_trained_under_avx2() -> None:
    """Hundreds of times, in fp32; a crash ends that process, and its signal is its exit code."""
    environment = {
        **os.environ,
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = processes.run([sys.executable, __file__], ROOT, environment, seconds=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("trained ")


def main() -> None:
    """Train every shape around the fault; `--plain` leaves the detour out, to see the fault."""
    with SoundConvolutions() if "--plain" not in sys.argv else torch.enable_grad():
        for channels, learns in product((1, 2, 3, 4, 5, 7, 8, 12, 16), (True, False)):
            for _ in range(TIMES):
                x = torch.randn(32, channels, 14, 14).to(memory_format=torch.channels_last)
                layer = nn.Conv2d(channels, 16, 1, stride=2)
                layer(x.requires_grad_(learns)).sum().backward()
    for kind in ("a plain network", "a narrowed network", "a PruningNet"):
        model, how = TRAINED[kind]()
        train(model, images=200, **how)
    print(f"trained {9 * 2 * TIMES} calls and three networks")


if __name__ == "__main__":
    main()
