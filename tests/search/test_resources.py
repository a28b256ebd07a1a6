"""Every searcher, whatever a budget limits, and whichever layers are left alone."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphpruning import methods
from graphpruning.common.errors import UserError
from graphpruning.methods import METHODS, SearchSettings
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build
from graphpruning.search.history import Journal
from tests.search.made_up_times import timed

by_searcher = {row.searcher: row for row in METHODS.values()}
searchers = pytest.mark.parametrize("searcher", by_searcher)
EVALUATIONS = 13


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    return build("resnet8", 10, in_channels=1)


@pytest.fixture(scope="module")
def graph(base):
    return trace(base, (1, 16, 16))


def run(searcher, space, budget, folder, base):
    """All candidates of a search in which wide groups are accurate."""
    row = by_searcher[searcher]
    count = methods.evaluations_of(row, EVALUATIONS)
    judge = Journal(lambda w: sum(w.values()) ** 0.5, space, budget, count, folder / "j.jsonl", {})
    methods.run(
        methods.Task(
            row,
            space,
            budget,
            judge,
            torch.Generator().manual_seed(0),
            SearchSettings.scaled(EVALUATIONS),
            lambda widths: torch.tensor([[float(sum(widths.values()))]] * len(space.graph.layers)),
            base,
        )
    )
    assert len(judge.history) == count
    return judge.history.candidates


@searchers
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_every_candidate_takes_95_to_100_percent_of_a_time(searcher, share, graph, base, tmp_path):
    space = timed(SearchSpace(graph))
    least, most = space.used(space.smallest), space.used(space.full)
    budget = int(least + share * (most - least))
    for candidate in run(searcher, space, budget, tmp_path, base):
        assert 0.95 * budget <= space.used(candidate.widths) <= budget
        assert candidate.macs == space.macs(candidate.widths)


@searchers
def test_layers_left_alone_are_full_in_every_candidate(searcher, graph, base, tmp_path):
    """And those with a ratio of their own within it; the budget is used all the same."""
    space = SearchSpace(graph, keep=["layer3.*"], ratios={"layer2.0.conv1": (0.5, 0.8)})
    assert space.choices == ["conv1", "layer1.0.conv1", "layer2.0.conv1", "layer2.0.conv2"]
    budget = int(0.8 * space.macs(space.full))
    for candidate in run(searcher, space, budget, tmp_path, base):
        kept = {g: w for g, w in candidate.widths.items() if g.startswith("layer3")}
        assert kept == {g: space.full[g] for g in kept} and len(kept) == 2
        assert 16 <= candidate.widths["layer2.0.conv1"] <= 25
        assert 0.95 * budget <= candidate.macs <= budget


GROUPS = ["conv1", "layer1.0.conv1", "layer2.0.conv1", "layer2.0.conv2", "layer3.0.conv2"]


@settings(deadline=None, max_examples=10)
@given(
    st.sets(st.sampled_from(GROUPS), min_size=1, max_size=3),
    st.floats(0.2, 1.0),
    st.sampled_from(["agent", "ddpg", "random", "evolution", "predictor"]),
)
def test_whatever_is_kept_is_no_decision(tmp_path_factory, graph, base, kept, share, searcher):
    space = SearchSpace(graph, keep=sorted(kept))
    assert set(space.choices) == set(space.groups) - kept
    least, most = space.macs(space.smallest), space.macs(space.full)
    budget = int(least + share * (most - least))
    for candidate in run(searcher, space, budget, tmp_path_factory.mktemp("j"), base):
        assert {g: candidate.widths[g] for g in kept} == {g: space.full[g] for g in kept}
        assert candidate.macs <= budget


def test_a_time_and_kept_layers_together(graph, base, tmp_path):
    space = timed(SearchSpace(graph, keep=["layer1.*"]))
    budget = (space.used(space.smallest) + space.used(space.full)) // 2
    for number, searcher in enumerate(by_searcher):
        folder = tmp_path / str(number)
        folder.mkdir()
        for candidate in run(searcher, space, budget, folder, base):
            assert candidate.widths["layer1.0.conv1"] == space.full["layer1.0.conv1"]
            assert 0.95 * budget <= space.used(candidate.widths) <= budget


def test_filling_finds_what_no_single_raise_reaches(graph):
    """The best exchange under times, against all pairs by hand."""
    space = timed(SearchSpace(graph, divisor=8), seed=3)
    widths = space.sample_within(
        (space.used(space.smallest) + space.used(space.full)) // 2, torch.Generator().manual_seed(1)
    )
    budget = space.used(widths) + 1
    assert space.fill(widths, budget) == widths
    moves = [(g, level) for g in space.groups for level in space.levels[g]]
    best = max(
        used
        for (a, x), (b, y) in itertools.product(moves, moves)
        if (used := space.used({**widths, a: x, b: y})) <= budget
    )
    assert space.used(widths) >= 0.98 * best


def test_a_space_without_choices_is_refused(graph):
    with pytest.raises(UserError, match="every layer is kept"):
        SearchSpace(graph, keep=["*"])
