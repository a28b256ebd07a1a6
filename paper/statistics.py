"""Means, shares and rank correlations, each with its 95 % interval.

Over seeds the interval is Student's t; over channels, groups and candidates it is the percentile
bootstrap. Both are deterministic: the bootstrap draws from a generator of fixed seed.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval from `n` units; NaN bounds where one unit gives none."""

    value: float
    low: float
    high: float
    n: int

    def scaled(self, factor: float) -> "Estimate":
        """The same in another unit."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.n)

    def above(self, threshold: float) -> "Estimate":
        """The same as an effect over a fixed threshold."""
        return Estimate(self.value - threshold, self.low - threshold, self.high - threshold, self.n)


def mean(values: ArrayLike) -> Estimate:
    """Mean of `values` [n] with its t-interval: mean ± t(0.975, n - 1) · s / √n."""
    array = np.asarray(values, dtype=float)
    n = array.size
    if n < 2:
        return Estimate(float(array.mean()) if n else math.nan, math.nan, math.nan, n)
    centre = float(array.mean())
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2) * array.std(ddof=1) / math.sqrt(n))
    return Estimate(centre, centre - half, centre + half, n)


def paired(ours: Mapping[int, float], other: Mapping[int, float]) -> Estimate:
    """Mean of ours minus other over the seeds that both have, with the paired t-interval."""
    return mean([ours[seed] - other[seed] for seed in sorted(ours.keys() & other.keys())])


def bootstrap(n: int, statistic: Callable[[NDArray[np.intp]], float], seed: int = 0) -> Estimate:
    """Percentile bootstrap of `statistic`, a function of the indices of the units drawn.

    The value is the statistic of all `n` units; resamples where it is undefined (NaN) are left
    out. One unit gives no interval.
    """
    value = statistic(np.arange(n))
    if n < 2 or math.isnan(value):
        return Estimate(value, math.nan, math.nan, n)
    draws = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    resampled = np.array([statistic(draw) for draw in draws])
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), n)


class Clusters:
    """Values that belong to units (layers, groups), so that whole units are resampled.

    Channels of one layer are not independent; a resample draws layers, with all of their
    channels.
    """

    def __init__(self, values: "pd.Series[float]", units: "pd.Series[str]") -> None:
        self.values = {
            str(unit): group.to_numpy(dtype=float)
            for unit, group in values.groupby(units, sort=False)
        }

    def pooled(self, units: Sequence[Hashable]) -> NDArray[np.float64]:
        """The values of `units`, repeated units repeated; units without values add none."""
        empty = np.empty(0)
        return np.concatenate([self.values.get(str(unit), empty) for unit in units])

    def estimate(self, statistic: Callable[[NDArray[np.float64]], float]) -> Estimate:
        """`statistic` of all values, its interval by resampling units; n counts units."""
        names = list(self.values)
        return bootstrap(len(names), lambda draw: statistic(self.pooled([names[i] for i in draw])))

    def difference(
        self, other: "Clusters", statistic: Callable[[NDArray[np.float64]], float]
    ) -> Estimate:
        """`statistic` of these minus that of `other`; both see the same units in a resample."""
        names = list(dict.fromkeys([*self.values, *other.values]))

        def of(draw: NDArray[np.intp]) -> float:
            drawn = [names[i] for i in draw]
            mine, theirs = self.pooled(drawn), other.pooled(drawn)
            return statistic(mine) - statistic(theirs) if mine.size and theirs.size else math.nan

        return bootstrap(len(names), of)


def kendall(x: ArrayLike, y: ArrayLike) -> Estimate:
    """Kendall's tau-b of x and y [n] (ties counted), its interval by resampling the pairs.

    NaN where x or y is constant.
    """
    signs_x, signs_y = (np.sign(np.subtract.outer(v, v)) for v in (np.asarray(x), np.asarray(y)))

    def tau(draw: NDArray[np.intp]) -> float:
        a, b = signs_x[np.ix_(draw, draw)], signs_y[np.ix_(draw, draw)]
        untied = math.sqrt(float(np.abs(a).sum()) * float(np.abs(b).sum()))
        return float((a * b).sum()) / untied if untied else math.nan

    return bootstrap(len(signs_x), tau)
