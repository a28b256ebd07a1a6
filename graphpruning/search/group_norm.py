"""Torch-Pruning's group norm in one shot: what one would do without a search.

Channels that depend on each other go together, by the L2 norm of all their weights as a share of
their group's mean, whichever layer they are in (Fang et al. 2023, arXiv 2301.12900). Only widths
are taken from it: which channels stay is decided as for every candidate cut out of the base (see
`SlicedWeights`). Torch-Pruning is an optional dependency.

It ranks the channels once; how many stay at any pruning ratio follows from the ranking.
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphpruning.common.errors import UserError, reason
from graphpruning.network.widths import SearchSpace
from graphpruning.search.history import Evaluate

BISECTIONS = 12  # of the share of channels that go: to 1/4096


def search(space: SearchSpace, budget: int, evaluate: Evaluate, base: nn.Module) -> None:
    """Ask `evaluate` about the widths that Torch-Pruning leaves of `base` within `budget`; once.

    Raises `UserError` when the space cannot meet the budget, without Torch-Pruning, and for a
    network that Torch-Pruning cannot follow.
    """
    space.require(budget)
    evaluate(space.fill(largest_within(space, budget, base), budget))


def largest_within(space: SearchSpace, budget: int, base: nn.Module) -> dict[str, int]:
    """The widths left by the smallest pruning ratio that meets `budget`."""
    if space.used(space.largest) <= budget:
        return space.largest
    ranking = Ranking(space, base)
    low, high, found = 0.0, 1.0, space.smallest
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        widths = ranking.widths(middle)
        if space.used(widths) <= budget:
            high, found = middle, widths
        else:
            low = middle
    return found


def pruned(space: SearchSpace, base: nn.Module, ratio: float) -> dict[str, int]:
    """Levels nearest to the widths of a copy of `base` without `ratio` of its channels.

    All groups compete; none goes below the smallest level.
    """
    return Ranking(space, base).widths(ratio)


@dataclass(frozen=True)
class _Tied:
    """Channels that Torch-Pruning ties: their scores [units], and by layer which unit each of its
    output channels belongs to [channels]."""

    scores: Tensor
    unit_of: dict[str, Tensor]


class Ranking:
    """The scores that Torch-Pruning gives to all channels of `base`, which stays as it was.

    Raises `UserError` without Torch-Pruning, and for a network that it cannot follow.
    """

    def __init__(self, space: SearchSpace, base: nn.Module) -> None:
        self.space = space
        try:
            import torch_pruning
        except ImportError:
            raise UserError(
                "group-norm needs Torch-Pruning: `pip install torch-pruning`, or leave the method "
                "out"
            ) from None
        try:
            self.tied = _ranked(torch_pruning, space, deepcopy(base).eval())
        except Exception as error:  # whatever it meets in a network that it does not know
            raise UserError(
                f"group-norm: Torch-Pruning cannot follow this network ({type(error).__name__}: "
                f"{reason(error)}); choose another method"
            ) from error
        self.shares_of = [_place(self.tied, space, group) for group in space.choices]

    def widths(self, ratio: float) -> dict[str, int]:
        """Levels nearest to what stays when `ratio` of the channels goes, the weakest first."""
        space = self.space
        full = [space.full[group] for group in space.choices]
        can_go = sum(width - math.ceil(space.smallest_ratio * width) for width in full)
        ratio = min(ratio, (can_go - 1) / sum(full))  # else the threshold is infinite too
        scores = torch.cat([tied.scores for tied in self.tied]).sort().values
        going = len(scores) - int(len(scores) * (1 - ratio))
        threshold = scores[going - 1] if going else -math.inf
        widths = dict(space.largest)
        for group, (tied, layer) in zip(space.choices, self.shares_of, strict=True):
            stays = (tied.scores > threshold)[tied.unit_of[layer]]
            widths[group] = space.nearest(group, float(stays.double().mean()))
        return widths


def _ranked(tp: Any, space: SearchSpace, model: nn.Module) -> list[_Tied]:
    """What Torch-Pruning ties, with the L2 norm of each unit as a share of its group's mean."""
    device = next(model.parameters()).device
    names = {model.get_submodule(layer.name): layer.name for layer in space.graph.layers}
    decided = set(space.choices)
    fixed = [layer for layer in space.graph.layers if not decided & set(layer.writes)]
    ignored = [model.get_submodule(layer.name) for layer in fixed]
    norm = tp.importance.GroupMagnitudeImportance(p=2)
    pruner = tp.pruner.BasePruner(
        model,
        torch.zeros(1, *space.graph.input_size, device=device),
        norm,
        ignored_layers=ignored,
        in_channel_groups={},  # the defaults are shared by all pruners, and hold their layers
        out_channel_groups={},
    )
    parts_of = {**pruner.in_channel_groups, **pruner.out_channel_groups}
    found = []
    for group in pruner.DG.get_all_groups(ignored, pruner.root_module_types):
        values = norm(group)
        if values is None:
            continue
        # Torch-Pruning's own bound is not kept in one global step, and a group of which no channel
        # would stay is not pruned at all: the strongest channels are made infinite instead.
        values[values.topk(math.ceil(space.smallest_ratio * len(values))).indices] = math.inf
        parts = max([parts_of.get(dep.target.module, 1) for dep, _ in group])
        scores = values.view(parts, -1).mean(dim=0).cpu()
        unit_of = {
            names[item.dep.target.module]: torch.tensor(item.root_idxs) % len(scores)
            for item in group
            if item.dep.target.module in names
            and pruner.DG.is_out_channel_pruning_fn(item.dep.handler)
            and None not in item.root_idxs
        }
        found.append(_Tied(scores, unit_of))
    return found


def _place(ranked: list[_Tied], space: SearchSpace, group: str) -> tuple[_Tied, str]:
    """Where the channels of `group` are found: by a layer that writes no other group."""
    for layer in space.graph.layers:
        if layer.writes == (group,):
            for tied in ranked:
                if layer.name in tied.unit_of:
                    return tied, layer.name
    raise UserError(f"group-norm cannot say how wide {group} is: no layer writes it alone")
