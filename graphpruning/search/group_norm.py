"""Torch-Pruning's group norm in one shot: what one would do without a search.

Groups of channels that depend on each other go by the L2 norm of all their weights, whichever
layer they are in (Fang et al. 2023, arXiv 2301.12900). Torch-Pruning is an optional dependency.
"""

from copy import deepcopy

import torch
from torch import nn

from graphpruning.errors import UserError
from graphpruning.network.widths import SearchSpace
from graphpruning.search.history import Evaluate

BISECTIONS = 12  # of the share of channels that go: to 1/4096


def search(space: SearchSpace, budget: int, evaluate: Evaluate, base: nn.Module) -> None:
    """Ask `evaluate` about the widths that Torch-Pruning leaves of `base` within `budget`; once.

    Raises `UserError` when the space cannot meet the budget, and without Torch-Pruning.
    """
    space.require(budget)
    evaluate(space.fill(largest_within(space, budget, base), budget))


def largest_within(space: SearchSpace, budget: int, base: nn.Module) -> dict[str, int]:
    """The widths left by the smallest pruning ratio that meets `budget` (MACs)."""
    if space.macs(space.full) <= budget:
        return space.full
    low, high, found = 0.0, 1 - _least_kept(space), space.smallest
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        widths = pruned(space, base, middle)
        if space.macs(widths) <= budget:
            high, found = middle, widths
        else:
            low = middle
    return found


def pruned(space: SearchSpace, base: nn.Module, ratio: float) -> dict[str, int]:
    """Levels nearest to the widths of a copy of `base` without `ratio` of its channels.

    All groups compete; none goes below its smallest level.
    """
    try:
        import torch_pruning as tp
    except ImportError:
        raise UserError(
            "group-norm needs Torch-Pruning: `pip install torch-pruning`, or leave the method out"
        ) from None
    model = deepcopy(base).eval()
    device = next(model.parameters()).device
    layers = space.graph.layers
    fixed = [model.get_submodule(layer.name) for layer in layers if layer.group not in space.levels]
    pruner = tp.pruner.BasePruner(
        model,
        torch.zeros(1, *space.graph.input_size, device=device),
        tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        max_pruning_ratio=1 - _least_kept(space),
        global_pruning=True,
        ignored_layers=fixed,
    )
    pruner.step()
    left = {
        layer.group: _channels(model.get_submodule(layer.name))
        for layer in layers
        if layer.group in space.levels
    }
    return {group: space.nearest(group, left[group] / space.full[group]) for group in space.groups}


def _least_kept(space: SearchSpace) -> float:
    """The smallest share of its channels that any group may keep."""
    return min(levels[0] / levels[-1] for levels in space.levels.values())


def _channels(layer: nn.Module) -> int:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return len(layer.weight)
