"""Does a conditioning act? What its features know of widths, and how far weights follow them.

A PruningNet can be accurate while its features are dead: then it is one set of shared weights. What
is measured here shows that, beside the same conditioning before any training.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphpruning.common.collapse import collapsed
from graphpruning.network.graph import ChannelGraph, Widths
from graphpruning.pruningnet.generator import WeightGenerator
from graphpruning.pruningnet.pruningnet import PruningNet

RIDGES = (1e-6, 1e-4, 1e-2, 1.0, 100.0)
"""Strengths of the probe's ridge, relative to the mean variance of its inputs."""


FAR = 2
"""From this distance on, a group neither is the layer's own nor is read by it."""


@dataclass(frozen=True)
class Probe:
    """How well a layer's feature tells the widths of the groups `distance` edges away.

    `r2` is the mean over those `widths` groups; 0 is what guessing the mean width scores.
    """

    layer: str
    distance: int
    widths: int
    r2: float


@torch.no_grad()
def features(net: PruningNet, vectors: Sequence[Widths]) -> Tensor:
    """Features [vectors, layers, size] of width vectors, float64 on the CPU."""
    return torch.stack([net.features(widths) for widths in vectors]).double().cpu()


def probes(graph: ChannelGraph, seen: Tensor, vectors: Sequence[Widths]) -> list[Probe]:
    """Read the kept ratios of all groups from each layer's features, by ridge regression.

    The first half of the `vectors` fits the regression, the second scores it (R² on unseen
    widths). Its strength is chosen on the last quarter of the first half. Features of size 0
    tell as much as a constant; groups of one level have nothing to tell and are left out. Distances
    are edges between the layer and the nearest one that writes the group's channels: 0 is the
    layer's own group.

    Args:
        seen: features [vectors, layers, size] of `vectors`, see `features`.
        vectors: random width vectors.
    """
    if not seen.shape[2]:
        seen = seen.new_zeros(*seen.shape[:2], 1)
    full = graph.full_widths
    groups = [name for name in graph.prunable if len({v[name] for v in vectors}) > 1]
    ratios = torch.tensor([[v[g] / full[g] for g in groups] for v in vectors], dtype=torch.float64)
    away = {name: _distances(graph, graph.prunable[name].layers) for name in groups}
    found = []
    for row, layer in enumerate(graph.layers):
        scores = dict(zip(groups, _probe_r2(seen[:, row], ratios).tolist(), strict=True))
        by_distance: dict[int, list[float]] = {}
        for group, score in scores.items():
            if layer.name in away[group]:
                by_distance.setdefault(away[group][layer.name], []).append(score)
        found += [
            Probe(layer.name, distance, len(r2), sum(r2) / len(r2))
            for distance, r2 in sorted(by_distance.items())
        ]
    return found


def feature_variation(seen: Tensor) -> float:
    """Median over layers of the features' deviation over widths, as a share of their mean's norm.

    sqrt(mean |f - m|^2) / |m| with m the mean of f over the widths; 0 without features.
    """
    middle = seen.mean(dim=0)
    spread = (seen - middle).square().sum(dim=2).mean(dim=0).sqrt()
    return _median_share(spread, middle.norm(dim=1))


@torch.no_grad()
def weight_variation(net: PruningNet, seen: Tensor) -> float:
    """The same of the generated full weights: how far they depend on the widths at all."""
    spreads, norms = [], []
    for row, generator in enumerate(net.generators):
        assert isinstance(generator, WeightGenerator)
        matrix = generator.map.flatten(0, -2).double().cpu()
        gram = matrix.T @ matrix
        f = seen[:, row, : generator.size]
        inputs = torch.cat([f, f.new_ones(len(f), 1)], dim=1)
        middle = inputs.mean(dim=0)
        away = inputs - middle
        spreads.append(((away @ gram) * away).sum(dim=1).mean().clamp(min=0).sqrt())
        norms.append((middle @ gram @ middle).sqrt())
    return _median_share(torch.stack(spreads), torch.stack(norms))


def far_r2(found: Sequence[Probe]) -> float:
    """Mean R² of the widths `FAR` or more edges away; NaN where there are none."""
    far = [probe for probe in found if probe.distance >= FAR]
    widths = sum(probe.widths for probe in far)
    return sum(probe.r2 * probe.widths for probe in far) / widths if widths else math.nan


def health(
    name: str, variation: tuple[float, float], probe: tuple[float, float], weights: float
) -> str:
    """One line: how far features and weights follow the widths, and whether either collapsed.

    `variation` is `feature_variation`, `probe` is `far_r2`, each trained and untrained; `weights`
    is `weight_variation`.
    """
    if not variation[1]:
        return f"{name}: features do not tell widths, the weights are the same at all of them"
    line = (
        f"{name}: over random widths features vary by {variation[0]:.1%} ({variation[1]:.1%} "
        f"before training), generated weights by {weights:.2%}; R² for far widths {probe[0]:.2f} "
        f"({probe[1]:.2f})"
    )
    if collapsed(variation[0], *probe, weights):
        line += "; COLLAPSED: what is called conditioning here does nothing"
    return line


def _median_share(parts: Tensor, whole: Tensor) -> float:
    shares = torch.where(whole > 0, parts / whole.clamp(min=1e-30), 0.0)
    return float(shares.median())


def _probe_r2(inputs: Tensor, targets: Tensor) -> Tensor:
    """R² [targets] on the second half of the samples, of a ridge regression on the first."""
    half = len(inputs) // 2
    cut = half - half // 4
    tried = [_ridge_r2(inputs, targets, slice(cut), slice(cut, half), r).mean() for r in RIDGES]
    best = RIDGES[int(torch.stack(tried).argmax())]
    return _ridge_r2(inputs, targets, slice(half), slice(half, None), best)


def _ridge_r2(inputs: Tensor, targets: Tensor, fit: slice, score: slice, ridge: float) -> Tensor:
    middle = inputs[fit].mean(dim=0)
    x, y = inputs[fit] - middle, targets[fit] - targets[fit].mean(dim=0)
    gram = x.T @ x
    strength = ridge * gram.diagonal().mean().clamp(min=1e-30)
    solution = torch.linalg.solve(gram + strength * torch.eye(len(gram)).double(), x.T @ y)
    truth = targets[score] - targets[fit].mean(dim=0)
    missed = truth - (inputs[score] - middle) @ solution
    spread = (targets[score] - targets[score].mean(dim=0)).square().sum(dim=0)
    r2: Tensor = 1 - missed.square().sum(dim=0) / spread.clamp(min=1e-30)
    return r2


def _distances(graph: ChannelGraph, sources: Sequence[str]) -> dict[str, int]:
    """Steps along edges, in either direction, from the nearest of `sources`, by layer."""
    neighbours: dict[str, set[str]] = {layer.name: set() for layer in graph.layers}
    for edge in graph.edges:
        neighbours[edge.source].add(edge.target)
        neighbours[edge.target].add(edge.source)
    distance = dict.fromkeys(sources, 0)
    queue = deque(sources)
    while queue:
        here = queue.popleft()
        for there in sorted(neighbours[here] - distance.keys()):
            distance[there] = distance[here] + 1
            queue.append(there)
    return distance
