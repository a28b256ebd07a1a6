"""The PruningNet's training step, against MetaPruning's original design.

Both train the same network at random kept ratios of 0.1 to 1. Theirs makes every layer's full weight
and crops it, in fp32, with any of 31 ratios; ours has `CroppedSGD`, bf16 where it is faster, and
widths in multiples of 8.
"""

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import REPEATS, Row, alternate, matrix_rate, memory_rate
from benchmarks.original import RATIOS, OriginalPruningNet
from graphpruning.network.graph import ChannelGraph
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build, seeded
from graphpruning.pruningnet.cropped_sgd import CroppedSGD
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from graphpruning.training.fabric import make_fabric, precision

STEPS = 4  # of a repeat, each at other widths


@dataclass(frozen=True)
class Case:
    """A network at 224 px, or at another size, and the images of a step."""

    network: str
    batch: int
    size: int = 224

    def graph(self) -> ChannelGraph:
        with seeded(0):
            return trace(build(self.network, 1000), (3, self.size, self.size))

    def data(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch, 3, self.size, self.size, generator=generator)
        return images, torch.arange(self.batch)


CASES = (Case("resnet50", 8), Case("mobilenet_v1", 32))


def space_of(graph: ChannelGraph, ours: bool) -> SearchSpace:
    """Widths that we draw from, and those of the original."""
    if ours:
        return SearchSpace(graph, divisor=8, smallest=0.1)
    return SearchSpace(graph, divisor=None, ratios=RATIOS)


def our_step(case: Case) -> Callable[[int], None]:
    """`STEPS` steps as `fit` does them, by the number of the repeat."""
    graph, fabric = case.graph(), make_fabric()
    space = space_of(graph, ours=True)
    with seeded(0):
        net = PruningNet(graph, "graph")
    optimizer = CroppedSGD(net, [{"params": list(net.parameters())}], lr=0.01, momentum=0.9)
    images, labels = case.data()
    images = images.to(memory_format=torch.channels_last)
    step = RandomWidthStep(space, label_smoothing=0.1)

    def steps(repeat: int) -> None:
        generator = torch.Generator().manual_seed(repeat + 1)
        for _ in range(STEPS):
            with fabric.autocast():
                loss = step(net, images, labels, generator)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return steps


def original_step(case: Case) -> Callable[[int], None]:
    """The same number of steps of the original design."""
    graph = case.graph()
    space = space_of(graph, ours=False)
    with seeded(0):
        net = OriginalPruningNet(graph)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    images, labels = case.data()

    def steps(repeat: int) -> None:
        generator = torch.Generator().manual_seed(repeat + 1)
        for _ in range(STEPS):
            logits = net(images, space.sample(generator))
            F.cross_entropy(logits, labels, label_smoothing=0.1).backward()
            optimizer.step()
            optimizer.zero_grad()

    return steps


STEPPERS = {"ours": our_step, "reference": original_step}


def floor(case: Case) -> float:
    """Seconds of a step at average widths: its multiplications, and the bytes of its generators.

    A crop and its momentum are read by the forward and by the backward pass, and read and written
    by the update.
    """
    graph = case.graph()
    space = space_of(graph, ours=True)
    generator = torch.Generator().manual_seed(1)
    widths = [space.sample(generator) for _ in range(200)]
    rows = torch.tensor([space.vector(w) for w in widths]).numpy()
    macs = statistics.mean(space.cost.macs(rows).tolist())
    params = statistics.mean(space.cost.params(rows).tolist())
    half = precision(make_fabric()) == "bf16-mixed"
    arithmetic = 3 * case.batch * macs / matrix_rate(torch.bfloat16 if half else torch.float32)
    return arithmetic + 8 * 33 * 4 * params / memory_rate()


def peak(case: Case, who: str) -> float:
    """Peak memory in GB of a process of its own that does the steps of two repeats."""
    code = (
        "import json, sys; from benchmarks import pruningnet_step as b;"
        f"b.print_peak({CASES.index(case)}, {who!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def print_peak(case: int, who: str) -> None:
    steps = STEPPERS[who](CASES[case])
    steps(0)
    steps(1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def parts(case: Case) -> list[Row]:
    """What generator and aggregator add to a step that has ready weights, the same otherwise."""
    graph, fabric = case.graph(), make_fabric()
    space = space_of(graph, ours=True)
    with seeded(0):
        net = PruningNet(graph, "graph")
    optimizer = CroppedSGD(net, [{"params": list(net.parameters())}], lr=0.01, momentum=0.9)
    images, labels = case.data()
    images = images.to(memory_format=torch.channels_last)

    def step(repeat: int, work: Callable[[dict[str, int]], Tensor], update: bool) -> None:
        generator = torch.Generator().manual_seed(repeat + 1)
        for _ in range(STEPS):
            with fabric.autocast():
                loss = work(space.sample(generator))
            loss.backward()
            if update:
                optimizer.step()
            optimizer.zero_grad()

    def loss_of(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels)

    def ready(widths: dict[str, int]) -> Tensor:
        with torch.no_grad():
            weights = {name: w for name, w in held.items()}
        cut = net.subnet.graph.first_units(widths)
        from graphpruning.pruningnet.generator import _index

        sliced = {
            layer.name: tuple(
                None if t is None else t for t in (
                    weights[layer.name][0][_index(layer.outputs, cut)][:, _index(layer.columns, cut)]
                    .detach().requires_grad_(),
                    None if weights[layer.name][1] is None else weights[layer.name][1],
                )
            )
            for layer in graph.layers
        }
        return loss_of(net.subnet.logits(images, sliced))

    with torch.no_grad():
        held = net.weights(space.full)
    def agg(widths):
        return net.features(widths).sum()
    found = alternate(
        {
            "whole": partial(step, work=lambda widths: loss_of(net(images, widths)), update=True),
            "ready": partial(step, work=ready, update=False),
            "agg": partial(step, work=agg, update=False),
        }
    )
    return found
