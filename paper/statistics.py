"""Means, differences and rank correlations, each with its 95 % interval.

Over replicates the interval is Student's t. Within one replicate it holds for the networks of this
replicate alone: of means over candidates it is Student's t again, of what is resampled (layers,
groups, ranks) the expanded percentile bootstrap. Both are deterministic: the bootstrap draws from a
generator of fixed seed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtr, stdtrit

Values = NDArray[np.float64]
Draws = NDArray[np.intp]
Statistic = Callable[[list[Values], Draws], Values]

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval from `n` units; NaN bounds where one unit gives none.

    `df` are the degrees of freedom of a t-interval; of a bootstrap's they are infinite. `parts` are
    the two of which an interval is the wider (`no_narrower`), both around the value.
    """

    value: float
    low: float
    high: float
    n: int
    df: float = math.inf
    parts: tuple["Estimate", ...] = ()

    def scaled(self, factor: float) -> "Estimate":
        """The same in another unit."""
        return replace(
            self,
            value=self.value * factor,
            low=self.low * factor,
            high=self.high * factor,
            parts=tuple(part.scaled(factor) for part in self.parts),
        )

    def above(self, threshold: float) -> "Estimate":
        """The same as an effect over a fixed threshold."""
        return replace(
            self,
            value=self.value - threshold,
            low=self.low - threshold,
            high=self.high - threshold,
            parts=tuple(part.above(threshold) for part in self.parts),
        )

    @property
    def error(self) -> float:
        """Standard error: half of the interval over its t-quantile; NaN without an interval."""
        return (self.high - self.low) / 2 / _quantile(self.df, LEVEL)

    def at(self, level: float) -> tuple[float, float]:
        """The symmetric interval of another level; of two parts the wider one at that level."""
        half = max(_quantile(one.df, level) * one.error for one in self.parts or (self,))
        return self.value - half, self.value + half

    def no_narrower(self, noise: "Estimate") -> "Estimate":
        """The same value, at every level with the wider interval of this one and of `noise`, whose
        value does not count; and with the larger p-value of both.
        """
        if math.isnan(self.error) or math.isnan(noise.error):
            return self
        other = _student(self.value, noise.error, noise.n, noise.df)
        wider = other if other.high - other.low > self.high - self.low else self
        return replace(wider, n=self.n, parts=(self, other))

    def of_replicates(self, n: int) -> "Estimate":
        """What `n` replicates give that are like those of this t-interval: the same value and
        spread. An interval that is not over replicates stays.
        """
        if self.parts:
            own, noise = self.parts
            less = noise.error * math.sqrt(noise.n / n)
            freedom = noise.df * n / noise.n  # as many as trainings, in every replicate alike
            return own.of_replicates(n).no_narrower(_student(self.value, less, n, freedom))
        if math.isinf(self.df) or math.isnan(self.error):
            return self
        error = self.error * math.sqrt(self.n / n)
        return _student(self.value, error, n, self.df * (n - 1) / (self.n - 1))

    @property
    def p_below(self) -> float:
        """P-value of the one-sided t-test that the effect is below zero; NaN without an interval.

        Of a bootstrap's interval as if it were a normal distribution's; of two parts the larger.
        """
        return self._p_towards(-1)

    @property
    def p_above(self) -> float:
        """The same of the test that the effect is above zero."""
        return self._p_towards(1)

    def _p_towards(self, sign: int) -> float:
        if math.isnan(self.low):
            return math.nan
        if self.parts:
            return max(part._p_towards(sign) for part in self.parts)
        if not self.error:
            return 0.0 if sign * self.value > 0 else 1.0
        return float(stdtr(self.df, -sign * self.value / self.error))

    @property
    def p_two_sided(self) -> float:
        """The same of the test that there is an effect; 1 of one that is 0 without any error."""
        least = min(self.p_below, self.p_above)
        return math.nan if math.isnan(least) else min(1.0, 2 * least)


def _quantile(df: float, level: float) -> float:
    """Of Student's t, for a two-sided interval of that level."""
    return float(stdtrit(min(df, 1e10), 0.5 + level / 2))


def mean(values: ArrayLike) -> Estimate:
    """Mean of `values` [n] with its t-interval: mean ± t(0.975, n - 1) · s / √n."""
    array = np.asarray(values, dtype=float)
    n = array.size
    if n < 2:
        return Estimate(float(array.mean()) if n else math.nan, math.nan, math.nan, n)
    centre, error = float(array.mean()), float(array.std(ddof=1) / math.sqrt(n))
    return _student(centre, error, n, n - 1)


def _student(value: float, error: float, n: int, df: float) -> Estimate:
    half = _quantile(df, LEVEL) * error
    return Estimate(value, value - half, value + half, n, df)


def replicated(found: Sequence[Estimate]) -> Estimate:
    """A quantity from its estimates within each replicate: their mean with its t-interval.

    Of one replicate the estimate itself, whose interval is over the units of its networks.
    """
    return found[0] if len(found) == 1 else mean([one.value for one in found])


def paired(ours: Mapping[int, float], other: Mapping[int, float]) -> Estimate:
    """Mean of ours minus other over the seeds that both have, with its t-interval."""
    return mean([ours[seed] - other[seed] for seed in sorted(ours.keys() & other.keys())])


def contrasts(
    ours: Mapping[int, float], others: Mapping[str, Mapping[int, float]]
) -> dict[str, Estimate]:
    """Mean of ours minus each other over the seeds that all have, with one pooled error.

    The analysis of variance of seeds x methods without interaction: the error's mean square MS is
    what neither the seed nor the method explains, with (n - 1) (m - 1) degrees of freedom for n
    seeds and m methods, and a difference has the standard error √(2 MS / n). Of two methods this
    is the paired t-test. With few seeds, several methods tell much more of the noise than one.
    """
    seeds = sorted(set(ours).intersection(*others.values()))
    table = np.array([[one[seed] for one in (ours, *others.values())] for seed in seeds])
    n, m = len(seeds), 1 + len(others)
    if not n or not others:
        return dict.fromkeys(others, Estimate(math.nan, math.nan, math.nan, 0))
    methods = table.mean(axis=0)
    found = methods[0] - methods[1:]
    if n < 2:
        return {
            name: Estimate(float(value), math.nan, math.nan, n)
            for name, value in zip(others, found, strict=True)
        }
    rest = table - methods - table.mean(axis=1, keepdims=True) + table.mean()
    df = (n - 1) * (m - 1)
    error = math.sqrt(2 * float((rest**2).sum()) / df / n)
    return {
        name: _student(float(value), error, n, df)
        for name, value in zip(others, found, strict=True)
    }


def of_trainings(each: Sequence[Values]) -> Estimate:
    """What the noise of single trainings alone does to a difference of two methods, around zero.

    `each` [trainings, methods] is of one replicate: accuracies, of which those in a row have the
    order of images and the augmentation in common. The mean square MS is of what neither the
    training nor the method explains; a mean over n replicates of k trainings each has the standard
    error √(2 MS / k / n). NaN bounds where nothing was trained twice.
    """
    square, df, inverse = 0.0, 0, 0.0
    for table in each:
        k, m = table.shape
        means = table.mean(axis=1, keepdims=True) + table.mean(axis=0) - table.mean()
        square += float(((table - means) ** 2).sum())
        df += (k - 1) * (m - 1)
        inverse += 1 / k
    if not df:
        return Estimate(0.0, math.nan, math.nan, len(each))
    return _student(0.0, math.sqrt(2 * square / df * inverse) / len(each), len(each), df)


def bootstrap(n: int, statistic: Callable[[Draws], Values], seed: int = 0) -> Estimate:
    """Bootstrap of `statistic`, which maps draws [resamples, n] of units to values.

    The value is the statistic of all `n` units; resamples where it is undefined (NaN) are left
    out. One unit gives no interval. Percentiles are expanded (`_percentiles`).
    """
    value = float(statistic(np.arange(n)[None])[0])
    if n < 2 or math.isnan(value):
        return Estimate(value, math.nan, math.nan, n)
    draws = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    return Estimate(value, *_percentiles(statistic(draws), n, n - 1), n)


def _percentiles(resampled: Values, n: int, df: int) -> tuple[float, float]:
    """The expanded percentile interval of resamples of `n` units (Hesterberg 2015, The American
    Statistician 69(4), section 4.3).

    Resampling few units tells too little spread: of the variance (n - 1) / n, and a normal
    distribution's tails. So the percentiles are those at which a normal distribution has the
    quantiles t(df) √(n / (n - 1)). Of seven layers they are 0.4 and 99.6 %, not 2.5 and 97.5 %.
    """
    tail = float(ndtr(-_quantile(df, LEVEL) * math.sqrt(n / (n - 1))))
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def means(groups: list[Values], draws: Draws) -> Values:
    """Mean over all values of the groups drawn; NaN where they have none."""
    sums, counts = (np.array([f(group) for group in groups]) for f in (np.sum, np.size))
    with np.errstate(invalid="ignore"):
        quotient: Values = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    return quotient


def medians(groups: list[Values], draws: Draws) -> Values:
    """Median over all values of the groups drawn; NaN where they have none."""
    values = np.concatenate([*groups, np.empty(0)])
    if not values.size:
        return np.full(len(draws), math.nan)
    # Values are sorted once; how many of each group stand up to a place tells how many of those
    # drawn do, so that each resample's middle is found by bisection.
    order, every = np.argsort(values), np.arange(len(groups))
    sizes = np.array([group.size for group in groups])
    up_to = (np.repeat(every, sizes)[order][:, None] == every).cumsum(axis=0)
    times = (draws[:, :, None] == every).sum(axis=1)

    def at(rank: Draws) -> Values:
        low, high = np.zeros_like(rank), np.full_like(rank, values.size - 1)
        while (low < high).any():
            middle = (low + high) // 2
            enough = (times * up_to[middle]).sum(axis=1) >= rank
            high = np.where(enough, middle, high)
            low = np.minimum(np.where(enough, low, middle + 1), high)
        return values[order[low]]

    count = times @ sizes
    middles: Values = (at((count + 1) // 2) + at(count // 2 + 1)) / 2
    return np.where(count > 0, middles, math.nan)


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

    def value(self, statistic: Statistic) -> float:
        """`statistic` of all values, without an interval."""
        groups = list(self.groups.values())
        return float(statistic(groups, np.arange(len(groups))[None])[0])

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


def over_replicates(found: Sequence[Clusters], statistic: Statistic) -> Estimate:
    """`replicated` of a statistic; units are resampled only where there is one replicate."""
    if len(found) == 1:
        return found[0].estimate(statistic)
    return mean([one.value(statistic) for one in found])


def difference_over_replicates(
    found: Sequence[Clusters], others: Sequence[Clusters], statistic: Statistic
) -> Estimate:
    """The same for the difference between two."""
    if len(found) == 1:
        return found[0].difference(others[0], statistic)
    both = zip(found, others, strict=True)
    return mean([one.value(statistic) - other.value(statistic) for one, other in both])


def kendall(x: ArrayLike, y: ArrayLike) -> Estimate:
    """Kendall's tau-b of x and y [n] (ties counted), its interval by resampling the pairs.

    NaN where x or y is constant.
    """
    return bootstrap(np.size(x), _taus(x, y))


def kendall_value(x: ArrayLike, y: ArrayLike) -> float:
    """The same without its interval."""
    return float(_taus(x, y)(np.arange(np.size(x))[None])[0])


def mean_kendall(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> Estimate:
    """Mean of Kendall's tau-b over groups of x, y [n], pairs being resampled within each group.

    `n` counts all pairs. NaN where one of the groups has none.
    """
    sizes = [np.size(x) for x, _ in pairs]
    value = float(np.mean([kendall_value(x, y) for x, y in pairs]))
    if min(sizes) < 2 or math.isnan(value):
        return Estimate(value, math.nan, math.nan, sum(sizes))
    rng = np.random.default_rng(0)
    taus = [_taus(x, y)(rng.integers(np.size(x), size=(RESAMPLES, np.size(x)))) for x, y in pairs]
    freedom = sum(sizes) - len(sizes)
    return Estimate(value, *_percentiles(np.mean(taus, axis=0), min(sizes), freedom), sum(sizes))


def _taus(x: ArrayLike, y: ArrayLike) -> Callable[[Draws], Values]:
    """Tau-b of resamples [resamples, n] of x and y [n]."""
    a, b = (np.sign(np.subtract.outer(v, v), dtype=float) for v in (np.asarray(x), np.asarray(y)))

    def taus(draws: Draws) -> Values:
        # How often each pair was drawn, then sums over all pairs of pairs as quadratic forms.
        apart = draws + len(a) * np.arange(len(draws))[:, None]  # each resample has its own places
        times = np.bincount(apart.ravel(), minlength=len(draws) * len(a)).astype(float)
        times = times.reshape(len(draws), len(a))
        concordance, untied_x, untied_y = (
            ((times @ form) * times).sum(axis=1) for form in (a * b, np.abs(a), np.abs(b))
        )
        with np.errstate(invalid="ignore"):
            quotient: Values = concordance / np.sqrt(untied_x * untied_y)
        return quotient

    return taus


def stepped_up(reliability: float, count: int) -> float:
    """Spearman and Brown: reliability of the mean of `count` measurements, from that of one."""
    return count * reliability / (1 + (count - 1) * reliability)


def disattenuated(tau: Estimate, reliability: float) -> Estimate:
    """What Kendall's tau would be if the second of its variables were measured without noise.

    Greiner's relation makes a correlation of it, r = sin(pi tau / 2); this is divided by the root
    of the reliability (Spearman) and made a tau again, at most 1 and at least -1. The interval's
    ends go the same way: the reliability counts as known.
    """

    def corrected(value: float) -> float:
        r = math.sin(math.pi / 2 * min(1.0, max(-1.0, value))) / math.sqrt(reliability)
        return 2 / math.pi * math.asin(min(1.0, max(-1.0, r)))

    return replace(
        tau,
        value=corrected(tau.value),
        low=corrected(tau.low) if not math.isnan(tau.low) else math.nan,
        high=corrected(tau.high) if not math.isnan(tau.high) else math.nan,
    )


def interquartile_mean(values: ArrayLike) -> Estimate:
    """Mean of the middle half of `values` [n], with a bootstrap interval.

    A quarter of the values, rounded down, is left out at each end: rliable's IQM (Agarwal et al.,
    2021), `scipy.stats.trim_mean` with 0.25. NaN for fewer than two values.
    """
    array = np.asarray(values, dtype=float)
    n = array.size
    if n < 2:
        return Estimate(math.nan, math.nan, math.nan, n)
    cut = n // 4

    def middles(draws: Draws) -> Values:
        middle: Values = np.sort(array[draws], axis=1)[:, cut : n - cut].mean(axis=1)
        return middle

    return bootstrap(n, middles)


def improvement(tasks: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Estimate:
    """Probability that a run of the first is better than one of the second, mean over tasks.

    A task has the scores of both [runs]; all pairs of runs count, a tie half: rliable's
    probability of improvement (Agarwal et al., 2021), with a bootstrap over runs within each task.
    `n` counts the first's runs of a task. NaN where a task has fewer than two runs of either.
    """
    n = min(len(ours) for ours, _ in tasks)
    if min(n, *(len(other) for _, other in tasks)) < 2:
        return Estimate(math.nan, math.nan, math.nan, n)
    wins = [(np.sign(np.subtract.outer(ours, other)) + 1) / 2 for ours, other in tasks]
    rng = np.random.default_rng(0)
    resampled = []
    for won in wins:
        rows, columns = (rng.integers(size, size=(RESAMPLES, size)) for size in won.shape)
        resampled.append(won[rows[:, :, None], columns[:, None]].mean(axis=(1, 2)))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.mean(resampled, axis=0), [tail, 1 - tail])
    return Estimate(float(np.mean([won.mean() for won in wins])), float(low), float(high), n)
