"""What a budget limits, as a function of widths: MACs, or time (see `latency_cost.py`)."""

from typing import Protocol

from graphpruning.network.cost import CostTable, Counts


class Resource(Protocol):
    """How much a network of given widths uses; more channels never use less.

    Amounts are whole numbers, so that a budget is exact. That they rise with every width is what
    the searches rely on: the smallest network uses least, and what a budget still allows follows
    from the smallest and the largest widths of the groups not decided yet.
    """

    def used(self, matrix: Counts) -> Counts:
        """Return amounts [vectors] for width vectors `matrix` [vectors, groups]."""
        ...

    def said(self, amount: int) -> str:
        """Write an amount with its unit."""
        ...


class Macs:
    """Multiply-accumulates of one image."""

    def __init__(self, table: CostTable) -> None:
        self.table = table

    def used(self, matrix: Counts) -> Counts:
        """Return MACs [vectors] for width vectors `matrix` [vectors, groups]."""
        return self.table.macs(matrix)

    def said(self, amount: int) -> str:
        """Write MACs with their unit."""
        return f"{amount:,} MACs"
