"""The simplest candidate: one width multiplier for all groups."""

from graphpruning.network.widths import SearchSpace
from graphpruning.search.history import Evaluate

BISECTIONS = 30  # a multiplier to 1e-9: finer than any two levels of a group differ


def search(space: SearchSpace, budget: int, evaluate: Evaluate) -> None:
    """Ask `evaluate` about the largest uniform widths within `budget` (MACs), filled; once.

    Raises `UserError` when the space cannot meet the budget.
    """
    evaluate(space.fill(largest_uniform(space, budget), budget))


def largest_uniform(space: SearchSpace, budget: int) -> dict[str, int]:
    """Every group at its level nearest to the largest multiplier that meets `budget`."""
    space.require(budget)
    low, high = 0.0, 1.0
    if space.macs(space.full) <= budget:
        return space.full
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        fits = space.macs(_at(space, middle)) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return _at(space, low)


def _at(space: SearchSpace, multiplier: float) -> dict[str, int]:
    return {group: space.nearest(group, multiplier) for group in space.groups}
