"""What the agent sees before it decides a group: kinds of state with the same methods.

All lie in [0, 1] and are scaled in the same way (over the network's own steps, from smallest to
largest). Those of one agent all know the budget left and the last action, so that a comparison of
them compares the aggregator's features with the hand-crafted ones in their place.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphpruning.network.graph import Widths
from graphpruning.network.widths import SearchSpace
from graphpruning.search.uniform import largest_uniform

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


class BudgetLeft:
    """What the decisions so far leave of the budget, within [0, 1].

    1/2 + (1 - use / budget) / 2, clipped, where the groups not yet decided are uniform: at the
    levels `rest` of the largest uniform widths within the budget. 1/2 is a network that costs what
    it may, less is one that the last step will scale down.
    """

    def __init__(self, space: SearchSpace, budget: int) -> None:
        self.space, self.budget = space, budget
        self.rest = largest_uniform(space, budget)

    def __call__(self, decided: Widths) -> float:
        """Return it for the groups in `decided`."""
        used = self.space.used({**self.rest, **decided})
        return min(max(0.5 + (1 - used / self.budget) / 2, 0.0), 1.0)


class AggregatedState:
    """Ours: what the aggregator says of the group's layers, the budget left, the last action.

    `size` is F + 2. The F features are asked for at the widths decided so far with the rest uniform
    (`BudgetLeft.rest`), and averaged over the group's layers. They have no bound of their own: each
    is scaled, (f - low) / (high - low), by its extremes over all groups at largest and at smallest
    widths, and clipped to [0, 1]; one that never moves is 0.

    Args:
        space: the levels of each group.
        budget: the most that a candidate may use of the space's resource.
        features: returns aggregated features [layers, F] of widths, layers in forward order.
    """

    def __init__(
        self, space: SearchSpace, budget: int, features: Callable[[Widths], Tensor]
    ) -> None:
        self.features = features
        self.left = BudgetLeft(space, budget)
        row = {layer.name: index for index, layer in enumerate(space.graph.layers)}
        self.rows_of = [
            [row[name] for name in space.graph.prunable[group].layers] for group in space.choices
        ]
        steps = range(len(self.rows_of))
        extremes = np.concatenate(
            [self._of_groups(widths, steps) for widths in (space.largest, space.smallest)]
        )
        self.low, self.span = _range(extremes)
        self.size = extremes.shape[1] + 2
        self.seen: dict[tuple[int, ...], Observation] = {}

    def observe(self, step: int, decided: Widths, last_action: float) -> Observation:
        """Return the scaled features of group number `step`, budget left and last action.

        What was said of the same decisions before is not asked again.
        """
        asked = tuple(decided.values())
        if asked not in self.seen:
            (features,) = self._of_groups({**self.left.rest, **decided}, [step])
            scaled = np.clip((features - self.low) / self.span, 0, 1)
            self.seen[asked] = np.array([*scaled, self.left(decided), 0], dtype=np.float32)
        observation = self.seen[asked].copy()
        observation[-1] = last_action
        return observation

    def _of_groups(self, widths: Widths, steps: Iterable[int]) -> NDArray[np.float64]:
        """Features [steps, F], averaged over each group's layers."""
        with torch.no_grad():
            features = self.features(widths).cpu().numpy()
        rows = [features[self.rows_of[step]].mean(axis=0, dtype=np.float64) for step in steps]
        return np.stack(rows)


class AmcState:
    """AMC's ten features (arXiv 1802.03494, section 3.1; mit-han-lab/amc).

    Index, type (1 for linear), input channels, output channels, stride, kernel, weight size, each
    scaled, (f - low) / (high - low), by its extremes over the steps; then MACs removed by the
    decisions so far and MACs of the groups still to come, as shares of the full network's, and the
    last action.

    AMC decides a layer's input channels a step. Our extension to groups of several layers: the
    first layer that writes the group describes it, and the group's MACs are the sum over the layers
    that write it. Groups that are not decided count at full width; in AMC's code at the smallest.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.full_macs = space.macs(space.full)
        groups = [
            [space.graph.layer(name) for name in space.graph.prunable[group].layers]
            for group in space.choices
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


class HandCraftedState:
    """AMC's ten features and the budget left: what `AggregatedState` is compared with."""

    def __init__(self, space: SearchSpace, budget: int) -> None:
        self.amc = AmcState(space)
        self.left = BudgetLeft(space, budget)
        self.size = self.amc.size + 1

    def observe(self, step: int, decided: Widths, last_action: float) -> Observation:
        """Return the ten features of group number `step`, and the budget left."""
        ten = self.amc.observe(step, decided, last_action)
        return np.append(ten, np.float32(self.left(decided)))


def _range(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per column the smallest value, and the distance to the largest (infinite where it is 0)."""
    low = table.min(axis=0)
    span = table.max(axis=0) - low
    return low, np.where(span > 0, span, np.inf)
