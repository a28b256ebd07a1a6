"""When conditioning on widths counts as dead: one definition for logs, tables and claims."""

ALIVE = 0.01
"""Features that vary by less than this share of their size over random widths know of none, and
weights that do hardly follow the features."""
KEPT, READABLE = 0.5, 0.1
"""A probe for far widths is lost if it is below `KEPT` of its R² untrained, where that was at least
`READABLE`."""


def collapsed(
    variation: float, probe: float, untrained_probe: float, weight_variation: float
) -> bool:
    """Return whether a trained PruningNet is conditioned on widths in name alone.

    Args:
        variation: the features' deviation over random widths, as a share of their size.
        probe: R² with which features tell widths two or more edges away.
        untrained_probe: the same before training.
        weight_variation: the deviation of the generated weights, as that of features.
    """
    lost = untrained_probe >= READABLE and probe < KEPT * untrained_probe
    return min(variation, weight_variation) < ALIVE or lost
