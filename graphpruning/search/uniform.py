"""The simplest candidate: one width multiplier for all groups."""

from graphpruning.network.widths import SearchSpace
from graphpruning.search.history import Evaluate
from graphpruning.search.scaling import scaled


def search(space: SearchSpace, budget: int, evaluate: Evaluate) -> None:
    """Ask `evaluate` about the largest uniform widths within `budget`, filled; once.

    Raises `UserError` when the space cannot meet the budget.
    """
    evaluate(space.fill(largest_uniform(space, budget), budget))


def largest_uniform(space: SearchSpace, budget: int) -> dict[str, int]:
    """Every group at its level nearest to the largest multiplier that meets `budget`."""
    return scaled(space, dict.fromkeys(space.choices, 1.0), budget)
