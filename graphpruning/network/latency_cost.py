"""Time as a resource: each layer's is a table over the channels that it reads and writes.

Between the widths of a table times are interpolated bilinearly; they add up, as MACs do. Whole
nanoseconds make a budget of time as exact as one of MACs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphpruning.network.cost import CostTable, Counts

Values = NDArray[np.float64]
NANOSECONDS = 1_000_000
"""Of a millisecond."""
ROUNDS = 200
"""Passes over rows and columns until a table rises along both."""


@dataclass(frozen=True)
class LayerTimes:
    """Milliseconds [reads, writes] of one layer at the widths `reads` and `writes`, ascending."""

    reads: Sequence[int]
    writes: Sequence[int]
    milliseconds: Values


class Latency:
    """The time of a network of given widths,

        remainder + factor x sum over layers of times(channels read, channels written).

    Measured times are noisy, and a few more channels can even be faster; each layer's table is
    therefore replaced by the nearest one (least squares) that rises with both widths. So more
    channels never take less time, which a `Resource` promises. Beyond a table's widths the nearest
    one counts.

    Args:
        table: the channels of each layer at any widths.
        layers: the times of each layer, in forward order.
        factor: of all layers' times, above 0.
        remainder: milliseconds of what is no layer, at least 0.
    """

    def __init__(
        self,
        table: CostTable,
        layers: Sequence[LayerTimes],
        factor: float = 1.0,
        remainder: float = 0.0,
    ) -> None:
        self.table, self.remainder = table, remainder * NANOSECONDS
        self.times, self.reads, self.writes = [], [], []
        for layer in layers:
            rising = factor * NANOSECONDS * monotone(np.asarray(layer.milliseconds, np.float64))
            self.times.append(np.pad(rising, ((0, 1), (0, 1)), mode="edge"))
            self.reads.append(np.asarray(layer.reads, np.float64))
            self.writes.append(np.asarray(layer.writes, np.float64))

    def layer_times(self, matrix: Counts) -> Values:
        """Nanoseconds of each layer [vectors, layers] for `matrix` [vectors, groups]."""
        reads = self.table.count(self.table.reads, matrix)
        writes = self.table.count(self.table.writes, matrix)
        result = np.empty(reads.shape)
        rows = zip(self.times, self.reads, self.writes, strict=True)
        for number, (times, of_reads, of_writes) in enumerate(rows):
            row, below = _between(of_reads, reads[:, number])
            column, left = _between(of_writes, writes[:, number])
            upper = times[row, column] * (1 - left) + times[row, column + 1] * left
            lower = times[row + 1, column] * (1 - left) + times[row + 1, column + 1] * left
            result[:, number] = upper * (1 - below) + lower * below
        return result

    def used(self, matrix: Counts) -> Counts:
        """Return nanoseconds [vectors] for width vectors `matrix` [vectors, groups]."""
        total = self.remainder + self.layer_times(matrix).sum(axis=1)
        result: Counts = np.rint(total).astype(np.int64)
        return result

    def said(self, amount: int) -> str:
        """Write nanoseconds as milliseconds."""
        return f"{amount / NANOSECONDS:,.3f} ms"


def _between(knots: Values, values: Counts) -> tuple[Counts, Values]:
    """The last of `knots` up to each value, and how far the value is on the way to the next."""
    places = np.interp(values, knots, np.arange(len(knots)))
    index = places.astype(np.int64)
    return index, places - index


def monotone(table: Values) -> Values:
    """The table nearest to `table` [rows, columns] that falls along no row and no column.

    Dykstra's alternating projections (1986), each the pool of adjacent violators; what rounding
    leaves is taken off by a running maximum.
    """
    found = table.astype(np.float64)
    by_row, by_column = np.zeros_like(found), np.zeros_like(found)
    for _ in range(ROUNDS):
        before = found
        along = np.array([_rising(row) for row in found + by_row])
        by_row = found + by_row - along
        down = np.array([_rising(column) for column in (along + by_column).T]).T
        by_column = along + by_column - down
        found = down
        if np.allclose(found, before, rtol=1e-12, atol=0) and np.allclose(along, down, rtol=1e-9):
            break
    rising: Values = np.maximum.accumulate(np.maximum.accumulate(found, axis=0), axis=1)
    return rising


def _rising(values: Values) -> Values:
    """The nearest values that never fall (pool of adjacent violators)."""
    means: list[float] = []
    sizes: list[int] = []
    for value in values.tolist():
        means.append(value)
        sizes.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            last, size = means.pop(), sizes.pop()
            means[-1] = (means[-1] * sizes[-1] + last * size) / (sizes[-1] + size)
            sizes[-1] += size
    return np.repeat(means, sizes)
