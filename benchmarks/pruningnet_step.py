"""The PruningNet's training step, against MetaPruning's.

Both train the same network at random kept ratios of 0.1 to 1. Theirs makes every layer's full
weight and crops it, in fp32, with any of 31 ratios, images [batch, channels, height, width] and
PyTorch's plain SGD; ours has `CroppedSGD`, bf16 where it is faster, channels_last, widths in
multiples of 8, runs strided depthwise convolutions by a detour (see `Subnet`), and keeps freed
memory, as every stage does. Neither clips. Theirs is their own code (see `official`), or else
`original`, this project's model of its design.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from benchmarks.apart import Apart, as_told
from benchmarks.harness import Row, alternate, fabric, matrix_rate, memory_rate
from benchmarks.official import MODELS, WIDE, official_step, wide_mobilenet_v2
from benchmarks.original import RATIOS, OriginalPruningNet
from graphpruning.network.graph import ChannelGraph, Widths, kept
from graphpruning.network.subnet import LayerWeights
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build, seeded
from graphpruning.pruningnet.cropped_sgd import CroppedSGD
from graphpruning.pruningnet.pruningnet import PruningNet, RandomWidthStep
from graphpruning.training.fabric import precision

STEPS = 4  # of a repeat, each at other widths


@dataclass(frozen=True)
class Case:
    """A network at 224 px, or at another size, and the images of a step."""

    network: str
    batch: int
    size: int = 224

    def __str__(self) -> str:
        return f"{self.network} at {self.size} px, batch {self.batch}"

    @property
    def weight_decay(self) -> float:
        """Theirs, for both sides; of a network that they have not, none."""
        return MODELS[self.network].weight_decay if self.network in MODELS else 0.0

    def graph(self) -> ChannelGraph:
        wide = self.network == WIDE
        with seeded(0):
            model = wide_mobilenet_v2(1000) if wide else build(self.network, 1000)
            return trace(model, (3, self.size, self.size))

    def data(self, layout: torch.memory_format = torch.contiguous_format) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch, 3, self.size, self.size, generator=generator)
        return images.to(memory_format=layout), torch.arange(self.batch)


CASES = (Case("resnet50", 8), Case("mobilenet_v1", 32))
OFFICIAL = {CASES[0]: 0.15, CASES[1]: 0.35, Case(WIDE, 32): 0.35}
"""What is compared with their own code, and the largest share of its time that ours may take."""


def space_of(graph: ChannelGraph, ours: bool) -> SearchSpace:
    """Widths that we draw from, and those of the original."""
    if ours:
        return SearchSpace(graph, divisor=8, smallest=0.1)
    return SearchSpace(graph, divisor=None, ratios=RATIOS)


def our_net(case: Case) -> tuple[PruningNet, SearchSpace, CroppedSGD]:
    """A fresh PruningNet, its widths, and what trains it."""
    graph = case.graph()
    with seeded(0):
        net = PruningNet(graph, "graph")
    parameters = [{"params": list(net.parameters()), "weight_decay": case.weight_decay}]
    optimizer = CroppedSGD(net, parameters, lr=0.01, momentum=0.9)
    return net, space_of(graph, ours=True), optimizer


def our_step(case: Case) -> Callable[[int], None]:
    """`STEPS` steps at widths drawn by the number of the repeat, and then a `settle`.

    Training settles about every fortieth step only: what it costs is counted ten times here.
    """
    ours = fabric()
    net, space, optimizer = our_net(case)
    images, labels = case.data(torch.channels_last)
    step = RandomWidthStep(space, label_smoothing=0.1)

    def steps(repeat: int) -> None:
        generator = torch.Generator().manual_seed(repeat + 1)
        for _ in range(STEPS):
            with ours.autocast():
                loss = step(net, images, labels, generator)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        optimizer.settle()

    return steps


def original_step(case: Case) -> Callable[[int], None]:
    """The same number of steps of the original design."""
    graph = case.graph()
    space = space_of(graph, ours=False)
    with seeded(0):
        net = OriginalPruningNet(graph)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.01, momentum=0.9, weight_decay=case.weight_decay
    )
    images, labels = case.data()

    def step(generator: Generator) -> None:
        logits = net(images, space.sample(generator))
        F.cross_entropy(logits, labels, label_smoothing=0.1).backward()
        optimizer.step()
        optimizer.zero_grad()

    return _repeated(step)


STEPPERS = {"ours": our_step, "reference": original_step}


def their_step(case: Case, checkout: Path) -> Callable[[int], None]:
    """The same number of steps of MetaPruning's own code."""
    return _repeated(official_step(case.network, checkout, *case.data()))


def _repeated(step: Callable[[Generator], None]) -> Callable[[int], None]:
    def steps(repeat: int) -> None:
        generator = torch.Generator().manual_seed(repeat + 1)
        for _ in range(STEPS):
            step(generator)

    return steps


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
    half = precision(fabric()) == "bf16-mixed"
    arithmetic = 3 * case.batch * macs / matrix_rate(torch.bfloat16 if half else torch.float32)
    return arithmetic + 8 * 33 * 4 * params / memory_rate()


def whole_steps(case: Case, checkout: Path | None) -> list[Row]:
    """Time and peak memory of a step, ours against theirs, each in a process of its own."""
    theirs = (
        partial(original_step, case) if checkout is None else partial(their_step, case, checkout)
    )
    with (
        Apart(partial(our_step, case), keep_memory=True) as ours,
        Apart(theirs, keep_memory=False) as reference,
    ):
        found = alternate({"ours": ours, "reference": reference}, measure=as_told)
        peaks = [ours.peak()], [reference.peak()]
    mine, other = ([value / STEPS for value in found[who]] for who in ("ours", "reference"))
    what = f"PruningNet step, {case}"
    against = "MetaPruning's own code" if checkout else "the original design"
    target = OFFICIAL[case] if checkout else 0.4
    return [
        Row(what, against, "s", mine, other, target, floor=floor(case)),
        Row(f"{what}: peak memory", against, "GB", *peaks, 0.7),
    ]


def parts(case: Case) -> list[Row]:
    """What generators and conditioning take of a step, against one with ready weights.

    The step with ready weights computes their gradients too, at the same widths. The conditioning
    is run and differentiated by itself.
    """
    ours = fabric()
    net, space, optimizer = our_net(case)
    graph = space.graph
    images, labels = case.data(torch.channels_last)
    with torch.no_grad():
        full = net.weights(space.full)

    def of_weights(weights: LayerWeights) -> Tensor:
        logits = net.subnet.logits(images, weights)
        return F.cross_entropy(logits.float(), labels, label_smoothing=0.1)

    def ready(widths: Widths) -> Tensor:
        mask = graph.first_units(widths)
        weights: LayerWeights = {}
        for layer in graph.layers:
            weight, bias = full[layer.name]
            columns = len(kept(layer.columns, mask))
            cut = weight[: len(kept(layer.outputs, mask)), :columns]
            weights[layer.name] = (cut.clone().requires_grad_(), bias)
        return of_weights(weights)

    def steps(loss_of: Callable[[Widths], Tensor], update: bool, repeat: int) -> None:
        generator = torch.Generator().manual_seed(repeat + 1)
        for _ in range(STEPS):
            with ours.autocast():
                loss = loss_of(space.sample(generator))
            loss.backward()
            if update:
                optimizer.step()
            optimizer.zero_grad()
        if update:
            optimizer.settle()

    def conditioned(widths: Widths) -> Tensor:
        with torch.autocast(ours.device.type, enabled=False):  # as in `PruningNet.weights`
            return net.features(widths).sum()

    found = alternate(
        {
            "whole": partial(steps, lambda widths: of_weights(net.weights(widths)), True),
            "ready": partial(steps, ready, False),
            "conditioning": partial(steps, conditioned, False),
        }
    )
    added = [a - b for a, b in zip(found["whole"], found["ready"], strict=True)]
    against = "the step with ready weights"
    return [
        Row(
            f"{what}, {case}",
            against,
            "s",
            [v / STEPS for v in values],
            [v / STEPS for v in found["ready"]],
            target,
        )
        for what, values, target in (
            ("conditioning and generators add", added, 0.25),
            ("conditioning alone", found["conditioning"], 0.02),
        )
    ]


def detour() -> Row:
    """A strided depthwise convolution and its gradients in bf16, run at stride 1 and as it is."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 512, 14, 14, generator=generator, dtype=torch.bfloat16)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(512, 1, 3, 3, generator=generator, dtype=torch.bfloat16).requires_grad_()

    def convolve(stride: int, repeat: int) -> None:
        y = F.conv2d(x, weight, None, stride, 1, 1, 512)[:, :, :: 3 - stride, :: 3 - stride]
        y.contiguous(memory_format=torch.channels_last).sum().backward()

    found = alternate({str(stride): partial(convolve, stride) for stride in (1, 2)})
    what = "strided depthwise convolution with gradients, 512 channels at 14 px, batch 32, bf16"
    return Row(what, "without the detour by stride 1", "s", found["1"], found["2"])


def rows(checkout: Path | None = None) -> list[Row]:
    """All of this file's rows; with a checkout of MetaPruning against its code."""
    cases = CASES if checkout is None else OFFICIAL
    return [
        *(row for case in cases for row in whole_steps(case, checkout)),
        *parts(CASES[-1]),
        detour(),
    ]
