"""Means, shares and rank correlations, each with its 95 % interval.

Over replicates the interval is Student's t. Within one replicate, over its layers, groups or
candidates, it is the percentile bootstrap, and holds for the networks of this replicate alone.
Both are deterministic: the bootstrap draws from a generator of fixed seed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

Values = NDArray[np.float64]
Draws = NDArray[np.intp]
Statistic = Callable[[list[Values], Draws], Values]

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


def replicated(found: Sequence[Estimate]) -> Estimate:
    """A quantity from its estimates within each replicate: their mean with its t-interval.

    Of one replicate the estimate itself, whose interval is over the units of its networks.
    """
    return found[0] if len(found) == 1 else mean([one.value for one in found])


def paired(ours: Mapping[int, float], other: Mapping[int, float]) -> Estimate:
    """Mean of ours minus other over the seeds that both have, with its t-interval."""
    return mean([ours[seed] - other[seed] for seed in sorted(ours.keys() & other.keys())])


def bootstrap(n: int, statistic: Callable[[Draws], Values], seed: int = 0) -> Estimate:
    """Percentile bootstrap of `statistic`, which maps draws [resamples, n] of units to values.

    The value is the statistic of all `n` units; resamples where it is undefined (NaN) are left
    out. One unit gives no interval.
    """
    value = float(statistic(np.arange(n)[None])[0])
    if n < 2 or math.isnan(value):
        return Estimate(value, math.nan, math.nan, n)
    draws = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(statistic(draws), [tail, 1 - tail])
    return Estimate(value, float(low), float(high), n)


def means(groups: list[Values], draws: Draws) -> Values:
    """Mean over all values of the groups drawn; NaN where they have none."""
    sums, counts = (np.array([f(group) for group in groups]) for f in (np.sum, np.size))
    with np.errstate(invalid="ignore"):
        quotient: Values = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    return quotient


def medians(groups: list[Values], draws: Draws) -> Values:
    """Median over all values of the groups drawn; NaN where they have none."""
    values = np.concatenate([*groups, np.empty(0)])
    order = np.argsort(values)
    values = values[order]
    owner = np.repeat(np.arange(len(groups)), [group.size for group in groups])[order]
    found = np.full(len(draws), math.nan)
    for position, draw in enumerate(draws if values.size else ()):
        # How many of the values drawn stand up to each place: no resample needs sorting.
        below = np.cumsum(np.bincount(draw, minlength=len(groups))[owner])
        if count := below[-1]:
            middle = np.searchsorted(below, [(count + 1) // 2, count // 2 + 1])
            found[position] = values[middle].mean()
    return found


class Clusters:
    """Values that belong to units (layers, groups), so that whole units are resampled.

    Channels of one layer are not independent; a resample draws layers, with all of their
    channels. A statistic is `means` or `medians`.
    """

    def __init__(self, values: "pd.Series[float]", units: "pd.Series[str]") -> None:
        self.groups: dict[str, Values] = {
            str(unit): np.asarray(group, dtype=np.float64)
            for unit, group in values.groupby(units, sort=False)
        }

    def estimate(self, statistic: Statistic) -> Estimate:
        """`statistic` of all values, its interval by resampling units; n counts units."""
        groups = list(self.groups.values())
        return bootstrap(len(groups), lambda draws: statistic(groups, draws))

    def difference(self, other: "Clusters", statistic: Statistic) -> Estimate:
        """`statistic` of these minus that of `other`; both see the same units in a resample."""
        names = dict.fromkeys([*self.groups, *other.groups])
        mine, theirs = (
            [clusters.groups.get(name, np.empty(0)) for name in names] for clusters in (self, other)
        )

        def differences(draws: Draws) -> Values:
            less: Values = np.subtract(statistic(mine, draws), statistic(theirs, draws))
            return less

        return bootstrap(len(names), differences)


def kendall(x: ArrayLike, y: ArrayLike) -> Estimate:
    """Kendall's tau-b of x and y [n] (ties counted), its interval by resampling the pairs.

    NaN where x or y is constant.
    """
    a, b = (np.sign(np.subtract.outer(v, v), dtype=float) for v in (np.asarray(x), np.asarray(y)))

    def taus(draws: Draws) -> Values:
        # How often each pair was drawn, then sums over all pairs of pairs as quadratic forms.
        times = np.array([np.bincount(draw, minlength=len(a)) for draw in draws], dtype=float)
        concordance, untied_x, untied_y = (
            ((times @ form) * times).sum(axis=1) for form in (a * b, np.abs(a), np.abs(b))
        )
        with np.errstate(invalid="ignore"):
            quotient: Values = concordance / np.sqrt(untied_x * untied_y)
        return quotient

    return bootstrap(len(a), taus)
