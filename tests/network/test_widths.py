"""The search space: levels, and budgets that hold for any sequence of choices."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphpruning import SearchSpace, UserError, trace
from graphpruning.network.widths import FILLED, SpaceSettings
from tests.networks import SIZE, network

DIVISORS = {"mobilenet_v1": 8, "resnet20": 4, "resnet8": 2}


@cache
def space_of(name: str) -> SearchSpace:
    return SearchSpace(trace(network(name), SIZE), divisor=DIVISORS[name])


def test_levels_are_multiples_and_the_full_width() -> None:
    graph = trace(network("resnet8"), SIZE)
    assert SearchSpace(graph, divisor=4, smallest=0.25).levels["conv1"] == [4, 8, 12, 16]
    assert SearchSpace(graph, divisor=5, smallest=0.5).levels["conv1"] == [10, 15, 16]


def test_metaprunings_31_ratios() -> None:
    ratios = [(10 + 3 * i) / 100 for i in range(31)]
    graph = trace(network("resnet18"), SIZE)
    levels = SearchSpace(graph, divisor=None, ratios=ratios).levels["conv1"]
    assert levels == sorted({int(64 * ratio + 1e-9) for ratio in ratios})
    assert levels[0] == 6 and levels[-1] == 64


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([*DIVISORS]), st.floats(0.15, 1.0), st.data())
def test_whatever_is_chosen_the_budget_is_met_and_used(
    name: str, share: float, data: st.DataObject
) -> None:
    space = space_of(name)
    budget = max(int(share * space.macs(space.full)), space.macs(space.smallest))
    decided: dict[str, int] = {}
    for group in space.groups:
        levels = space.allowed(decided, group, budget)
        assert set(levels) <= set(space.levels[group]) and levels
        decided[group] = data.draw(st.sampled_from(levels))
    assert space.macs(decided) <= budget
    assert FILLED * budget <= space.macs(space.fill(decided, budget)) <= budget


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([*DIVISORS]), st.floats(0.2, 1.0), st.integers(0, 1000))
def test_random_candidates_use_their_budget(name: str, share: float, seed: int) -> None:
    space = space_of(name)
    budget = int(share * space.macs(space.full))
    widths = space.sample_within(budget, torch.Generator().manual_seed(seed))
    space.graph.check(widths)
    assert all(width in space.levels[group] for group, width in widths.items())
    assert FILLED * budget <= space.macs(widths) <= budget


def test_filling_leaves_what_is_full_enough_alone() -> None:
    space = space_of("resnet20")
    widths = space.sample_within(space.macs(space.full) // 2, torch.Generator().manual_seed(0))
    assert space.fill(widths, space.macs(space.full) // 2) == widths


def test_an_unreachable_budget_names_the_smallest() -> None:
    space = space_of("resnet20")
    least = space.macs(space.smallest)
    with pytest.raises(UserError, match=f"smallest network .* has {least:,}"):
        space.require(least - 1)
    space.require(least)


def test_sampling_is_uniform_over_levels_and_repeats() -> None:
    space = space_of("resnet20")
    draw = [space.sample(torch.Generator().manual_seed(7)) for _ in range(2)]
    assert draw[0] == draw[1]
    generator = torch.Generator().manual_seed(0)
    drawn = [space.sample(generator)["conv1"] for _ in range(2000)]
    for level in space.levels["conv1"]:
        assert drawn.count(level) == pytest.approx(500, abs=80)


@pytest.mark.parametrize(
    "wrong",
    [
        {"divisor": 4, "ratios": [0.5]},
        {"divisor": None},
        {"divisor": 0},
        {"smallest": 0.0},
        {"divisor": None, "ratios": [1.5]},
    ],
)
def test_a_space_without_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        SearchSpace(space_of("resnet8").graph, **wrong)  # type: ignore[arg-type]


def test_a_tied_layer_speaks_for_its_group_and_ratios_set_levels() -> None:
    """`layer1.0.conv2` is tied to the stem by the shortcut, so its group is the stem's."""
    graph = trace(network("resnet8"), SIZE)
    space = SearchSpace(graph, divisor=4, keep=["layer1.0.conv2"])
    assert space.levels["conv1"] == [16] and "conv1" not in space.choices
    space = SearchSpace(graph, divisor=4, ratios={"layer1*": (0.5, 0.8), "*.conv1": (0.1, 1)})
    assert space.levels["conv1"] == [8, 12] and space.levels["layer1.0.conv1"] == [8, 12]
    assert space.levels["layer2.0.conv1"] == [4, 8, 12, 16, 20, 24, 28, 32]  # below `smallest`
    assert space.full["conv1"] == 16 and space.largest["conv1"] == 12
    assert space.choices == space.groups


def test_studies_lists_of_ratios_are_what_they_were() -> None:
    graph = trace(network("resnet8"), SIZE)
    assert SearchSpace(graph, divisor=None, ratios=[0.5, 1.0]).levels["conv1"] == [8, 16]
    both = SearchSpace(
        graph, SpaceSettings(None, ratios=(0.3, 0.5, 1.0)), ratios={"conv1": (0.4, 0.6)}
    )
    assert both.levels["conv1"] == [8]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"keep": ["layer4.*"]}, r"no layer matches 'layer4\.\*'; did you mean 'layer\d"),
        ({"keep": ["conv2"]}, "did you mean 'conv1'"),
        ({"divisor": "8"}, "divisor is '8', must be a whole number"),
        ({"divisor": 2.5}, "divisor is 2.5, must be a whole number"),
        ({"smallest": "x"}, "smallest is 'x', must be a number"),
        ({"filled": None}, "filled is None, must be a number"),
        ({"divisor": None, "ratios": ["a"]}, r"ratios are \['a'\], must be numbers"),
        ({"ratios": {"conv1": (0.8, 0.5)}}, "'conv1' are 0.8 and 0.5: .* the smaller one first"),
        ({"ratios": {"conv1": (0.0, 0.5)}}, "must be above 0"),
        ({"ratios": {"conv1": (0.6, 0.7)}}, "'conv1': none .* 'conv1' may have .* its 16 channels"),
    ],
)
def test_patterns_and_ratios_without_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SearchSpace(space_of("resnet8").graph, **wrong)


def test_a_network_without_a_width_to_decide_has_none_to_draw() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 8, 3)), SIZE)
    with pytest.raises(UserError, match="no layer's width can be pruned"):
        SearchSpace(graph).sample_within(10**9, torch.Generator())
