"""The search space: which widths each group may have, and what a budget still allows."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

from graphpruning.common.errors import UserError, brief
from graphpruning.common.names import nearest
from graphpruning.network.cost import CostTable, Counts
from graphpruning.network.graph import ChannelGraph, Group, Widths
from graphpruning.network.resource import Macs, Resource

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
        for name, value in (("smallest", smallest), ("filled", self.filled)):
            if not isinstance(value, Real):
                raise UserError(f"space: {name} is {brief(value)}, must be a number")
        if divisor is not None and not isinstance(divisor, Integral):
            raise UserError(f"space: divisor is {brief(divisor)}, must be a whole number")
        if ratios is not None and not all(isinstance(ratio, Real) for ratio in ratios):
            raise UserError(f"space: ratios are {brief(list(ratios))}, must be numbers")
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
    a level, unless `ratios` exclude it. Single settings may be given by name:
    `SearchSpace(graph, divisor=8)`.

    Args:
        keep: patterns (as of file names: `layer4.*`) of layers that stay as wide as they are. A
            group is hit if any of its layers is, because their widths are equal.
        ratios: (low, high) by pattern: the groups hit have levels between these shares of their
            full width, whatever `settings.smallest` says; where several patterns hit one group,
            all of them hold. A list is the setting of that name.
        resource: what a budget limits, MACs if not given; every budget below is an amount of it.

    `choices` are the groups that are to be decided: all but those that `keep` or `ratios` leave a
    single level.

    Raises:
        UserError: for a pattern that no layer matches, and for ratios that leave a group no level.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        settings: SpaceSettings = SpaceSettings(),
        *,
        keep: Sequence[str] = (),
        ratios: Mapping[str, tuple[float, float]] | Sequence[float] | None = None,
        resource: Resource | None = None,
        **named: Any,
    ) -> None:
        limits = dict(ratios) if isinstance(ratios, Mapping) else {}
        if ratios is not None and not isinstance(ratios, Mapping):
            named["ratios"] = tuple(ratios)
        settings = replace(settings, **named)
        self.graph = graph
        self.filled = settings.filled
        self.cost = CostTable(graph)
        self.resource = resource or Macs(self.cost)
        self.groups = list(graph.full_widths)
        kept = {pattern: (1.0, 1.0) for pattern in keep}
        hit = _hit(graph, [*limits.items(), *kept.items()])
        self.levels = {
            name: _levels(group, settings, hit.get(name, {}))
            for name, group in graph.prunable.items()
        }
        self.choices = [
            group for group in self.groups if group not in hit or len(self.levels[group]) > 1
        ]
        if self.groups and not self.choices:
            raise UserError("keep: every layer is kept, so there is no width to decide")

    def limited_by(self, resource: Resource) -> "SearchSpace":
        """The same widths with budgets of another resource."""
        other = copy.copy(self)
        other.resource = resource
        return other

    @property
    def full(self) -> dict[str, int]:
        """Every group at full width."""
        return self.graph.full_widths

    @property
    def largest(self) -> dict[str, int]:
        """Every group at its largest level: the full width, unless `ratios` exclude it."""
        return {group: levels[-1] for group, levels in self.levels.items()}

    @property
    def smallest(self) -> dict[str, int]:
        """Every group at its smallest level."""
        return {group: levels[0] for group, levels in self.levels.items()}

    @property
    def smallest_ratio(self) -> float:
        """The least kept ratio that a group to be decided may have."""
        full = self.full
        return min(self.levels[group][0] / full[group] for group in self.choices)

    def vector(self, widths: Widths) -> tuple[int, ...]:
        """Widths as a tuple in forward order."""
        return tuple(widths[group] for group in self.groups)

    def widths(self, vector: Sequence[int]) -> dict[str, int]:
        """The inverse of `vector`."""
        return dict(zip(self.groups, (int(width) for width in vector), strict=True))

    def macs(self, widths: Widths) -> int:
        """Multiply-accumulates at `widths`."""
        return int(self.cost.macs(self.cost.vector(widths)[None])[0])

    def used(self, widths: Widths) -> int:
        """How much of the resource a network of `widths` uses: MACs, or what was given."""
        return int(self.resource.used(self.cost.vector(widths)[None])[0])

    def require(self, budget: int) -> None:
        """Raise `UserError` when no widths of this space meet `budget`."""
        if (least := self.used(self.smallest)) > budget:
            share = least / self.used(self.full)
            said = self.resource.said
            raise UserError(
                f"a budget of {said(budget)} cannot be reached: the smallest network of this "
                f"search space has {said(least)} ({share:.3f} of the full one); raise the budget, "
                "or lower `smallest`, or `divisor`, to whose multiples widths are rounded"
            )

    def require_choices(self) -> None:
        """Raise `UserError` when no group's width is to be decided."""
        if not self.choices:
            raise UserError(
                "no layer's width can be pruned: each is at the network's output, or tied to "
                "something that must stay whole (`inspect` says what)"
            )

    def sample(self, generator: torch.Generator) -> dict[str, int]:
        """Draw each group's width uniformly from its levels."""
        return {
            group: levels[_draw(len(levels), generator)] for group, levels in self.levels.items()
        }

    def nearest(self, group: str, ratio: float, among: Sequence[int] | None = None) -> int:
        """The level of `group` (or of `among`) nearest to `ratio` x full width."""
        levels = self.levels[group] if among is None else among
        width = self.graph.prunable[group].width
        return min(levels, key=lambda level: abs(level - ratio * width))

    def allowed(self, decided: Widths, group: str, budget: int) -> list[int]:
        """Levels of `group` with which the undecided groups can still make the budget.

        At their smallest they must meet `budget`; at their largest they must fill it. When
        the levels are too coarse for the second, the largest level that meets the first remains.
        """
        levels = self.levels[group]
        least = self._used_with({**self.smallest, **decided}, group, levels)
        most = self._used_with({**self.largest, **decided}, group, levels)
        within = [level for level, used in zip(levels, least, strict=True) if used <= budget]
        filling = [
            level
            for level, used in zip(levels, most, strict=True)
            if level in within and used >= self.filled * budget
        ]
        return filling or within[-1:] or levels[:1]

    def fill(self, widths: Widths, budget: int) -> dict[str, int]:
        """Move `widths` to where they fill `budget` by as few level changes as it finds.

        First raises single groups, the raise that comes nearest to the budget first; where none
        fits and it is still too small, lowers one group and raises another. Deterministic.
        `widths` must be within the budget; a space without filling widths gives the best found.
        """
        row = self.cost.vector(widths)
        while (used := int(self.resource.used(row[None])[0])) < self.filled * budget:
            better = self._best_move(row, used, budget)
            if better is None:
                break
            row = better
        return self.widths([int(width) for width in row])

    def _best_move(self, row: Counts, used: int, budget: int) -> Counts | None:
        """The raise, else the exchange, that uses most within (used, budget]; None without one.

        An exchange sets two groups at once. There are as many as pairs of levels (1.2 million in
        ResNet-50 with 31 ratios), so they are tried one first level at a time.
        """
        moves = [(i, level) for i, group in enumerate(self.groups) for level in self.levels[group]]
        columns, levels = (np.array(side) for side in zip(*moves, strict=True))
        singles = _with(np.repeat(row[None], len(moves), axis=0), columns, levels)
        best, best_used = self._most(singles, used, budget)
        if best is None:
            for first in singles:
                pairs = _with(np.repeat(first[None], len(moves), axis=0), columns, levels)
                found, found_used = self._most(pairs, best_used, budget)
                if found is not None:
                    best, best_used = found, found_used
        return best

    def _most(self, rows: Counts, above: int, budget: int) -> tuple[Counts | None, int]:
        """The first of `rows` that uses most within (above, budget], and how much it uses."""
        used = self.resource.used(rows)
        used[(used <= above) | (used > budget)] = 0
        index = int(used.argmax())
        if not used[index]:
            return None, above
        best: Counts = rows[index]
        return best, int(used[index])

    def sample_within(self, budget: int, generator: torch.Generator) -> dict[str, int]:
        """Draw random widths within `budget` that fill it.

        Groups are decided in a random order, each uniformly from what the budget still allows.
        Raises `UserError` when no widths meet the budget, or none is to be decided.
        """
        self.require_choices()
        self.require(budget)
        decided: dict[str, int] = {}
        order = torch.randperm(len(self.groups), generator=generator, device=generator.device)
        for index in order.tolist():
            group = self.groups[index]
            levels = self.allowed(decided, group, budget)
            decided[group] = levels[_draw(len(levels), generator)]
        return self.fill({group: decided[group] for group in self.groups}, budget)

    def _used_with(self, widths: Mapping[str, int], group: str, levels: list[int]) -> list[int]:
        matrix = np.repeat(self.cost.vector(widths)[None], len(levels), axis=0)
        matrix[:, self.groups.index(group)] = levels
        return [int(used) for used in self.resource.used(matrix)]


def _draw(count: int, generator: torch.Generator) -> int:
    """A whole number from 0 on, below `count`, whatever device a user has made the default."""
    return int(torch.randint(count, (), generator=generator, device=generator.device))


Limit = tuple[float, float]
"""The least and the largest share of a group's full width."""


def _hit(graph: ChannelGraph, limits: Sequence[tuple[str, Limit]]) -> dict[str, dict[str, Limit]]:
    """By group the limits, by pattern, that hit it."""
    names = [layer.name for layer in graph.layers]
    found: dict[str, dict[str, Limit]] = {}
    for pattern, (low, high) in limits:
        if not 0 < low <= high <= 1:
            raise UserError(
                f"ratios of {pattern!r} are {low:g} and {high:g}: they must be above 0, at most 1, "
                "the smaller one first"
            )
        if not any(fnmatchcase(name, pattern) for name in names):
            near = nearest(pattern, names)
            raise UserError(f"no layer matches {pattern!r}; did you mean {near!r}?")
        for group in graph.prunable.values():
            if any(fnmatchcase(layer, pattern) for layer in group.layers):
                found.setdefault(group.id, {})[pattern] = (low, high)
    return found


def _levels(group: Group, settings: SpaceSettings, limits: Mapping[str, Limit]) -> list[int]:
    """The widths that `group` may have; `UserError` when `limits` leave none."""
    full, unit, ratios = group.width, group.unit, settings.ratios
    low = max((low for low, _ in limits.values()), default=settings.smallest)
    high = min((high for _, high in limits.values()), default=1.0)
    if ratios is not None:
        kept = (int(full * ratio + 1e-9) for ratio in ratios)
        steps = {max(unit, width - width % unit) for width in kept}
    else:
        assert settings.divisor is not None
        step = math.lcm(settings.divisor, unit)
        steps = {width for width in range(step, full, step) if width >= low * full}
    levels = sorted(steps | {full})
    if limits:
        levels = [width for width in levels if low * full <= width <= high * full]
    if not levels:
        patterns = " and ".join(map(repr, limits))
        raise UserError(
            f"ratios of {patterns}: none of the widths that group {group.id!r} may have is from "
            f"{low:g} to {high:g} of its {full} channels; widen them, or lower the divisor"
        )
    return levels


def _with(rows: Counts, columns: Counts, values: Counts) -> Counts:
    """`rows` with one entry changed in each."""
    rows[np.arange(len(rows)), columns] = values
    return rows
