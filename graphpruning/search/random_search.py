"""Random search: as many random candidates as the other searches may judge."""

from torch import Generator

from graphpruning.network.widths import SearchSpace
from graphpruning.search.history import Journal

ATTEMPTS = 100
"""Draws before a candidate that was judged already is accepted: the space has hardly another."""


def search(space: SearchSpace, budget: int, journal: Journal, generator: Generator) -> None:
    """Ask `journal` about random widths within `budget` until it has no evaluation left.

    Raises `UserError` when the space cannot meet the budget.
    """
    known: set[tuple[int, ...]] = set()
    for _ in range(journal.evaluations):
        widths = unknown_within(space, budget, known, generator)
        known.add(space.vector(widths))
        journal(widths)


def unknown_within(
    space: SearchSpace, budget: int, known: set[tuple[int, ...]], generator: Generator
) -> dict[str, int]:
    """Draw random widths within `budget` that are not among `known`, if they can be found."""
    for _ in range(ATTEMPTS):
        widths = space.sample_within(budget, generator)
        if space.vector(widths) not in known:
            break
    return widths
