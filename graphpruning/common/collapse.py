"""When features of widths count as dead: one definition for logs, tables and claims."""

ALIVE = 0.01
"""Features that vary by less than this share of their size over random widths know of none."""
KEPT, READABLE = 0.5, 0.1
"""A probe for far widths is lost if it is below `KEPT` of its R² untrained, where that was at least
`READABLE`."""


def collapsed(variation: float, probe: float, untrained_probe: float) -> bool:
    """Return whether training has killed features.

    Args:
        variation: their deviation over random widths, as a share of their size.
        probe: R² with which they tell widths two or more edges away.
        untrained_probe: the same before training.
    """
    lost = untrained_probe >= READABLE and probe < KEPT * untrained_probe
    return variation < ALIVE or lost
