"""What the agent sees before it decides a group: two kinds of state with the same methods.

Both lie in [0, 1] and are scaled in the same way (over the network's own steps, from smallest to
largest), so that a comparison of them compares what they tell and not how they are scaled.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphpruning.network.graph import Widths
from graphpruning.network.widths import SearchSpace

Observation = NDArray[np.float32]


class State(Protocol):
    """Turns the decisions so far into a vector [size], each entry within [0, 1]."""

    size: int

    def observe(self, step: int, decided: Widths, last_action: float) -> Observation:
        """Return what to know before a group is decided, float32 [size].

        Args:
            step: the number of the group, from 0 in forward order.
            decided: the widths of the groups before it.
            last_action: the kept ratio of the group before it; 1 for the first group.
        """


class AggregatedState:
    """Ours: what the aggregator says of the group's layers, the budget left, the last action.

    `size` is F + 2. The F features are asked for at the widths decided so far with the rest at full
    width, and averaged over the group's layers. They have no bound of their own: each is scaled,
    (f - low) / (high - low), by its extremes over all groups at full and at smallest widths, and
    clipped to [0, 1]; one that never moves is 0.

    The budget left is (budget - MACs) / (budget - MACs of the smallest network), with the groups
    not yet decided at their smallest level; 0 where the smallest network takes it all.

    Args:
        space: the levels of each group.
        budget: the most MACs that a candidate may have.
        features: returns aggregated features [layers, F] of widths, layers in forward order.
    """

    def __init__(
        self, space: SearchSpace, budget: int, features: Callable[[Widths], Tensor]
    ) -> None:
        self.space = space
        self.budget = budget
        self.features = features
        row = {layer.name: index for index, layer in enumerate(space.graph.layers)}
        self.rows_of = [
            [row[name] for name in space.graph.prunable[group].layers] for group in space.groups
        ]
        steps = range(len(self.rows_of))
        extremes = np.concatenate(
            [self._of_groups(widths, steps) for widths in (space.full, space.smallest)]
        )
        self.low, self.span = _range(extremes)
        self.spare = budget - space.macs(space.smallest)
        self.size = extremes.shape[1] + 2

    def observe(self, step: int, decided: Widths, last_action: float) -> Observation:
        """Return the scaled features of group number `step`, budget left and last action."""
        (features,) = self._of_groups({**self.space.full, **decided}, [step])
        scaled = np.clip((features - self.low) / self.span, 0, 1)
        unspent = self.budget - self.space.macs({**self.space.smallest, **decided})
        left = unspent / self.spare if self.spare else 0.0
        return np.array([*scaled, left, last_action], dtype=np.float32)

    def _of_groups(self, widths: Widths, steps: Iterable[int]) -> NDArray[np.float64]:
        """Features [steps, F], averaged over each group's layers."""
        with torch.no_grad():
            features = self.features(widths).cpu().double().numpy()
        return np.stack([features[self.rows_of[step]].mean(axis=0) for step in steps])


class HandCraftedState:
    """AMC's ten features (arXiv 1802.03494, section 3.1; mit-han-lab/amc).

    Index, type (1 for linear), input channels, output channels, stride, kernel, weight size, each
    scaled, (f - low) / (high - low), by its extremes over the steps; then MACs removed by the
    decisions so far and MACs of the groups still to come, as shares of the full network's, and the
    last action.

    AMC decides one layer a step. Our extension to groups of several layers: the first layer in
    forward order describes the group, and the group's MACs are the sum over its layers.

    Args:
        space: the levels of each group.
        budget: not used; both states are made in the same way.
    """

    def __init__(self, space: SearchSpace, budget: int) -> None:
        self.space = space
        self.full_macs = space.macs(space.full)
        groups = [
            [space.graph.layer(name) for name in space.graph.prunable[group].layers]
            for group in space.groups
        ]
        rows = []
        for index, layers in enumerate(groups):
            first = layers[0]
            linear = first.kind == "linear"
            weights = first.fan_in * first.out_channels * first.kernel[0] * first.kernel[1]
            stride, kernel = (0 if linear else first.stride[0]), first.kernel[0]
            sizes = [first.in_channels, first.out_channels, stride, kernel, weights]
            rows.append([index, linear, *sizes])
        table = np.array(rows, dtype=np.float64)
        low, span = _range(table)
        self.described = (table - low) / span
        macs = np.array([sum(layer.macs for layer in layers) for layers in groups])
        self.to_come = (macs[::-1].cumsum()[::-1] - macs) / self.full_macs
        self.size = 10

    def observe(self, step: int, decided: Widths, last_action: float) -> Observation:
        """Return the ten features of group number `step`."""
        removed = 1 - self.space.macs({**self.space.full, **decided}) / self.full_macs
        row = [*self.described[step], removed, self.to_come[step], last_action]
        return np.array(row, dtype=np.float32)


def _range(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per column the smallest value, and the distance to the largest (infinite where it is 0)."""
    low = table.min(axis=0)
    span = table.max(axis=0) - low
    return low, np.where(span > 0, span, np.inf)
