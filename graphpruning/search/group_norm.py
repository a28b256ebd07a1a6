"""Torch-Pruning's group norm in one shot: what one would do without a search.

Channels that depend on each other go together, by the L2 norm of all their weights as a share of
their group's mean, whichever layer they are in (Fang et al. 2023, arXiv 2301.12900). Only widths
are taken from it: which channels stay is decided as for every candidate cut out of the base (see
`SlicedWeights`). Torch-Pruning is an optional dependency.
"""

import math
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from graphpruning.common.errors import UserError
from graphpruning.network.leaves import filters
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
    low, high, found = 0.0, 1.0, space.smallest
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

    All groups compete; none goes below the smallest level.
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
    least = min(levels[0] / levels[-1] for levels in space.levels.values())
    full = space.full.values()
    can_go = sum(width - math.ceil(least * width) for width in full)
    norm = tp.importance.GroupMagnitudeImportance(p=2)

    def importance(group: Any) -> Any:
        """Infinite for the strongest channels of a group, so that the smallest width stays.

        Torch-Pruning's own bound is not kept in one global step, and a group of which no channel
        would stay is not pruned at all.
        """
        values = norm(group)
        if values is not None:
            values[values.topk(math.ceil(least * len(values))).indices] = math.inf
        return values

    tp.pruner.BasePruner(
        model,
        torch.zeros(1, *space.graph.input_size, device=device),
        importance,
        pruning_ratio=min(ratio, (can_go - 1) / sum(full)),  # else the threshold is infinite too
        global_pruning=True,
        ignored_layers=fixed,
        in_channel_groups={},  # the defaults are shared by all pruners, and hold their layers
        out_channel_groups={},
    ).step()
    return {group: space.nearest(group, _kept(space, model, group)) for group in space.groups}


def _kept(space: SearchSpace, model: nn.Module, group: str) -> float:
    """The share of its channels that a group has left, by a layer that writes no other group."""
    for layer in space.graph.layers:
        if layer.writes == (group,):
            return len(filters(model.get_submodule(layer.name))) / layer.out_channels
    raise UserError(f"group-norm cannot say how wide {group} is: no layer writes it alone")
