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
    kendall,
    mean,
    means,
    medians,
    paired,
    replicated,
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


def test_percentile_bootstrap_covers_as_a_normal_sample_does():
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
