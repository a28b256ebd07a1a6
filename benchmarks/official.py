"""The PruningNet's training step by MetaPruning's own code, from a checkout that the user has.

    git clone https://github.com/liuzechun/MetaPruning FOLDER
    python -m benchmarks pruningnet_step --official FOLDER

Its training scripts need a GPU, so their models are imported and stepped here as the scripts do it:
with their draws of widths, their loss and their plain SGD, at fp32.
"""

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops import Conv2dNormActivation

from graphpruning.common.errors import UserError

SCALES = 31
WIDEST = -1


@dataclass(frozen=True)
class Official:
    """One of their models: its file in the checkout, its class, and how a step draws widths.

    `draw` returns what the model's forward pass takes beside the images: numbers of scales.
    `weight_decay` is that of convolutions' generators and of the classifier.
    """

    file: str
    model: str
    weight_decay: float
    draw: Callable[[Generator], tuple[list[int], ...]]


def _some(count: int, generator: Generator) -> list[int]:
    return torch.randint(SCALES, (count,), generator=generator).tolist()


def _stages(repeats: list[int], generator: Generator) -> list[int]:
    """One scale a stage, for each of its blocks."""
    scales = _some(len(repeats), generator)
    of_blocks = ([scale] * count for scale, count in zip(scales, repeats, strict=True))
    return list(chain.from_iterable(of_blocks))


def _resnet(generator: Generator) -> tuple[list[int], ...]:
    middle = _some(16, generator)
    return [*_stages([1, 3, 4, 6], generator), *[WIDEST] * 4], middle


def _mobilenet_v2(generator: Generator) -> tuple[list[int], ...]:
    middle = _some(18, generator)
    return middle, _stages([1, 1, 2, 3, 4, 3, 3, 1], generator)


def _mobilenet_v1(generator: Generator) -> tuple[list[int], ...]:
    return (_some(13, generator),)


WIDE = "mobilenet_v2 x 1.375"
MODELS = {
    "resnet50": Official("resnet/training/resnet.py", "ResNet50", 1e-4, _resnet),
    "mobilenet_v1": Official(
        "mobilenetv1/training/mobilenet_v1.py", "MobileNetV1", 4e-5, _mobilenet_v1
    ),
    WIDE: Official("mobilenetv2/training/mobilenet_v2.py", "MobileNetV2", 0.0, _mobilenet_v2),
}


def wide_mobilenet_v2(classes: int) -> nn.Module:
    """MobileNetV2 with their channels, 1.375 times the usual ones; the last ones stay 1,280."""
    blocks: list[nn.Module] = [
        Conv2dNormActivation(3, 44, stride=2, activation_layer=nn.ReLU6),
        InvertedResidual(44, 22, 1, 1),
    ]
    channels = 22
    for width, count, stride in (
        (33, 2, 2),
        (44, 3, 2),
        (88, 4, 2),
        (132, 3, 1),
        (224, 3, 2),
        (448, 1, 1),
    ):
        for number in range(count):
            blocks.append(InvertedResidual(channels, width, 1 if number else stride, 6))
            channels = width
    blocks.append(Conv2dNormActivation(channels, 1280, 1, activation_layer=nn.ReLU6))
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, classes))


def official_step(
    network: str, folder: Path, images: Tensor, labels: Tensor
) -> Callable[[Generator], None]:
    """Return one training step of their model of `network`, which draws from a generator.

    Raises `UserError` for a folder without it.
    """
    official = MODELS[network]
    net = _model(official, folder)
    groups = optimized(net.named_parameters(), official.weight_decay)
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)

    def step(generator: Generator) -> None:
        logits = net(images, *official.draw(generator))
        loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def optimized(parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> list[Any]:
    """Their groups of parameters: what has "fc" or "conv" in its name decays."""
    named = list(parameters)
    decaying = [p for name, p in named if "fc" in name or "conv" in name]
    others = [p for name, p in named if not ("fc" in name or "conv" in name)]
    return [{"params": decaying, "weight_decay": decay}, {"params": others}]


def _model(official: Official, folder: Path) -> Any:
    path = folder / official.file
    if not path.is_file():
        raise UserError(
            f"--official {folder}: there is no {official.file}; "
            "give a checkout of https://github.com/liuzechun/MetaPruning"
        )
    spec = importlib.util.spec_from_file_location(f"official_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, official.model)()
