"""Intervals against values computed by hand or by SciPy's own routines."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from paper.statistics import (
    Clusters,
    Estimate,
    bootstrap,
    contrasts,
    difference_over_replicates,
    disattenuated,
    improvement,
    interquartile_mean,
    kendall,
    kendall_value,
    mean,
    mean_kendall,
    means,
    medians,
    of_trainings,
    over_replicates,
    paired,
    replicated,
    stepped_up,
)


def test_t_interval_by_hand():
    found = mean([1.0, 2.0, 3.0])
    # s = 1, t(0.975, 2) = 4.302653, half = 4.302653 / sqrt(3)
    assert found.value == 2
    assert found.high == pytest.approx(2 + 2.484138, abs=1e-6)
    assert found.low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert found.n == 3


def test_one_value_has_no_interval():
    found = mean([91.2])
    assert (found.value, found.n) == (91.2, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_pairs_are_matched_by_seed():
    ours, other = {0: 90.0, 1: 80.0, 2: 70.0}, {2: 69.0, 1: 79.0, 5: 10.0}
    found = paired(ours, other)
    assert (found.value, found.low, found.high, found.n) == (1, 1, 1, 2)


def test_replicates_count_once_each_and_one_alone_keeps_its_own_interval():
    alone = Estimate(1.0, 0.5, 1.75, 20)
    assert replicated([alone]) == alone
    found = replicated([alone, Estimate(2.0, -9.0, 9.0, 20), Estimate(3.0, 2.9, 3.1, 5)])
    assert found == mean([1.0, 2.0, 3.0]) and found.n == 3


def test_several_replicates_are_their_values_and_one_alone_is_resampled():
    rng = np.random.default_rng(0)
    one, two, other = (
        Clusters(pd.Series(rng.random(20)), pd.Series(list("abcd") * 5)) for _ in range(3)
    )
    for statistic in (means, medians):
        assert over_replicates([one], statistic) == one.estimate(statistic)
        found = over_replicates([one, two], statistic)
        assert found == replicated([one.estimate(statistic), two.estimate(statistic)])
        alone = difference_over_replicates([one], [other], statistic)
        assert alone == one.difference(other, statistic)
        found = difference_over_replicates([one, two], [other, other], statistic)
        apart = [each.difference(other, statistic) for each in (one, two)]
        assert found.value == pytest.approx(replicated(apart).value)


def test_mean_and_median_of_all_channels_by_hand():
    """Over channels, not over the layers' own means."""
    found = Clusters(pd.Series([1.0, 0.0, 1.0, 0.0, 0.0]), pd.Series(list("aabbb")))
    assert found.estimate(means).value == 0.4
    assert found.estimate(medians).value == 0
    assert found.estimate(means).n == 2


def test_medians_of_resamples_are_numpys():
    rng = np.random.default_rng(0)
    groups = [rng.random(size) for size in (3, 4, 1, 0, 7)]
    draws = rng.integers(5, size=(300, 5))
    expected = [np.median(np.concatenate([groups[i] for i in draw])) for draw in draws]
    assert np.array_equal(medians(groups, draws), expected)
    assert np.isnan(medians([np.empty(0)], draws[:, :1] * 0)).all()


@pytest.mark.parametrize("statistic", [means, medians])
def test_whole_layers_are_resampled(statistic):
    """Two layers of many equal channels: a resample is all, half or none of them."""
    values = pd.Series([0.0] * 50 + [1.0] * 50)
    found = Clusters(values, pd.Series(["a"] * 50 + ["b"] * 50)).estimate(statistic)
    assert (found.value, found.low, found.high) == (0.5, 0, 1)


@pytest.mark.parametrize("statistic", [means, medians])
def test_difference_resamples_the_same_units(statistic):
    """A constant shift has no uncertainty, however much the units differ from each other."""
    rng = np.random.default_rng(0)
    values, units = pd.Series(rng.random(30)), pd.Series(list("abcdef") * 5)
    found = Clusters(values + 0.1, units).difference(Clusters(values, units), statistic)
    assert [found.value, found.low, found.high] == pytest.approx([0.1] * 3)


@pytest.mark.parametrize("statistic", [means, medians])
def test_an_interval_over_few_layers_holds_the_truth_as_often_as_it_says(statistic):
    """Plain percentiles do so for 88 (means) and 92 % (medians) of these networks."""
    rng, held = np.random.default_rng(5), []
    sizes = (16, 16, 16, 32, 32, 64, 64)
    units = pd.Series(np.repeat(np.arange(7), sizes).astype(str))
    for _ in range(200):
        values = np.repeat(rng.normal(0, 0.1, 7), sizes) + rng.normal(0, 0.1, sum(sizes))
        found = Clusters(pd.Series(values), units).estimate(statistic)
        held.append(found.low <= 0 <= found.high)
    assert 0.94 <= np.mean(held) <= 0.995


def test_the_bootstrap_covers_as_a_normal_sample_does():
    sample = np.random.default_rng(1).normal(size=200)
    found = bootstrap(200, lambda draws: sample[draws].mean(axis=1))
    expected = mean(sample)
    assert found.low == pytest.approx(expected.low, abs=0.02)
    assert found.high == pytest.approx(expected.high, abs=0.02)
    assert found == bootstrap(200, lambda draws: sample[draws].mean(axis=1))


def test_kendall_with_ties_is_scipys_tau_b():
    x, y = [1, 2, 2, 3, 5, 4, 4, 7], [1, 3, 2, 2, 6, 4, 5, 5]
    assert kendall(x, y).value == pytest.approx(stats.kendalltau(x, y).statistic)


def test_kendall_of_one_order_is_certain_and_of_a_constant_undefined():
    found = kendall(np.arange(8), np.arange(8) ** 2)
    assert (found.value, found.low, found.high) == (1, 1, 1)
    assert math.isnan(kendall([1, 1, 1], [1, 2, 3]).value)


def test_p_values_and_other_intervals_are_scipys():
    sample = [0.3, -0.2, 0.9, 0.4]
    found = mean(sample)
    test = stats.ttest_1samp(sample, 0, alternative="less")
    assert found.p_below == pytest.approx(test.pvalue)
    interval = stats.ttest_1samp(sample, 0).confidence_interval(0.9)
    assert found.at(0.9) == pytest.approx((interval.low, interval.high))
    assert math.isnan(mean([1.0]).p_below)
    assert (mean([-1.0, -1.0]).p_below, mean([1.0, 1.0]).p_below) == (0, 1)


def test_contrasts_with_one_method_are_the_paired_t_test():
    ours, other = {0: 1.0, 1: 2.5, 2: 2.0, 9: 7.0}, {0: 0.5, 1: 1.0, 2: 1.9}
    found = contrasts(ours, {"other": other})["other"]
    expected = paired(ours, other)
    assert (found.n, found.df) == (expected.n, expected.df) == (3, 2)
    assert [found.value, found.low, found.high] == pytest.approx(
        [expected.value, expected.low, expected.high]
    )


def test_the_noise_of_trainings_by_hand():
    """Two methods: that of the differences, 0 and 2 in one replicate, 1 and 1 in the other."""
    each = [np.array([[1.0, 1.0], [3.0, 1.0]]), np.array([[5.0, 4.0], [7.0, 6.0]])]
    found = of_trainings(each)
    variance = (2.0 + 0.0) / 2  # of the differences, within replicates
    assert found.error == pytest.approx(math.sqrt(variance / 2 / 2))
    assert (found.value, found.df) == (0.0, 2)
    assert math.isnan(of_trainings([table[:1] for table in each]).low)


@pytest.mark.parametrize("methods", [2, 5])
def test_the_noise_of_trainings_is_what_it_is_simulated_with(methods):
    """What a row has in common, and how good a method is, do not count."""
    rng = np.random.default_rng(3)
    n, k, noise = 400, 3, 0.3
    draws = rng.normal(0, noise, (n, k, methods))
    draws += rng.normal(0, 2, (n, k, 1)) + rng.normal(0, 2, (n, 1, methods))
    assert of_trainings(list(draws)).error == pytest.approx(noise * math.sqrt(2 / k / n), rel=0.06)


def test_an_interval_is_no_narrower_than_another():
    narrow, wide = mean([1.0, 1.01, 0.99]), mean([-4.0, 0.0, 4.0, 0.0])
    found = narrow.no_narrower(wide)
    assert (found.value, found.n, found.df) == (narrow.value, 3, 3)
    assert found.high - found.low == pytest.approx(wide.high - wide.low)
    other = wide.no_narrower(narrow)
    assert (other.value, other.low, other.high) == (wide.value, wide.low, wide.high)
    assert (other.at(0.9), other.p_below) == (wide.at(0.9), wide.p_below)
    unknown = mean([1.0])
    assert narrow.no_narrower(unknown) == narrow
    assert math.isnan(unknown.no_narrower(wide).low)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("value", [0.2, 0.2279, 0.2281, 0.26])
def test_a_two_sided_test_says_what_the_interval_says(value: float, sign: int):
    """Of two parts the one that rejects less counts, on either side of zero."""
    own = Estimate(sign * value, sign * value - 0.228, sign * value + 0.228, 5, 4)
    for noise in (Estimate(0.0, -0.2, 0.2, 5, 10), Estimate(0.0, -0.24, 0.24, 5, 10)):
        found = own.no_narrower(noise)
        assert (found.p_two_sided <= 0.05) == (not found.low < 0 < found.high)
        assert found.p_two_sided == pytest.approx(max(p.p_two_sided for p in found.parts))
    assert mean([0.0, 0.0]).p_two_sided == 1.0 and math.isnan(mean([1.0]).p_two_sided)


def test_the_wider_of_two_intervals_depends_on_the_level_and_no_test_becomes_easier():
    """Few degrees of freedom make wide tails: a little less noise then counts at 90 % alone."""
    own = Estimate(-0.28, -0.28 - 0.228, -0.28 + 0.228, 5, 4)  # p of 0.0135
    noise = Estimate(0.0, -0.2283, 0.2283, 5, 10)
    found = own.no_narrower(noise)
    assert found.high - found.low == pytest.approx(0.4566)
    assert found.p_below == own.p_below > own.no_narrower(noise).parts[1].p_below
    assert found.at(0.9)[1] - found.value == pytest.approx(noise.error * stats.t.ppf(0.95, 10))
    assert found.at(0.9)[1] > own.at(0.9)[1]
    assert found.at(0.999)[1] == pytest.approx(own.at(0.999)[1])
    assert found.scaled(100).at(0.9)[1] == pytest.approx(100 * found.at(0.9)[1])
    more = found.of_replicates(20)
    assert more.error == pytest.approx(found.error / 2, rel=0.2)
    assert [part.df for part in more.parts] == pytest.approx([19, 40])


def test_without_others_there_are_no_contrasts():
    assert contrasts({0: 1.0, 1: 2.0}, {}) == {}


def test_contrasts_by_hand():
    """Two seeds, three methods: what seed and method leave is 0.1 everywhere, up or down."""
    table = {"a": {0: 3.1, 1: 3.9}, "b": {0: 1.9, 1: 3.1}, "c": {0: 2.0, 1: 3.0}}
    found = contrasts(table["a"], {"b": table["b"], "c": table["c"]})
    assert [found[name].value for name in "bc"] == pytest.approx([1.0, 1.0])
    # Residuals: a 0.1, -0.1; b -0.1, 0.1; c 0, 0. MS = 0.04 / 2; t(0.975, 2) = 4.302653.
    half = 4.302653 * math.sqrt(2 * 0.02 / 2)
    assert [found["b"].low, found["b"].high] == pytest.approx([1 - half, 1 + half], abs=1e-6)
    assert found["c"].df == 2


def test_mean_kendall_never_compares_between_groups():
    up, down = ([1, 2, 3, 4], [1, 2, 3, 4]), ([11, 12, 13, 14], [14, 13, 12, 11])
    assert mean_kendall([up, up]).value == 1
    found = mean_kendall([up, down])
    assert (found.value, found.low, found.high, found.n) == (0, 0, 0, 8)
    assert math.isnan(mean_kendall([up, ([], [])]).value)
    assert kendall_value(*down) == -1


def test_a_tau_is_corrected_for_noise_as_a_simulation_says():
    """Ranks against three noisy measurements: corrected, tau is that against the truth."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=1500)
    rating = truth + rng.normal(0, 0.7, 1500)
    noisy = truth + rng.normal(0, 1, (3, 1500))
    between = np.mean([kendall_value(noisy[i], noisy[j]) for i, j in ((0, 1), (0, 2), (1, 2))])
    one = math.sin(math.pi / 2 * between)
    assert one == pytest.approx(0.5, abs=0.04)  # the variance of the truth among both
    reliability = stepped_up(one, 3)
    assert reliability == pytest.approx(0.75, abs=0.03)
    raw = Estimate(kendall_value(rating, noisy.mean(axis=0)), math.nan, math.nan, 1500)
    expected = kendall_value(rating, truth)
    assert raw.value < expected - 0.05
    assert disattenuated(raw, reliability).value == pytest.approx(expected, abs=0.02)


def test_a_corrected_tau_keeps_its_sign_and_stays_a_tau():
    found = disattenuated(Estimate(0.9, -0.1, 1.2, 5), 0.5)
    assert found.value == found.high == 1 and -0.2 < found.low < -0.1
    assert disattenuated(Estimate(0.3, 0.1, 0.5, 5), 1.0).value == pytest.approx(0.3)
    assert math.isnan(disattenuated(Estimate(0.3, math.nan, math.nan, 1), 0.5).low)


@pytest.mark.parametrize("n", [2, 3, 4, 7, 8, 13])
def test_the_interquartile_mean_is_scipys_as_in_rliable(n):
    sample = np.random.default_rng(n).normal(size=n)
    found = interquartile_mean(sample)
    assert found.value == pytest.approx(stats.trim_mean(sample, 0.25))
    assert sample.min() <= found.low <= found.value <= found.high <= sample.max()


def test_the_probability_of_improvement_by_hand():
    """Of four pairs two are won, one is tied: 2.5 of 4; in the other task all are lost."""
    task = ([1.0, 3.0], [1.0, 2.0])
    assert improvement([task]).value == 0.625
    assert improvement([task, ([0.0, 0.0], [1.0, 1.0])]).value == 0.3125
    assert improvement([task]).low < 0.625 < improvement([task]).high
    u = stats.mannwhitneyu([3, 1, 4, 1, 5], [2, 7, 1, 8]).statistic
    assert improvement([([3, 1, 4, 1, 5], [2, 7, 1, 8])]).value == pytest.approx(u / 20)


def test_one_replicate_has_neither_of_them():
    assert math.isnan(interquartile_mean([90.0]).value)
    assert math.isnan(improvement([([90.0], [91.0])]).value)
