"""The search by a predictor finds what is good from few measurements, and is not fooled by luck."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build
from graphpruning.predictor import PREDICTORS
from graphpruning.search import random_search
from graphpruning.search.history import History
from graphpruning.search.predicted import PredictorSettings, search

SETTINGS = PredictorSettings(warmup=10)


class Answers:
    """A journal in memory: `truth` of widths plus luck."""

    def __init__(self, space, budget, evaluations, truth, noise, seed):
        self.space, self.evaluations, self.truth, self.noise = space, evaluations, truth, noise
        self.asked, self.true, self.measured = [], [], []
        self.history = History(budget)
        self.random = np.random.default_rng(seed)

    def __call__(self, widths):
        assert self.space.macs(widths) <= self.history.budget
        self.asked.append(self.space.vector(widths))
        self.true.append(self.truth(widths))
        self.measured.append(self.true[-1] + self.noise * self.random.standard_normal())
        return self.measured[-1]


def additive(widths):
    """Each group counts, unlike the MACs that it costs."""
    weights = [3.0, 0.2, 1.0, 0.1, 2.0, 0.3]
    return sum(w * np.log2(width) for w, width in zip(weights, widths.values(), strict=True))


def played(space, budget, seed=0, evaluations=40, settings=SETTINGS, truth=additive, noise=0.2):
    """The answers, and the true accuracy of what was found."""
    answers = Answers(space, budget, evaluations, truth, noise, seed)
    generator = torch.Generator().manual_seed(seed)
    found = search(
        space, budget, answers, settings, lambda: PREDICTORS["ridge"](space, 0), generator
    )
    return answers, found


def at_random(space, budget, seed, truth):
    answers = Answers(space, budget, 40, truth, 0.2, seed)
    random_search.search(space, budget, answers, torch.Generator().manual_seed(seed))
    return answers


def against_random(space, budget, truth, seeds=range(8)):
    """True accuracy of what is found, minus that of random search's best, by seed."""
    apart = []
    for seed in seeds:
        answers, found = played(space, budget, seed, truth=truth)
        random = at_random(space, budget, seed, truth)
        apart.append(answers.true[found] - random.true[int(np.argmax(random.measured))])
    return np.array(apart)


def test_it_beats_random_search_where_groups_count_one_by_one(space, half):
    apart = against_random(space, half, additive)
    assert apart.mean() > 3 * apart.std(ddof=1) / len(apart) ** 0.5


def test_it_cannot_beat_random_search_where_accuracies_say_nothing(space, half):
    """Each vector's accuracy is drawn anew, whatever its neighbours have."""

    def lot(widths):
        return float(np.random.default_rng(space.vector(widths)).standard_normal())

    apart = against_random(space, half, lot)
    assert apart.mean() < 2 * apart.std(ddof=1) / len(apart) ** 0.5


def test_equal_accuracies_are_searched_without_an_error(space, half):
    answers, found = played(space, half, truth=lambda widths: 50.0, noise=0.0)
    assert len(answers.asked) == len(set(answers.asked)) == 40 and 0 <= found < 40


def test_no_candidate_is_measured_twice_and_all_fill_the_budget(space, half):
    answers, _ = played(space, half)
    assert len(set(answers.asked)) == 40
    macs = [space.macs(space.widths(vector)) for vector in answers.asked]
    assert 0.98 * half <= min(macs) and max(macs) <= half


def test_what_is_found_is_less_often_luck_than_the_best_measurement(space, half):
    better = []
    for seed in range(12):
        answers, found = played(space, half, seed, noise=1.0)
        better.append(answers.true[found] - answers.true[int(np.argmax(answers.measured))])
    assert np.mean(better) > 2 * np.std(better, ddof=1) / 12**0.5


def test_a_measurement_that_is_trusted_wholly_decides_alone(space, half):
    answers, found = played(space, half, settings=replace(SETTINGS, trust=1.0))
    assert found == int(np.argmax(answers.measured))


def test_randomness_comes_from_the_generator_alone(space, half):
    plays = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        plays.append(played(space, half, seed=7, evaluations=15)[0].asked)
    assert plays[0] == plays[1] != played(space, half, seed=8, evaluations=15)[0].asked


def test_the_warm_up_is_random_search(space, half):
    answers, _ = played(space, half, seed=3)
    assert answers.asked[:10] == at_random(space, half, 3, additive).asked[:10]
    assert answers.asked[10] != at_random(space, half, 3, additive).asked[10]


@pytest.mark.parametrize(("evaluations", "found"), [(1, None), (2, 0), (7, 0), (25, 0)])
def test_a_budget_that_leaves_no_choice_is_judged_as_often_as_asked(space, evaluations, found):
    least = space.macs(space.smallest)
    answers, chosen = played(space, least, evaluations=evaluations, noise=0.0)
    assert answers.asked == [space.vector(space.smallest)] * evaluations and chosen == found


def test_a_space_with_few_candidates_is_measured_whole(space):
    """What is proposed is new as long as there is anything new."""
    least = space.macs(space.smallest)
    narrow = SearchSpace(space.graph, divisor=None, ratios=(0.5, 1.0), filled=0)
    budget = narrow.macs({**narrow.smallest, narrow.groups[0]: narrow.full[narrow.groups[0]]})
    assert budget > least
    few = replace(SETTINGS, warmup=4)
    (one, _), (two, _) = (played(narrow, budget, seed, 16, few) for seed in range(2))
    whole = set(one.asked)
    assert set(two.asked) == whole and len(whole) < len(one.asked) == len(two.asked) == 16
    for asked in (one.asked, two.asked):
        drawn = set(asked[: few.warmup])
        proposed = asked[few.warmup :][: len(whole - drawn)]
        assert proposed and set(proposed) == whole - drawn


@pytest.mark.parametrize("ratios", [(1.0,), tuple((10 + 3 * i) / 100 for i in range(31))])
def test_one_level_and_thirty_one_levels(space, ratios):
    other = SearchSpace(space.graph, divisor=None, ratios=ratios)
    budget = other.macs(other.full) if len(ratios) == 1 else other.macs(other.full) // 2
    assert len(played(other, budget, evaluations=14)[0].asked) == 14


def test_a_deep_network_is_searched_with_fewer_measurements_than_groups():
    with torch.no_grad():
        deep = SearchSpace(trace(build("resnet110", 10), (3, 32, 32)), divisor=8)
    budget = deep.macs(deep.full) // 2
    few = replace(SETTINGS, warmup=4)
    truth = lambda widths: float(sum(np.log2(list(widths.values()))))  # noqa: E731
    answers, _ = played(deep, budget, evaluations=8, settings=few, truth=truth)
    assert len(set(answers.asked)) == 8
