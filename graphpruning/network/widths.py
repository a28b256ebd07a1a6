"""The search space: which widths each group may have, and what a budget still allows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from graphpruning.common.errors import UserError
from graphpruning.network.cost import CostTable, Counts
from graphpruning.network.graph import ChannelGraph, Widths

FILLED = 0.98
"""The share of its budget that a candidate uses at least, so that methods compare at equal MACs."""


@dataclass(frozen=True)
class SpaceSettings:
    """Which widths a group may have: the multiples of `divisor` from `smallest` x full width on, or
    `ratios` x full width, rounded down.

    Args:
        divisor: channels; None with `ratios`.
        smallest: share of the full width, above 0 and up to 1; not used with `ratios`.
        ratios: shares of the full width, above 0 and up to 1 (MetaPruning: (10 + 3i) / 100 for i
            from 0 to 30); None with `divisor`.
        filled: share of its budget that a candidate uses at least; with 0, as in AMC and
            MetaPruning, it only stays within it.

    Raises:
        UserError: for values that leave no levels.
    """

    divisor: int | None = 4
    smallest: float = 0.25
    ratios: tuple[float, ...] | None = None
    filled: float = FILLED

    def __post_init__(self) -> None:
        divisor, smallest, ratios = self.divisor, self.smallest, self.ratios
        if (divisor is None) == (ratios is None):
            raise UserError("space: either divisor or ratios must be given, and the other be null")
        if not 0 < smallest <= 1:
            raise UserError(f"space: smallest is {smallest}, must be above 0 and at most 1")
        if divisor is not None and divisor < 1:
            raise UserError(f"space: divisor is {divisor}, must be at least 1")
        if ratios is not None and (not ratios or min(ratios) <= 0 or max(ratios) > 1):
            raise UserError(f"space: ratios are {list(ratios)}, must be above 0 and at most 1")
        if not 0 <= self.filled <= 1:
            raise UserError(f"space: filled is {self.filled}, must be from 0 to 1")


class SearchSpace:
    """Levels (channels) for each prunable group; `levels` holds them ascending, by group.

    They are as `settings` say, and multiples of the group's unit as well. The full width is always
    a level. Single settings may be given by name: `SearchSpace(graph, divisor=8)`.
    """

    def __init__(
        self, graph: ChannelGraph, settings: SpaceSettings = SpaceSettings(), **named: Any
    ) -> None:
        settings = replace(settings, **named)
        divisor, smallest, ratios = settings.divisor, settings.smallest, settings.ratios
        self.graph = graph
        self.filled = settings.filled
        self.cost = CostTable(graph)
        self.groups = list(graph.full_widths)
        self.levels: dict[str, list[int]] = {}
        for name, group in graph.prunable.items():
            full, unit = group.width, group.unit
            if ratios is not None:
                kept = (int(full * ratio + 1e-9) for ratio in ratios)
                steps = {max(unit, width - width % unit) for width in kept}
            else:
                assert divisor is not None
                step = math.lcm(divisor, unit)
                steps = {w for w in range(step, full, step) if w >= smallest * full}
            self.levels[name] = sorted(steps | {full})

    @property
    def full(self) -> dict[str, int]:
        """Every group at full width."""
        return {group: levels[-1] for group, levels in self.levels.items()}

    @property
    def smallest(self) -> dict[str, int]:
        """Every group at its smallest level."""
        return {group: levels[0] for group, levels in self.levels.items()}

    def vector(self, widths: Widths) -> tuple[int, ...]:
        """Widths as a tuple in forward order."""
        return tuple(widths[group] for group in self.groups)

    def widths(self, vector: Sequence[int]) -> dict[str, int]:
        """The inverse of `vector`."""
        return dict(zip(self.groups, (int(width) for width in vector), strict=True))

    def macs(self, widths: Widths) -> int:
        """Multiply-accumulates at `widths`."""
        return int(self.cost.macs(self.cost.vector(widths)[None])[0])

    def require(self, budget: int) -> None:
        """Raise `UserError` when no widths of this space meet `budget` (MACs)."""
        if (least := self.macs(self.smallest)) > budget:
            share = least / self.macs(self.full)
            raise UserError(
                f"a budget of {budget:,} MACs cannot be reached: the smallest network of this "
                f"search space has {least:,} ({share:.3f} of the full one); raise the budget or "
                "lower space.smallest"
            )

    def sample(self, generator: torch.Generator) -> dict[str, int]:
        """Draw each group's width uniformly from its levels."""
        return {
            group: levels[int(torch.randint(len(levels), (), generator=generator))]
            for group, levels in self.levels.items()
        }

    def nearest(self, group: str, ratio: float, among: Sequence[int] | None = None) -> int:
        """The level of `group` (or of `among`) nearest to `ratio` x full width."""
        levels = self.levels[group] if among is None else among
        return min(levels, key=lambda level: abs(level - ratio * self.levels[group][-1]))

    def allowed(self, decided: Widths, group: str, budget: int) -> list[int]:
        """Levels of `group` with which the undecided groups can still make the budget.

        At their smallest they must meet `budget`; at full width they must fill it. When
        the levels are too coarse for the second, the largest level that meets the first remains.
        """
        levels = self.levels[group]
        least = self._macs_with({**self.smallest, **decided}, group, levels)
        most = self._macs_with({**self.full, **decided}, group, levels)
        within = [level for level, macs in zip(levels, least, strict=True) if macs <= budget]
        filling = [
            level
            for level, macs in zip(levels, most, strict=True)
            if level in within and macs >= self.filled * budget
        ]
        return filling or within[-1:] or levels[:1]

    def fill(self, widths: Widths, budget: int) -> dict[str, int]:
        """Move `widths` to where they fill `budget` by as few level changes as it finds.

        First raises single groups, the raise that comes nearest to the budget first; where none
        fits and it is still too small, lowers one group and raises another. Deterministic.
        `widths` must be within the budget; a space without filling widths gives the best found.
        """
        row = self.cost.vector(widths)
        while (macs := int(self.cost.macs(row[None])[0])) < self.filled * budget:
            better = self._best_move(row, macs, budget)
            if better is None:
                break
            row = better
        return self.widths([int(width) for width in row])

    def _best_move(self, row: Counts, macs: int, budget: int) -> Counts | None:
        """The raise, else the exchange, with the most MACs in (macs, budget]; None without one.

        An exchange sets two groups at once. There are as many as pairs of levels (1.2 million in
        ResNet-50 with 31 ratios), so they are tried one first level at a time.
        """
        moves = [(i, level) for i, group in enumerate(self.groups) for level in self.levels[group]]
        columns, levels = (np.array(side) for side in zip(*moves, strict=True))
        singles = _with(np.repeat(row[None], len(moves), axis=0), columns, levels)
        best, best_macs = self._most(singles, macs, budget)
        if best is None:
            for first in singles:
                pairs = _with(np.repeat(first[None], len(moves), axis=0), columns, levels)
                found, found_macs = self._most(pairs, best_macs, budget)
                if found is not None:
                    best, best_macs = found, found_macs
        return best

    def _most(self, rows: Counts, above: int, budget: int) -> tuple[Counts | None, int]:
        """The first of `rows` with the most MACs in (above, budget], and its MACs."""
        costs = self.cost.macs(rows)
        costs[(costs <= above) | (costs > budget)] = 0
        index = int(costs.argmax())
        if not costs[index]:
            return None, above
        best: Counts = rows[index]
        return best, int(costs[index])

    def sample_within(self, budget: int, generator: torch.Generator) -> dict[str, int]:
        """Draw random widths within `budget` that fill it.

        Groups are decided in a random order, each uniformly from what the budget still allows.
        """
        self.require(budget)
        decided: dict[str, int] = {}
        for index in torch.randperm(len(self.groups), generator=generator).tolist():
            group = self.groups[index]
            levels = self.allowed(decided, group, budget)
            decided[group] = levels[int(torch.randint(len(levels), (), generator=generator))]
        return self.fill({group: decided[group] for group in self.groups}, budget)

    def _macs_with(self, widths: Mapping[str, int], group: str, levels: list[int]) -> list[int]:
        matrix = np.repeat(self.cost.vector(widths)[None], len(levels), axis=0)
        matrix[:, self.groups.index(group)] = levels
        return [int(macs) for macs in self.cost.macs(matrix)]


def _with(rows: Counts, columns: Counts, values: Counts) -> Counts:
    """`rows` with one entry changed in each."""
    rows[np.arange(len(rows)), columns] = values
    return rows
