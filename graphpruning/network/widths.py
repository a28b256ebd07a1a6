"""The search space: which widths each group may have, and what a budget still allows."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from graphpruning.errors import UserError
from graphpruning.network.cost import CostTable
from graphpruning.network.graph import ChannelGraph, Widths

FILLED = 0.98
"""A candidate uses at least this share of its budget, so that methods compare at equal MACs."""


class SearchSpace:
    """Levels for each prunable group: multiples of `divisor` from `smallest` x full width on, or
    the given `ratios` of the full width, rounded down (MetaPruning's 31: (10+3i)/100).

    The full width is always a level. Raises `UserError` for values that leave no levels.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        *,
        divisor: int | None = 4,
        smallest: float = 0.25,
        ratios: Sequence[float] | None = None,
    ) -> None:
        if (divisor is None) == (ratios is None):
            raise UserError("a search space has either a divisor or ratios, not both")
        if not 0 < smallest <= 1 or (divisor is not None and divisor < 1):
            raise UserError(f"search space: divisor {divisor} and smallest {smallest} do not fit")
        if ratios is not None and (not ratios or min(ratios) <= 0 or max(ratios) > 1):
            raise UserError("search space: ratios lie above 0 and up to 1")
        self.graph = graph
        self.cost = CostTable(graph)
        self.groups = list(graph.full_widths)
        self.levels: dict[str, list[int]] = {}
        for group, full in graph.full_widths.items():
            if ratios is not None:
                steps = {max(1, int(full * ratio + 1e-9)) for ratio in ratios}
            else:
                assert divisor is not None
                steps = {w for w in range(divisor, full, divisor) if w >= smallest * full}
            self.levels[group] = sorted(steps | {full})

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

        At their smallest they must meet `budget`; at full width they must reach 98 % of it. When
        the levels are too coarse for the second, the largest level that meets the first remains.
        """
        levels = self.levels[group]
        least = self._macs_with({**self.smallest, **decided}, group, levels)
        most = self._macs_with({**self.full, **decided}, group, levels)
        within = [level for level, macs in zip(levels, least, strict=True) if macs <= budget]
        filling = [
            level
            for level, macs in zip(levels, most, strict=True)
            if level in within and macs >= FILLED * budget
        ]
        return filling or within[-1:] or levels[:1]

    def fill(self, widths: Widths, budget: int) -> dict[str, int]:
        """Move `widths` to within 98 to 100 % of `budget` by as few level changes as it finds.

        First raises single groups, the raise that comes nearest to the budget first; where none
        fits and it is still too small, lowers one group and raises another. Deterministic.
        `widths` must be within the budget; a space without filling widths gives the best found.
        """
        row = self.cost.vector(widths)
        while (macs := int(self.cost.macs(row[None])[0])) < FILLED * budget:
            better = self._best_move(row, macs, budget)
            if better is None:
                break
            row = better
        return self.widths([int(width) for width in row])

    def _best_move(
        self, row: np.ndarray[tuple[int], np.dtype[np.int64]], macs: int, budget: int
    ) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
        """The raise, else the exchange, with the most MACs in (macs, budget]; None without one."""
        raises = [
            (column, level)
            for column, group in enumerate(self.groups)
            for level in self.levels[group]
        ]
        singles = np.repeat(row[None], len(raises), axis=0)
        for index, (column, level) in enumerate(raises):
            singles[index, column] = level
        for moves in (singles, None):
            if moves is None:
                columns = np.array([column for column, _ in raises])
                levels = np.array([level for _, level in raises])
                moves = np.repeat(singles, len(raises), axis=0)
                moves[np.arange(len(moves)), np.tile(columns, len(raises))] = np.tile(
                    levels, len(raises)
                )
            costs = self.cost.macs(moves)
            fitting = np.flatnonzero((costs > macs) & (costs <= budget))
            if len(fitting):
                best: np.ndarray[tuple[int], np.dtype[np.int64]] = moves[
                    fitting[np.argmax(costs[fitting])]
                ]
                return best
        return None

    def sample_within(self, budget: int, generator: torch.Generator) -> dict[str, int]:
        """Draw random widths within `budget` that use at least 98 % of it.

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
