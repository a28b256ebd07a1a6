import numpy as np
import pytest
import torch
from torch import nn

from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.pruningnet.pruningnet import PruningNet
from graphpruning.search.environment import PruningEnv
from graphpruning.search.states import AggregatedState, AmcState, BudgetLeft, HandCraftedState
from graphpruning.search.trajectory_feedback import AgentSettings, search


class Small(nn.Module):
    """Three groups: the stem and the addition's branch; one convolution; a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.branch = nn.Conv2d(8, 8, 1)
        self.conv = nn.Conv2d(8, 16, 1)
        self.hidden = nn.Linear(16, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.stem(x)
        x = self.conv(torch.relu(x + self.branch(x)))
        return self.head(torch.relu(self.hidden(x.mean((2, 3)))))


@pytest.fixture
def small():
    return SearchSpace(trace(Small(), (3, 8, 8)), divisor=4, smallest=0.5)


# MACs at full width on 4x4 outputs: stem 3*8*9*16, branch 8*8*16, conv 8*16*16, then linear.
STEM, BRANCH, CONV, HIDDEN, HEAD = 3456, 1024, 2048, 192, 60
FULL = STEM + BRANCH + CONV + HIDDEN + HEAD


def test_amcs_ten_features_by_hand(small):
    state = AmcState(small)
    assert small.groups == ["stem", "conv", "hidden"]
    assert small.macs(small.full) == FULL
    # index, linear?, in, out, stride, kernel, weights: (0, 0, 3, 8, 2, 3, 216),
    # (1, 0, 8, 16, 1, 1, 128) and (2, 1, 16, 12, 0, 1, 192), each column scaled to [0, 1].
    first = [0, 0, 0, 0, 1, 1, 1, 0, (CONV + HIDDEN) / FULL, 1]
    np.testing.assert_allclose(state.observe(0, {}, 1.0), first, rtol=1e-6)
    reduced = 1 - (STEM / 2 + BRANCH / 4 + CONV / 2 + HIDDEN + HEAD) / FULL
    second = [0.5, 0, 5 / 13, 1, 0.5, 0, 0, reduced, HIDDEN / FULL, 0.5]
    np.testing.assert_allclose(state.observe(1, {"stem": 4}, 0.5), second, rtol=1e-6)
    third = [1, 1, 1, 0.5, 0, 0, 64 / 88, reduced, 0, 1.0]
    np.testing.assert_allclose(state.observe(2, {"stem": 4, "conv": 16}, 1.0), third, rtol=1e-6)


def ratios(space):
    """Two features a layer: its group's kept ratio, its place; the classifier keeps all."""

    def features(widths):
        full = space.full
        rows = [
            [widths.get(layer.group, 1) / full.get(layer.group, 1), float(index)]
            for index, layer in enumerate(space.graph.layers)
        ]
        return torch.tensor(rows, requires_grad=True)

    return features


REST = {"stem": 4, "conv": 12, "hidden": 8}
"""Uniform widths within half of the full MACs: from 3/4 on the stem would have all its channels."""
LEAST = STEM // 2 + BRANCH // 4 + CONV * 3 // 8 + HIDDEN // 2 + HEAD * 2 // 3


def test_the_budget_left_is_a_half_where_the_uniform_rest_costs_it(small):
    left = BudgetLeft(small, FULL // 2)
    assert left.rest == REST and small.macs(REST) == LEAST
    assert left({}) == pytest.approx(0.5 + (1 - LEAST / (FULL // 2)) / 2)
    wider = LEAST + 4 * 12 + 5 * 4  # four more hidden channels read 12, and five outputs read them
    assert left({"hidden": 12}) == pytest.approx(0.5 + (1 - wider / (FULL // 2)) / 2)
    tight = BudgetLeft(small, small.macs(small.smallest))
    assert tight(small.full) == 0 and tight({}) == 0.5


def test_aggregated_features_are_averaged_over_the_groups_layers_and_scaled(small):
    """At the widths decided so far, with the rest uniform."""
    state = AggregatedState(small, FULL // 2, ratios(small))
    left = BudgetLeft(small, FULL // 2)
    assert state.size == 4
    # Kept ratios go from 0.5 (smallest) to 1; places from 0.5 (stem and branch) over 2 to 3.
    np.testing.assert_allclose(state.observe(0, {}, 1.0), [0, 0, left({}), 1], rtol=1e-6)
    decided = {"stem": 8}
    seen = state.observe(1, decided, 0.5)
    np.testing.assert_allclose(seen, [0.5, 1.5 / 2.5, left(decided), 0.5], rtol=1e-6)
    decided = {"stem": 8, "conv": 16}
    for action in (0.75, 0.25):  # the same decisions, from another action
        seen = state.observe(2, decided, action)
        np.testing.assert_allclose(seen, [1 / 3, 1, left(decided), action], rtol=1e-6)


def test_hand_crafted_states_are_amcs_and_the_budget_left(small):
    """So they differ from aggregated ones in the features alone."""
    state = HandCraftedState(small, FULL // 2)
    decided = {"stem": 8}
    seen = state.observe(1, decided, 0.5)
    assert len(seen) == state.size == 11
    np.testing.assert_array_equal(seen[:10], AmcState(small).observe(1, decided, 0.5))
    assert seen[10] == np.float32(BudgetLeft(small, FULL // 2)(decided))


def test_all_states_stay_within_0_and_1(space, half):
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(len(space.graph.layers), 6, generator=generator)

    def features(widths):
        mean = sum(widths.values()) / sum(space.full.values())
        return noisy * (1 + torch.sin(torch.tensor(9 * mean)))

    states = (
        AggregatedState(space, half, features),
        HandCraftedState(space, half),
        AmcState(space),
    )
    for state in states:
        for _ in range(20):
            widths = space.sample_within(half, generator)
            for step in range(len(space.groups)):
                decided = {group: widths[group] for group in space.groups[:step]}
                seen = state.observe(step, decided, 0.3)
                assert seen.dtype == np.float32 and seen.shape == (state.size,)
                assert seen.min() >= 0 and seen.max() <= 1


def test_feature_that_never_moves_is_0(small):
    least = small.macs(small.smallest)
    state = AggregatedState(small, least, lambda widths: torch.full((5, 1), 3.0))
    assert state.observe(0, {}, 1.0).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("conditioning", ["graph", "sage", "gat"])
def test_states_by_settled_features_are_the_plain_ones_and_the_draws_are_the_same(
    space, half, conditioning
):
    """Through a whole search: 1e-5 in states, and as many random numbers in the same order."""
    torch.manual_seed(0)
    net = PruningNet(space.graph, conditioning)
    ways = []
    for features in (net.features, net.settled_features()):
        seen, generator = [], torch.Generator().manual_seed(3)
        state = AggregatedState(space, half, features)
        environment = PruningEnv(space, half, state, lambda w: 50 + sum(w.values()) / 50)
        observe = state.observe
        state.observe = lambda *asked, observe=observe, seen=seen: (
            seen.append(observe(*asked)) or seen[-1]
        )
        search(environment, 12, AgentSettings(warmup_episodes=4), generator)
        ways.append((np.array(seen), generator.get_state()))
    (plain, plain_draws), (fast, fast_draws) = ways
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-5)
    assert torch.equal(fast_draws, plain_draws)
