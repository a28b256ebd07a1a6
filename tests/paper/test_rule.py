"""The verdict rule on effects made by hand, and how often it errs on simulated studies."""

import math
from collections import Counter

import numpy as np
import pytest

from paper.rule import (
    ABOVE,
    BELOW,
    EQUIVALENT,
    FAILS,
    HOLDS,
    IN_PART,
    MATTERS,
    OPEN,
    SAME,
    UNDECIDED,
    UNTESTED,
    Effect,
    holm,
    marks,
    of_replicates,
    replicates_to_decide,
    said,
    statuses,
    verdict,
)
from paper.statistics import Estimate, contrasts, mean

UP = Effect(Estimate(1.0, 0.5, 1.5, 3))
DOWN = Effect(Estimate(-1.0, -1.5, -0.5, 3))
ACROSS = Effect(Estimate(0.2, -0.3, 0.7, 3))
TOUCHING = Effect(Estimate(0.5, 0.0, 1.0, 3))
ONE_SEED = Effect(Estimate(4.0, math.nan, math.nan, 1), MATTERS)
SMALL = Effect(Estimate(0.05, -0.05, 0.15, 3), MATTERS)
SMALL_AND_ABOVE = Effect(Estimate(0.1, 0.05, 0.15, 3), MATTERS)
SMALL_AND_BELOW = Effect(Estimate(-0.1, -0.15, -0.05, 3), MATTERS)
UP_BY_MUCH = Effect(Estimate(1.0, 0.5, 1.5, 3), MATTERS)
ACROSS_WITH_MARGIN = Effect(Estimate(0.2, -0.3, 0.7, 3), MATTERS)
BARELY_SMALL = Effect(Estimate(0.05, -0.12, 0.22, 3), MATTERS)  # TOST's p is 0.042
NO_MARGIN = Effect(Estimate(0.05, -0.05, 0.15, 3))


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ([UP], HOLDS),
        ([UP, UP], HOLDS),
        ([DOWN], FAILS),
        ([UP, DOWN], FAILS),
        ([ACROSS, DOWN], FAILS),
        ([ONE_SEED, DOWN], FAILS),
        ([ACROSS], UNDECIDED),
        ([UP, ACROSS], UNDECIDED),
        ([TOUCHING], UNDECIDED),
        ([ONE_SEED], UNDECIDED),
        ([UP, ONE_SEED], UNDECIDED),
        ([], UNTESTED),
        ([SMALL], EQUIVALENT),
        ([SMALL_AND_ABOVE], EQUIVALENT),  # better, but by less than matters
        ([SMALL_AND_BELOW], EQUIVALENT),
        ([UP, SMALL], EQUIVALENT),  # what has no margin is above, what has one does not matter
        ([UP_BY_MUCH, SMALL], IN_PART),
        ([UP_BY_MUCH, UP], HOLDS),
        ([UP_BY_MUCH, SMALL, ACROSS], UNDECIDED),
        ([UP_BY_MUCH, SMALL, DOWN], FAILS),
        ([UP_BY_MUCH, BARELY_SMALL], UNDECIDED),  # of one of two it is not enough
        ([BARELY_SMALL, BARELY_SMALL], EQUIVALENT),  # of all of them it is
        ([SMALL, ACROSS], UNDECIDED),
        ([SMALL, DOWN], FAILS),
        ([NO_MARGIN], UNDECIDED),  # only a difference in accuracy has a size that matters
    ],
)
def test_verdict(effects, expected):
    assert verdict(effects) == expected


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    found = holm([0.02, math.nan])
    assert found[0] == 0.04 and math.isnan(found[1])
    assert holm([]) == []


def test_one_effect_below_among_many_must_stand_holms_correction():
    """Its p is 0.02: enough for one effect, too much for the least of three."""
    below = Effect(Estimate(-2.0537, -2.0537 - 1.96, -2.0537 + 1.96, 9))
    assert statuses([below]) == [BELOW]
    assert statuses([below, UP, ACROSS]) == [OPEN, ABOVE, OPEN]
    assert statuses([DOWN, UP, SMALL]) == [BELOW, ABOVE, SAME]


def test_one_effect_stated_alone_must_stand_the_correction_above_zero_too():
    above = Effect(Estimate(2.0537, 2.0537 - 1.96, 2.0537 + 1.96, 9))
    assert said([above]) == statuses([above]) == [ABOVE]
    assert (statuses([above, ACROSS]), said([above, ACROSS])) == ([ABOVE, OPEN], [OPEN, OPEN])
    assert said([DOWN, UP, SMALL]) == [BELOW, ABOVE, SAME]


def test_one_effect_stated_alone_must_stand_the_correction_of_equivalence_too():
    both = [BARELY_SMALL, ACROSS_WITH_MARGIN]
    assert said([BARELY_SMALL]) == [SAME]
    assert (statuses(both), said(both), marks(both)) == ([SAME, OPEN], [OPEN] * 2, [OPEN] * 2)
    assert said([SMALL, ACROSS_WITH_MARGIN]) == [SAME, OPEN]
    # What has no margin is not tested for equivalence, and so counts no test.
    assert said([BARELY_SMALL, UP]) == [SAME, ABOVE]
    assert marks([BARELY_SMALL] * 2) == [SAME] * 2  # this verdict needs both
    better = Effect(Estimate(0.14, 0.07, 0.21, 3), MATTERS)  # better, and hardly by what matters
    assert (statuses([better, ACROSS_WITH_MARGIN]), said([better, ACROSS_WITH_MARGIN])) == (
        [SAME, OPEN],
        [ABOVE, OPEN],
    )


def test_where_a_claim_holds_no_effect_is_marked_open():
    near = Effect(Estimate(2.17, 0.21, 4.13, 9))  # p of 0.015
    assert verdict([near] * 3) == HOLDS and said([near] * 3) == [OPEN] * 3
    assert marks([near] * 3) == [ABOVE] * 3
    assert marks([near, near, ACROSS]) == [OPEN] * 3
    skewed = Effect(Estimate(0.15, 0.01, 0.60, 9))
    assert said([skewed]) == [ABOVE]


def spread_over(values, replicates):
    """An effect of replicates that have these values again and again."""
    return Effect(mean(list(values) * (replicates // len(values))), MATTERS)


@pytest.mark.parametrize("values", [(0.5, -0.1, 0.2), (0.4, -0.4, 0.03), (-0.6, 0.5, -0.3)])
def test_so_many_replicates_decide_if_further_ones_are_alike(values):
    """Told from six replicates, whose spread, over n - 1, is up to a fifth above that of many."""
    effect = spread_over(values, 6)
    assert verdict([effect]) == UNDECIDED
    needed = replicates_to_decide([effect])
    assert needed > 6
    enough = len(values) * math.ceil(needed / len(values))
    assert verdict([spread_over(values, enough)]) != UNDECIDED
    few = len(values) * math.floor(0.8 * (needed - 1) / len(values))
    assert verdict([spread_over(values, few)]) == UNDECIDED
    assert verdict(of_replicates([effect], needed)) != UNDECIDED
    assert verdict(of_replicates([effect], needed - 1)) == UNDECIDED


def test_what_replicates_cannot_decide():
    """An interval over the units of one network stays; so does a study of one replicate."""
    over_layers = Effect(Estimate(0.03, -0.06, 0.14, 20), label="over layers")
    assert of_replicates([over_layers], 50) == [over_layers]
    assert replicates_to_decide([over_layers]) is None
    assert replicates_to_decide([over_layers, spread_over((0.5, -0.1), 6)]) is None
    assert replicates_to_decide([ONE_SEED]) is None and replicates_to_decide([]) is None
    assert replicates_to_decide([Effect(mean([1.0, -1.0]))]) is None  # zero, with no margin


STUDIES = 1000
BASELINES = 5


def simulated(seeds, better, noise, correlated=0.5):
    """Shares of verdicts on C5 over studies of `seeds` replicates and five baselines.

    `noise` is the standard deviation of a final accuracy (points, mean over budgets), one for all
    methods or one for each with ours first; replicates differ by `correlated` besides.
    """
    rng = np.random.default_rng(15)
    found = Counter(dict.fromkeys((HOLDS, IN_PART, EQUIVALENT, FAILS, UNDECIDED), 0))
    for _ in range(STUDIES):
        top1 = 90 + rng.normal(0, correlated, (seeds, 1))
        top1 = top1 + rng.normal(0, 1, (seeds, 1 + BASELINES)) * noise
        top1[:, 0] += better
        ours, *others = ({seed: row[i] for seed, row in enumerate(top1)} for i in range(6))
        estimates = contrasts(ours, {str(i): other for i, other in enumerate(others)})
        found[verdict([Effect(one, MATTERS) for one in estimates.values()])] += 1
    return {name: count / STUDIES for name, count in found.items()}


UNEQUAL = np.array([0.2, 0.1, 0.2, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize("noise", [0.2, 0.5, UNEQUAL], ids=["0.2", "0.5", "unequal"])
def test_without_a_difference_hardly_any_study_says_better_or_worse(seeds, noise):
    """The old rule said "does not hold" in 10.5 % of such studies."""
    found = simulated(seeds, 0.0, noise)
    assert found[FAILS] <= 0.05 and found[HOLDS] <= 0.01


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize("noise", [0.2, UNEQUAL], ids=["0.2", "unequal"])
def test_one_point_better_than_every_baseline_is_seen(seeds, noise):
    """The old rule said "holds" in 0.7 % of such studies."""
    found = simulated(seeds, 1.0, noise)
    assert found[HOLDS] >= 0.95 and found[FAILS] == 0


@pytest.mark.parametrize(("seeds", "noise"), [(3, 0.05), (8, 0.08)])
def test_no_difference_and_little_noise_is_equivalence(seeds, noise):
    found = simulated(seeds, 0.0, noise)
    assert found[EQUIVALENT] >= 0.95 and found[FAILS] <= 0.01


@pytest.mark.parametrize("seeds", [3, 8])
def test_what_matters_is_rarely_called_equivalent(seeds):
    """Better than each baseline by just as much as matters: TOST errs in 5 % for one of them, and
    equivalence needs all of them.
    """
    found = simulated(seeds, MATTERS, 0.1)
    assert found[EQUIVALENT] <= 0.01 and found[IN_PART] <= 0.05
    assert simulated(seeds, -0.4, 0.1)[EQUIVALENT] == 0


@pytest.mark.parametrize("seeds", [3, 8])
def test_one_point_worse_is_seen(seeds):
    assert simulated(seeds, -1.0, 0.2)[FAILS] >= 0.95


def test_one_replicate_decides_nothing_about_methods():
    assert simulated(1, 1.0, 0.1)[UNDECIDED] == 1
