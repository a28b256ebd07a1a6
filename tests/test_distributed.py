"""Two processes of a real torchrun (gloo) against one: the same losses, the same accuracies.

`measure` runs in the test's own process and in each of the two, where this file is the program.
These two end by a refusal of `prune`, which is a test of its own and saves another torchrun.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from graphpruning.__main__ import main
from graphpruning.common import distributed
from graphpruning.common.errors import UserError
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build
from graphpruning.pruningnet.cropped_sgd import CroppedSGD
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from graphpruning.search.evaluator import Evaluator
from graphpruning.training.checkpoint import load_weights, save_weights
from graphpruning.training.datasets import load
from graphpruning.training.fabric import make_fabric
from graphpruning.training.images import Batch, prepared
from graphpruning.training.loop import evaluate, fit
from graphpruning.training.preprocessing import Preprocessing
from graphpruning.training.recipe import Recipe
from tests import processes
from tests.coloured_images import coloured_images

PREPROCESSING = Preprocessing((0.5,), (0.25,), pad=1, flip=True)
STEPS = 10


def recipe(lr: float, steps: int = STEPS) -> Recipe:
    """Epochs of one step each, so that their records have the loss of every step."""
    return Recipe(
        epochs=steps,
        batch_size=60,
        images_per_epoch=60,
        lr=lr,
        schedule="cosine",
        weight_decay=1e-4,
        clip=5,
    )


class NormAct(nn.BatchNorm2d):
    """A normalisation that has a `forward` of its own, as timm's."""

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        y = F.batch_norm(x, mean, variance, self.weight, self.bias, self.training, 0.1, self.eps)
        return F.leaky_relu(y)


def resnet8() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet8", 10, in_channels=1, width=8)


def measure(folder: Path) -> dict[str, Any]:
    """Train and evaluate; the single process comes first and leaves weights in `folder`."""
    train, test = load("generated", folder, train=True), load("generated", folder, train=False)
    fabric = make_fabric("32-true", accelerator="cpu")
    found: dict[str, Any] = {"processes": distributed.world()}

    model = resnet8()
    records = fit(fabric, model, train, PREPROCESSING, recipe(0.003), 0, name="base")
    found["losses"] = [record["train_loss"] for record in records]
    found["weights"] = torch.cat([t.flatten() for t in model.state_dict().values()]).tolist()

    own = resnet8()
    for name, norm in [x for x in own.named_modules() if isinstance(x[1], nn.BatchNorm2d)]:
        owner, _, attribute = name.rpartition(".")
        setattr(own.get_submodule(owner), attribute, NormAct(norm.num_features))
    records = fit(fabric, own, train, PREPROCESSING, recipe(0.003), 0, name="own")
    found["own_losses"] = [record["train_loss"] for record in records]

    graph = trace(resnet8(), (1, 16, 16))
    space = SearchSpace(graph, divisor=2)
    net = PruningNet(graph, "graph")
    exact_net = deepcopy(net)
    step = RandomWidthStep(space, 0.1)
    records = fit(
        fabric,
        net,
        train,
        PREPROCESSING,
        recipe(0.0003),
        0,
        name="net",
        step=step,
        optimizer=partial(CroppedSGD, net),
    )
    found["pruningnet_losses"] = [record["train_loss"] for record in records]

    plus = PruningNet(graph, "graphpruning-plus")
    plus.start_from(resnet8())
    records = fit(
        fabric,
        plus,
        train,
        PREPROCESSING,
        recipe(0.0003),
        0,
        name="plus",
        step=RandomWidthStep(space, 0.1, sandwich=True, distil=True),
        optimizer=partial(CroppedSGD, plus),
    )
    found["plus_losses"] = [record["train_loss"] for record in records]

    exact = Fabric(accelerator="cpu", devices=distributed.world(), precision="64-true")
    exact.launch()
    records = fit(exact, resnet8(), train, PREPROCESSING, recipe(0.1, 2 * STEPS), 0, name="base")
    found["exact_losses"] = [record["train_loss"] for record in records]
    conditioning = exact_net.conditioning
    features = conditioning.node_features
    conditioning.node_features = lambda widths: features(widths).double()  # type: ignore[assignment]
    records = fit(
        exact,
        exact_net,
        train,
        PREPROCESSING,
        recipe(0.1),
        0,
        name="net",
        step=step,
        optimizer=partial(CroppedSGD, exact_net),
    )
    found["exact_pruningnet_losses"] = [record["train_loss"] for record in records]

    for name, module in (("base", model), ("net", net)):
        if distributed.world() == 1:
            save_weights(folder / f"{name}.safetensors", module.state_dict())
        load_weights(folder / f"{name}.safetensors", module)
    odd = test.select(torch.arange(199))
    batches = prepared(odd, PREPROCESSING, 40)  # five of them; the first has 39 images
    found["evaluate"] = list(evaluate(fabric, model, batches))
    found["candidates"] = []
    widths = space.sample(torch.Generator().manual_seed(1))
    for calibration in (batches[:3], batches[:1], Anew(batches, 3)):
        evaluator = Evaluator(graph, net.weights, calibration, batches)
        statistics = evaluator.statistics(widths, net.weights(widths))
        found["candidates"].append([evaluator(widths), evaluator.images_seen, digest(statistics)])
    hits = evaluator.hits_of(widths)
    found["hits"] = [hits(numbers).tolist() for numbers in (range(2), range(2, 5), [4], [])]

    found |= batch_norm_differences()
    found["refused"] = []
    for rank in range(distributed.world()):
        try:
            distributed.require_same([1, distributed.rank() == rank], "no")
        except UserError:
            found["refused"].append(rank)
    return found


class Anew:
    """Batches that are made each time, and no list."""

    def __init__(self, batches: list[Batch], count: int) -> None:
        self.batches = batches
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        return islice(iter(self.batches), self.count)


def digest(statistics: dict[str, tuple[Tensor, Tensor]]) -> str:
    values = torch.cat([tensor for pair in statistics.values() for tensor in pair])
    return hashlib.sha256(values.detach().numpy().tobytes()).hexdigest()


def batch_norm_differences() -> dict[str, float]:
    """Largest differences to PyTorch's batch normalisation of all images in one process."""
    generator = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(7, 3, 4, 5, generator=generator, dtype=torch.float64)
    pull = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    mine = slice(0, 5) if distributed.rank() == 0 else slice(5, 7)
    mine = mine if distributed.world() > 1 else slice(0, 7)

    def run(function: Any, part: slice, affine: bool) -> list[Tensor]:
        own = x[part].clone().requires_grad_()
        mean = variance = scale = shift = None
        if affine:
            mean, variance = x.new_zeros(3), x.new_ones(3)
            scale = x.new_tensor([1.0, 2.0, -0.5]).requires_grad_()
            shift = x.new_tensor([0.0, -1.0, 0.3]).requires_grad_()
        y = function(own, mean, variance, scale, shift, True, 0.3, 1e-5)
        leaves = [leaf for leaf in (own, scale, shift) if leaf is not None]
        gradients = torch.autograd.grad((y * pull[part]).sum(), leaves)
        kept = [] if mean is None or variance is None else [mean, variance]
        return [y.detach(), *gradients, *kept]

    differences = {}
    for name, affine in (("plain", False), ("affine", True)):
        y, gx, *others = run(distributed.batch_norm, mine, affine)
        # Scale and shift belong to this process: their gradients are summed by DDP.
        others = [*map(distributed.sum_over_ranks, others[:2]), *others[2:]]
        y_all, gx_all, *others_all = run(F.batch_norm, slice(0, 7), affine)
        pairs = [(y, y_all[mine]), (gx, gx_all[mine]), *zip(others, others_all, strict=True)]
        differences[f"batch_norm_{name}"] = max(float((a - b).abs().max()) for a, b in pairs)
    return differences


def torchrun(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run two processes with one thread each, on a free port, from `folder`."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    return processes.run([sys.executable, *launch, *arguments], folder, environment, seconds=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where processes leave what they measure; with images, for `prune`."""
    made = tmp_path_factory.mktemp("measured")
    coloured_images(made / "images")
    return made


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    """What one process measures."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            return measure(folder)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ended(folder: Path, alone: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """How two processes ended that have measured the same, with the weights of the one."""
    return torchrun(__file__, str(folder), folder=Path.cwd())


@pytest.fixture(scope="module")
def measured(
    folder: Path, alone: dict[str, Any], ended: subprocess.CompletedProcess[str]
) -> tuple[dict[str, Any], ...]:
    """What one process measures, and what the first and second of two measure."""
    files = [folder / f"{rank}.json" for rank in range(2)]
    assert all(file.exists() for file in files), ended.stderr
    return alone, *(json.loads(file.read_text()) for file in files)


def test_every_step_has_the_loss_of_one_process(measured: tuple[dict[str, Any], ...]) -> None:
    """In float32 at a low rate: at a high one training itself enlarges the rounding of sums."""
    one, *two = measured
    assert one["processes"] == 1
    for other in two:
        assert other["processes"] == 2
        for kind in ("losses", "own_losses", "pruningnet_losses", "plus_losses"):
            assert len(other[kind]) == STEPS
            assert other[kind] == pytest.approx(one[kind], rel=0, abs=1e-5), kind
        assert other["weights"] == pytest.approx(one["weights"], rel=1e-4, abs=1e-4)


def test_at_a_high_rate_losses_agree_in_float64(measured: tuple[dict[str, Any], ...]) -> None:
    one, *two = measured
    assert one["exact_losses"][-1] < one["exact_losses"][0] - 0.1
    for other in two:  # outputs, and with them losses, are float32 here too
        for kind in ("exact_losses", "exact_pruningnet_losses"):
            assert other[kind] == pytest.approx(one[kind], rel=0, abs=2e-6), kind


def test_accuracies_are_exactly_those_of_one_process(measured: tuple[dict[str, Any], ...]) -> None:
    one, *two = measured
    for other in two:
        assert other["evaluate"] == one["evaluate"]
        assert other["candidates"] == one["candidates"]
        assert other["hits"] == one["hits"]
    assert [len(part) for part in one["hits"]] == [79, 120, 40, 0]
    listed, single, anew = one["candidates"]
    assert listed == anew and single[2] != listed[2]
    assert [listed[1], single[1]] == [119 + 199, 39 + 199]


def test_batch_norm_is_that_of_all_images(measured: tuple[dict[str, Any], ...]) -> None:
    for one in measured:
        assert one["batch_norm_plain"] < 1e-10 and one["batch_norm_affine"] < 1e-10


def test_processes_that_disagree_are_refused_everywhere(
    measured: tuple[dict[str, Any], ...],
) -> None:
    assert [one["refused"] for one in measured] == [[], [0, 1], [0, 1]]


def refused(folder: Path) -> int:
    """The command line's exit code for a budget that is none."""
    command = f"prune --model resnet8 --data {folder}/images --out {folder}/out --budget half"
    return main([*command.split(), "--input-size", "3", "32", "32"])


def test_a_refusal_of_the_command_line_is_one_line_and_ends_all(
    ended: subprocess.CompletedProcess[str],
) -> None:
    assert ended.returncode != 0
    assert ended.stderr.count("error: budget 'half' is neither") == 1
    assert ended.stderr.count("exitcode  : 2 ") == 2


if __name__ == "__main__":
    result = json.dumps(measure(Path(sys.argv[1])))
    (Path(sys.argv[1]) / f"{distributed.rank()}.json").write_text(result)
    sys.exit(refused(Path(sys.argv[1])))
