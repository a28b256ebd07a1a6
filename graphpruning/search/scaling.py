"""Widths in given proportions: as wide as a budget allows, by one multiplier for all groups."""

from collections.abc import Mapping

import numpy as np

from graphpruning.network.widths import SearchSpace


def scaled(space: SearchSpace, ratios: Mapping[str, float], budget: int) -> dict[str, int]:
    """Every group at its level nearest to m x its ratio x its full width, for the largest m that
    meets `budget`.

    `ratios` are those of the groups to decide, above 0. A group's level moves only where m x ratio
    passes the middle between two levels, so the largest m is found exactly, by bisection over these
    places. Raises `UserError` when the space cannot meet the budget.
    """
    space.require(budget)
    full, levels = space.full, [np.array(space.levels[group]) for group in space.groups]
    wanted = np.array([ratios.get(group, 1.0) * full[group] for group in space.groups])
    places = [
        (level[1:] + level[:-1]) / 2 / want for level, want in zip(levels, wanted, strict=True)
    ]
    sorted_places = np.unique(np.concatenate(places))

    def at(multiplier: float) -> dict[str, int]:
        steps = [int(np.searchsorted(place, multiplier, side="right")) for place in places]
        return space.widths([level[step] for level, step in zip(levels, steps, strict=True)])

    low, high = 0, len(sorted_places)  # how many places m has passed: fits, and perhaps one more
    while low < high:
        middle = (low + high + 1) // 2
        fits = space.used(at(sorted_places[middle - 1])) <= budget
        low, high = (middle, high) if fits else (low, middle - 1)
    return at(sorted_places[low - 1] if low else 0.0)
