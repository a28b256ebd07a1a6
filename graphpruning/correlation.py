"""How well one layer's channels represent another's (the paper's first observation).

Both layers' outputs are sampled at the same random positions of the same images. Per channel of
the deeper layer: the best absolute Pearson correlation with a channel of the former one, and the
R² of a ridge regression on all of them, fitted on one half of the images and scored on the other.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphpruning.network.graph import ChannelGraph, Layer

RIDGE = 1e-3
"""Ridge strength as a share of the mean variance of the former layer's channels."""


@dataclass(frozen=True)
class Pair:
    """A deeper layer and a former one; `kind` is "in_block" or "other_block"."""

    kind: str
    former: str
    deeper: str


@dataclass(frozen=True)
class Representation:
    """How well `former` represents `deeper`.

    `matrix` [deeper channels, former channels] holds absolute correlations, `best_match` its
    largest per row, `r2` [deeper channels] the score of the ridge regression on unseen images
    (1 is perfect, 0 is no better than the mean, negative is worse).
    """

    pair: Pair
    matrix: Tensor
    best_match: Tensor
    r2: Tensor


def pairs(graph: ChannelGraph, generator: torch.Generator) -> list[Pair]:
    """Pairs of consecutive layers inside each block with a shortcut, and controls.

    A control keeps the deeper layer and takes a former layer from another block, of those nearest
    in resolution an earlier one where there is any, drawn from `generator`. So both kinds have the
    same deeper layers. A network without shortcuts has no pairs.
    """
    inside = _consecutive(graph)
    controls = []
    for _, deeper in inside:
        others = [former for former, _ in inside if former.block != deeper.block]
        if others:
            gap = min(_resolution_gap(other, deeper) for other in others)
            near = [other for other in others if _resolution_gap(other, deeper) == gap]
            near = [other for other in near if other.depth < deeper.depth] or near
            chosen = near[int(torch.randint(len(near), (), generator=generator))]
            controls.append(Pair("other_block", chosen.name, deeper.name))
    return [Pair("in_block", former.name, deeper.name) for former, deeper in inside] + controls


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


def _resolution_gap(one: Layer, other: Layer) -> int:
    return abs(one.output_size[0] - other.output_size[0])


@torch.no_grad()
def representations(
    model: nn.Module,
    wanted: Sequence[Pair],
    batches: Iterable[Tensor],
    positions: int,
    generator: torch.Generator,
) -> list[Representation]:
    """Judge every pair on `batches` of images [batch, channels, height, width].

    `positions` random positions are sampled per image; they do not depend on the size of the
    batches. The first half of the images fits the regression, the second scores it. The model
    runs in evaluation mode and is left as it was.
    """
    samples = _samples(model, wanted, batches, positions, generator)
    return [_represent(pair, *of_pair) for pair, of_pair in zip(wanted, samples, strict=True)]


def _samples(
    model: nn.Module,
    wanted: Sequence[Pair],
    batches: Iterable[Tensor],
    positions: int,
    generator: torch.Generator,
) -> list[tuple[Tensor, Tensor]]:
    """Per pair, what its layers put out at the same positions, each [images, positions, channels].

    Positions are sampled batch by batch: whole maps of all images would fill the memory.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            outputs[name] = _as_map(module, output)

        return hook

    names = {name for pair in wanted for name in (pair.former, pair.deeper)}
    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    seeds = torch.randint(2**62, (len(wanted),), generator=generator).tolist()
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    parts: list[list[tuple[Tensor, Tensor]]] = [[] for _ in wanted]
    was_training = model.training
    model.eval()
    try:
        for images in batches:
            model(images)
            for pair, own, taken in zip(wanted, generators, parts, strict=True):
                former, deeper = outputs[pair.former], outputs[pair.deeper]
                taken.append(_at_positions(former, deeper, positions, own))
            outputs.clear()
    finally:
        model.train(was_training)
        for handle in hooks:
            handle.remove()
    return [
        (torch.cat([former for former, _ in taken]), torch.cat([deeper for _, deeper in taken]))
        for taken in parts
    ]


def _as_map(module: nn.Module, output: Tensor) -> Tensor:
    """A layer's output as [batch, channels, height, width].

    A linear layer has its channels last: [batch, channels], or [batch, height, width, channels]
    where it works on every position (ConvNeXt).
    """
    if isinstance(module, nn.Linear):
        output = output.movedim(-1, 1)
    return output[:, :, None, None] if output.ndim == 2 else output


def _at_positions(
    former: Tensor, deeper: Tensor, positions: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The larger map is averaged down to the smaller one's size, then positions are sampled."""
    size = (min(former.shape[2], deeper.shape[2]), min(former.shape[3], deeper.shape[3]))
    chosen = torch.randint(size[0] * size[1], (len(former), 1, positions), generator=generator)
    former, deeper = (
        torch.take_along_dim(_averaged(x, size), chosen.to(x.device), 2).transpose(1, 2).cpu()
        for x in (former, deeper)
    )
    return former, deeper


def _averaged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [batch, channels, height, width] at `size`, as [batch, channels, positions]."""
    smaller = maps if tuple(maps.shape[2:]) == size else F.adaptive_avg_pool2d(maps, size)
    return smaller.flatten(2)


def _represent(pair: Pair, former: Tensor, deeper: Tensor) -> Representation:
    """Fit on the first half of the images, score on the second."""
    x, y = former.double(), deeper.double()
    half = len(x) // 2
    fit_x, fit_y = x[:half].flatten(0, 1), y[:half].flatten(0, 1)
    score_x, score_y = x[half:].flatten(0, 1), y[half:].flatten(0, 1)
    matrix = correlation(score_y, score_x).abs()
    return Representation(
        pair, matrix, matrix.amax(dim=1), ridge_r2(fit_x, fit_y, score_x, score_y)
    )


def correlation(rows: Tensor, columns: Tensor) -> Tensor:
    """Pearson correlation [channels of rows, channels of columns] of samples [samples, channels].

    A constant channel correlates with nothing: 0.
    """
    a, b = (x - x.mean(dim=0) for x in (rows, columns))
    scale = a.norm(dim=0)[:, None] * b.norm(dim=0)[None]
    return torch.where(scale > 0, a.T @ b / scale.clamp(min=torch.finfo(a.dtype).tiny), 0.0)


def ridge_r2(fit_x: Tensor, fit_y: Tensor, score_x: Tensor, score_y: Tensor) -> Tensor:
    """R² per channel of y on unseen samples, of a ridge regression from x fitted on others.

    All are [samples, channels] in float64. A constant channel of y has no variance to explain: 0.
    """
    mean_x, mean_y = fit_x.mean(dim=0), fit_y.mean(dim=0)
    x, y = fit_x - mean_x, fit_y - mean_y
    gram = x.T @ x
    strength = RIDGE * gram.diagonal().mean().clamp(min=torch.finfo(gram.dtype).tiny)
    gram = gram + strength * torch.eye(len(gram), dtype=gram.dtype)
    solution = torch.linalg.solve(gram, x.T @ y)
    residual = score_y - mean_y - (score_x - mean_x) @ solution
    total = (score_y - score_y.mean(dim=0)).square().sum(dim=0)
    explained = 1 - residual.square().sum(dim=0) / total.clamp(min=torch.finfo(gram.dtype).tiny)
    return torch.where(total > 0, explained, 0.0)
