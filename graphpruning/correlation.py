"""How well one layer's channels represent another's (the paper's first observation).

Both layers' outputs are sampled at the same random positions of the same images. Per channel of
the deeper layer: the best absolute Pearson correlation with a channel of the former one, and the
R² of a ridge regression on all of them, fitted on one half of the images and scored on the other.
Two outputs of a layer are judged: its own, and that after normalisation and activation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from graphpruning.network.graph import ChannelGraph, Layer
from graphpruning.network.leaves import plain, standardised_layers
from graphpruning.network.operations import ELEMENTWISE, ELEMENTWISE_MODULES

STRENGTHS = tuple(10.0**power for power in range(-5, 3))
"""Ridge strengths to choose from, as shares of the variance of a former channel."""
VALIDATED = 4
"""One image in so many of the fitting half chooses the strength."""
OUTPUTS = ("own", "activated")
"""A layer's own output, and that after normalisation and activation where they follow it."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """A deeper layer and a former one; `kind` is "in_block", "other_block" or "border"."""

    kind: str
    former: str
    deeper: str


@dataclass(frozen=True)
class Fit:
    """How well the channels of one layer represent those of another.

    `matrix` [deeper channels, former channels] holds absolute correlations, `best_match` its
    largest per row, `r2` [deeper channels] the score of the ridge regression on unseen images
    (1 is perfect, 0 is no better than the mean, negative is worse).
    """

    matrix: Tensor
    best_match: Tensor
    r2: Tensor


@dataclass(frozen=True)
class Representation:
    """A pair with the `fits` of its layers' outputs, by the names in `OUTPUTS`."""

    pair: Pair
    fits: dict[str, Fit]


def pairs(graph: ChannelGraph) -> list[Pair]:
    """Pairs of consecutive layers inside each block with a shortcut, and controls.

    A deeper layer's controls are all earlier layers of its resolution in other blocks. A later
    layer is none: it reads the deeper one through the addition. The first block at a resolution
    may have no control, and a network without shortcuts has no pairs.
    """
    inside = _consecutive(graph)
    controls = [
        Pair("other_block", other.name, deeper.name)
        for deeper in dict.fromkeys(deeper for _, deeper in inside)
        for other in graph.layers
        if other.depth < deeper.depth
        and other.block != deeper.block
        and other.output_size == deeper.output_size
    ]
    return [Pair("in_block", former.name, deeper.name) for former, deeper in inside] + controls


def borders(graph: ChannelGraph) -> list[Pair]:
    """Consecutive layers of equal resolution on the two sides of a border between blocks with
    shortcuts: the last layer of one and the first of the next.

    They are as near to each other as two layers of a block; a control lies further back.
    """
    layers = {layer.name: layer for layer in graph.layers}
    blocks = _blocks_with_shortcut(graph, layers)
    ends = ((layers[edge.source], layers[edge.target]) for edge in graph.edges if not edge.shortcut)
    return [
        Pair("border", former.name, deeper.name)
        for former, deeper in ends
        if former.block != deeper.block
        and {former.block, deeper.block} <= blocks
        and former.output_size == deeper.output_size
    ]


def _consecutive(graph: ChannelGraph) -> list[tuple[Layer, Layer]]:
    """Edges between two layers of one block, for blocks with a shortcut around them."""
    layers = {layer.name: layer for layer in graph.layers}
    blocks = _blocks_with_shortcut(graph, layers)
    found = []
    for edge in graph.edges:
        former, deeper = layers[edge.source], layers[edge.target]
        if former.block == deeper.block and former.block in blocks and not edge.shortcut:
            found.append((former, deeper))
    return found


def _blocks_with_shortcut(graph: ChannelGraph, layers: dict[str, Layer]) -> set[str]:
    """Blocks whose output is added to what skipped them: one target reads both, in one group."""
    skipped = {(edge.target, layers[edge.source].group) for edge in graph.edges if edge.shortcut}
    return {
        layers[edge.source].block
        for edge in graph.edges
        if not edge.shortcut and (edge.target, layers[edge.source].group) in skipped
    }


@torch.no_grad()
def representations(
    model: nn.Module,
    graph: ChannelGraph,
    wanted: Sequence[Pair],
    batches: Iterable[Tensor],
    positions: int,
    generator: torch.Generator,
) -> list[Representation]:
    """Judge every pair on `batches` of images [batch, channels, height, width].

    `graph` is that of `model`. `positions` random positions are sampled per image; they do not
    depend on the size of the batches. The first half of the images fits the regression, the second
    scores it. The model runs in evaluation mode and is left as it was.
    """
    sizes = {pair: _common_size(graph, pair) for pair in wanted}
    samples = _samples(model, graph, sizes, batches, positions, generator)
    ridges: dict[tuple[str, str, Size], Ridge] = {}
    found = []
    for pair, size in sizes.items():
        fits = {}
        for output in OUTPUTS:
            former, deeper = (samples[output, name, size] for name in (pair.former, pair.deeper))
            key = (output, pair.former, size)
            if key not in ridges:  # its controls share a former layer with other pairs
                ridges[key] = Ridge(former)
            matrix = _scored(deeper, former)
            fits[output] = Fit(matrix, matrix.amax(dim=1), ridges[key].r2(deeper))
        found.append(Representation(pair, fits))
    return found


def _common_size(graph: ChannelGraph, pair: Pair) -> Size:
    """The smaller height and width of the two layers' maps."""
    one, other = (graph.layer(name).output_size for name in (pair.former, pair.deeper))
    return min(one[0], other[0]), min(one[1], other[1])


def _samples(
    model: nn.Module,
    graph: ChannelGraph,
    sizes: dict[Pair, Size],
    batches: Iterable[Tensor],
    positions: int,
    generator: torch.Generator,
) -> dict[tuple[str, str, Size], Tensor]:
    """By output, layer and size of its map: what it puts out, [images, positions, channels].

    All layers are sampled at the same positions of a size.
    """
    taken = {(name, size): 0 for p, size in sizes.items() for name in (p.former, p.deeper)}
    different = sorted({size for _, size in taken})
    seeds = torch.randint(2**62, (len(different),), generator=generator).tolist()
    drawn = {
        size: torch.Generator().manual_seed(seed)
        for size, seed in zip(different, seeds, strict=True)
    }
    sampler = _Sampler(model, graph, list(taken))
    was_training = model.training
    model.eval()
    try:
        for images in batches:
            sampler.chosen = {
                size: torch.randint(
                    size[0] * size[1], (len(images), 1, positions), generator=drawn[size]
                )
                for size in different
            }
            sampler.run(images)
    finally:
        model.train(was_training)
    return {key: torch.cat(parts) for key, parts in sampler.parts.items()}


class _Sampler(fx.Interpreter):
    """Runs a network and samples its layers' outputs as they come.

    A later operation may work in place, and whole maps of all layers would fill the memory.
    `chosen` are the positions [images, 1, positions] in this batch, by size.
    """

    def __init__(
        self, model: nn.Module, graph: ChannelGraph, wanted: list[tuple[str, Size]]
    ) -> None:
        super().__init__(fx.GraphModule(model, graph.module.graph))
        self.standardised = standardised_layers(graph.module)
        self.chosen: dict[Size, Tensor] = {}
        self.parts: dict[tuple[str, str, Size], list[Tensor]] = {}
        sizes: dict[str, list[Size]] = {}
        for name, size in wanted:
            sizes.setdefault(name, []).append(size)
        self.taps: dict[fx.Node, list[tuple[str, str, Size]]] = {}
        for node in graph.module.graph.nodes:
            if node.op == "call_module" and node.target in sizes:
                ends = (node, _activated(node, graph, self.submodules))
                for output, end in zip(OUTPUTS, ends, strict=True):
                    keys = [(output, node.target, size) for size in sizes[node.target]]
                    self.taps.setdefault(end, []).extend(keys)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        return plain(self.submodules[target], args[0], self.standardised.get(target))

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        for key in self.taps.get(n, []):
            _, name, size = key
            maps = _as_map(self.submodules[name], result)
            values = torch.take_along_dim(
                _averaged(maps, size), self.chosen[size].to(maps.device), 2
            )
            self.parts.setdefault(key, []).append(values.transpose(1, 2).cpu())
        return result


def _activated(node: fx.Node, graph: ChannelGraph, modules: dict[str, nn.Module]) -> fx.Node:
    """The last of the normalisation and activation that follow a layer and nothing else reads."""
    while len(node.users) == 1:
        (after,) = node.users
        if after.op == "call_module":
            known = isinstance(modules[str(after.target)], ELEMENTWISE_MODULES)
            known = known or after.target in graph.norms
        else:
            known = getattr(after.target, "__name__", after.target) in ELEMENTWISE
        if not known:
            break
        node = after
    return node


def _as_map(module: nn.Module, output: Tensor) -> Tensor:
    """A layer's output as [batch, channels, height, width].

    A linear layer has its channels last: [batch, channels], or [batch, height, width, channels]
    where it works on every position (ConvNeXt).
    """
    if isinstance(module, nn.Linear):
        output = output.movedim(-1, 1)
    return output[:, :, None, None] if output.ndim == 2 else output


def _averaged(maps: Tensor, size: Size) -> Tensor:
    """Maps [batch, channels, height, width] at `size`, as [batch, channels, positions]."""
    smaller = maps if tuple(maps.shape[2:]) == size else F.adaptive_avg_pool2d(maps, size)
    return smaller.flatten(2)


def _scored(deeper: Tensor, former: Tensor) -> Tensor:
    """Absolute correlation [deeper channels, former channels] on the scoring half."""
    half = len(deeper) // 2
    rows, columns = (x[half:].flatten(0, 1).double() for x in (deeper, former))
    return correlation(rows, columns).abs()


def correlation(rows: Tensor, columns: Tensor) -> Tensor:
    """Pearson correlation [channels of rows, channels of columns] of samples [samples, channels].

    A constant channel correlates with nothing: 0.
    """
    a, b = (x - x.mean(dim=0) for x in (rows, columns))
    scale = a.norm(dim=0)[:, None] * b.norm(dim=0)[None]
    return torch.where(scale > 0, a.T @ b / scale.clamp(min=torch.finfo(a.dtype).tiny), 0.0)


class Ridge:
    """Ridge regression from one layer's channels, for any number of others to be predicted.

    Samples are [images, positions, channels]; no image is in two parts. The first half of the
    images fits. Within it, all but the last of `VALIDATED` parts fit for every strength and that
    last part chooses among them; then the whole half fits with the chosen strength.
    """

    def __init__(self, former: Tensor) -> None:
        self.half = len(former) // 2
        self.inner = self.half - max(1, self.half // VALIDATED)
        self.former = former
        self.validating = _Solver(self._rows(former, 0, self.inner))
        self.fitting = _Solver(self._rows(former, 0, self.half))

    @staticmethod
    def _rows(samples: Tensor, start: int, end: int) -> Tensor:
        return samples[start:end].flatten(0, 1).double()

    def r2(self, deeper: Tensor) -> Tensor:
        """R² [channels] per channel of `deeper` on the second half of the images.

        The strength is that of the highest mean R² over channels in validation. A constant channel
        has no variance to explain: 0.
        """
        fit = self._rows(deeper, 0, self.inner)
        held = [self._rows(x, self.inner, self.half) for x in (self.former, deeper)]
        scores = [self.validating.r2(fit, s, *held).mean() for s in STRENGTHS]
        strength = STRENGTHS[int(torch.stack(scores).argmax())]
        unseen = [self._rows(x, self.half, len(deeper)) for x in (self.former, deeper)]
        return self.fitting.r2(self._rows(deeper, 0, self.half), strength, *unseen)


class _Solver:
    """Ridge regressions on the same x [samples, channels], whose channels count alike.

    One decomposition serves every strength.
    """

    def __init__(self, x: Tensor) -> None:
        self.mean = x.mean(dim=0)
        deviation = x.std(dim=0, correction=0)
        self.scale = torch.where(deviation > 0, deviation, torch.inf)  # a constant says nothing
        self.x = (x - self.mean) / self.scale
        self.values, self.vectors = torch.linalg.eigh(self.x.T @ self.x / len(x))

    def r2(self, y: Tensor, strength: float, new_x: Tensor, new_y: Tensor) -> Tensor:
        """R² per channel on new samples, fitted to y [samples, channels]."""
        mean = y.mean(dim=0)
        turned = self.vectors.T @ (self.x.T @ (y - mean)) / len(y)
        solution = self.vectors @ (turned / (self.values.clamp(min=0) + strength)[:, None])
        residual = new_y - mean - (new_x - self.mean) / self.scale @ solution
        total = (new_y - new_y.mean(dim=0)).square().sum(dim=0)
        tiny = torch.finfo(total.dtype).tiny
        return torch.where(total > 0, 1 - residual.square().sum(dim=0) / total.clamp(min=tiny), 0.0)
