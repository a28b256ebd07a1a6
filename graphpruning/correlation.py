"""How well one layer's channels represent another's (the paper's first observation).

Both layers' outputs are sampled at the same random positions of the same images. Per channel of
the deeper layer: the best absolute Pearson correlation with a channel of the former one, and the
R² of a ridge regression on all of them, fitted on one half of the images and scored on the other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    same deeper layers.
    """
    inside = [Pair("in_block", former, deeper) for former, deeper in _consecutive(graph)]
    controls = []
    for pair in inside:
        deeper = graph.layer(pair.deeper)
        others = [
            graph.layer(other.former)
            for other in inside
            if graph.layer(other.former).block != deeper.block
        ]
        if others:
            gap = min(_resolution_gap(other, deeper) for other in others)
            near = [other for other in others if _resolution_gap(other, deeper) == gap]
            near = [other for other in near if other.depth < deeper.depth] or near
            chosen = near[int(torch.randint(len(near), (), generator=generator))]
            controls.append(Pair("other_block", chosen.name, pair.deeper))
    return inside + controls


def _consecutive(graph: ChannelGraph) -> list[tuple[str, str]]:
    """Edges between two layers of one block, for blocks with a shortcut around them."""
    blocks = _blocks_with_shortcut(graph)
    found = []
    for edge in graph.edges:
        former, deeper = graph.layer(edge.source), graph.layer(edge.target)
        if former.block == deeper.block and former.block in blocks and not edge.shortcut:
            found.append((former.name, deeper.name))
    return found


def _blocks_with_shortcut(graph: ChannelGraph) -> set[str]:
    """Blocks whose output is added to what skipped them: one target reads both, in one group."""
    found = set()
    for direct in graph.edges:
        for skip in graph.edges:
            if direct.target == skip.target and skip.shortcut and not direct.shortcut:
                last = graph.layer(direct.source)
                if last.group == graph.layer(skip.source).group:
                    found.add(last.block)
    return found


def _resolution_gap(one: Layer, other: Layer) -> int:
    return abs(one.output_size[0] - other.output_size[0])


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

    `positions` random positions are sampled per image. The first half of the images fits the
    regression, the second scores it. The model runs in evaluation mode and is left as it was.
    """
    outputs = _outputs(model, wanted, batches)
    return [
        _represent(pair, outputs[pair.former], outputs[pair.deeper], positions, generator)
        for pair in wanted
    ]


def _outputs(
    model: nn.Module, wanted: Sequence[Pair], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Outputs [images, channels, height, width] of every layer that a pair names."""
    names = {name for pair in wanted for name in (pair.former, pair.deeper)}
    collected: dict[str, list[Tensor]] = {name: [] for name in names}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: collected[name].append(output.float().cpu())
        )
        for name in names
    ]
    was_training = model.training
    model.eval()
    try:
        for images in batches:
            model(images)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(parts) for name, parts in collected.items()}


def _represent(
    pair: Pair, former: Tensor, deeper: Tensor, positions: int, generator: torch.Generator
) -> Representation:
    """The larger map is averaged down to the smaller one's size, then positions are sampled."""
    size = (min(former.shape[2], deeper.shape[2]), min(former.shape[3], deeper.shape[3]))
    former, deeper = (F.adaptive_avg_pool2d(x, size).flatten(2) for x in (former, deeper))
    count = len(former)
    chosen = torch.randint(former.shape[2], (count, 1, positions), generator=generator)
    x, y = (
        torch.take_along_dim(tensor, chosen, 2).transpose(1, 2).double()
        for tensor in (former, deeper)
    )
    half = count // 2
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
