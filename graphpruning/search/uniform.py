"""The simplest candidate: one width multiplier for all groups."""

from graphpruning.network.widths import SearchSpace
from graphpruning.search.history import Evaluate
from graphpruning.search.scaling import scaled


def search(space: SearchSpace, budget: int, evaluate: Evaluate) -> None:
    """Ask `evaluate` about `filled_uniform` widths; once.

    Raises `UserError` when the space cannot meet the budget.
    """
    evaluate(filled_uniform(space, budget))


def filled_uniform(space: SearchSpace, budget: int) -> dict[str, int]:
    """The largest uniform widths within `budget`, raised evenly until they fill it.

    Groups are raised by one level each, the narrowest share of the full width first, so that the
    widths stay as uniform as the budget and the levels allow. `SearchSpace.fill` would come to the
    budget in fewer changes, but may double a single group.
    """
    widths = largest_uniform(space, budget)
    while space.used(widths) < space.filled * budget:
        raised = _narrowest_raised(space, widths, budget)
        if raised is None:
            return space.fill(widths, budget)
        widths = raised
    return widths


def largest_uniform(space: SearchSpace, budget: int) -> dict[str, int]:
    """Every group at its level nearest to the largest multiplier that meets `budget`."""
    return scaled(space, dict.fromkeys(space.choices, 1.0), budget)


def _narrowest_raised(
    space: SearchSpace, widths: dict[str, int], budget: int
) -> dict[str, int] | None:
    """`widths` with one group a level wider: the narrowest that then fits; None if none does."""
    for group in sorted(space.choices, key=lambda group: widths[group] / space.full[group]):
        wider = [level for level in space.levels[group] if level > widths[group]]
        if wider:
            raised = {**widths, group: wider[0]}
            if space.used(raised) <= budget:
                return raised
    return None
