import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from graphpruning.common.errors import UserError
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build
from graphpruning.search.environment import PruningEnv
from graphpruning.search.states import HandCraftedState
from graphpruning.search.walled import WalledEnv


def environment(space, budget, evaluate=lambda widths: 50.0, kind=PruningEnv):
    return kind(space, budget, HandCraftedState(space, budget), evaluate)


def play(env, ratios):
    env.reset()
    return [env.step(np.array([ratio], dtype=np.float32)) for ratio in ratios]


both = pytest.mark.parametrize("kind", [PruningEnv, WalledEnv])


@both
def test_gymnasium_accepts_it(space, half, kind):
    check_env(environment(space, half, kind=kind), skip_render_check=True)


@both
def test_unreachable_budget_is_refused(space, kind):
    with pytest.raises(UserError, match="cannot be reached"):
        environment(space, space.macs(space.smallest) - 1, kind=kind)


@both
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    blocks=st.lists(
        st.tuples(st.sampled_from(["plain", "residual", "depthwise"]), st.integers(12, 32)),
        min_size=3,
        max_size=4,
    ),
    share=st.floats(0.25, 1),
    ratios=st.lists(st.floats(0, 1, width=32), min_size=9, max_size=9),
)
def test_every_candidate_uses_98_to_100_percent_of_the_budget(
    random_space, kind, blocks, share, ratios
):
    space = random_space(blocks)
    least, most = space.macs(space.smallest), space.macs(space.full)
    budget = int(least + share * (most - least))
    judged = []
    env = environment(space, budget, lambda widths: judged.append(dict(widths)) or 50.0, kind)
    info = play(env, ratios[: env.steps])[-1][-1]
    assert judged == [info["widths"]]
    assert info["macs"] == space.macs(info["widths"])
    assert 0.98 * budget <= info["macs"] <= budget


@both
def test_reward_comes_with_the_last_step_alone(space, half, kind):
    steps = play(environment(space, half, lambda widths: 62.5, kind), [0.5] * 6)
    assert [reward for _, reward, *_ in steps] == [0, 0, 0, 0, 0, 0.625]
    assert [terminated for *_, terminated, _, _ in steps] == [False] * 5 + [True]


def test_a_candidate_is_judged_once_unless_asked_to_again(space, half):
    answers = iter([40.0, 60.0, 80.0])
    env = environment(space, half, lambda widths: next(answers))

    def ends(ratios, again):
        env.reset(options={"again": again})
        *_, last = [env.step(np.array([ratio], dtype=np.float32)) for ratio in ratios]
        return last[1], last[-1]["new"]

    assert ends([0.5] * 6, again=False) == (0.4, True)
    assert ends([1.0] * 6, again=False) == (0.4, False)  # the same proportions
    assert ends([0.3, *[1.0] * 5], again=False) == (0.6, True)
    assert ends([0.5] * 6, again=True) == (0.8, False)


def mean_ratios(env, episodes=200):
    """Of each group, in forward order, under uniform actions."""
    generator = np.random.default_rng(0)
    low = float(env.action_space.low[0])
    rows = []
    for _ in range(episodes):
        info = play(env, generator.uniform(low, 1, env.steps))[-1][-1]
        rows.append(env.space.vector(info["widths"]))
    return np.mean(rows, axis=0) / env.space.vector(env.space.full)


def test_uniform_actions_favour_no_position():
    """ResNet-20 at half of its MACs. From the first group to the last, mean ratios stay level and
    near those of random widths; behind AMC's wall, from the same actions, they rise by a third.
    """
    space = SearchSpace(trace(build("resnet20", 10, 1, stem_stride=2), (1, 30, 30)), divisor=8)
    budget = space.macs(space.full) // 2
    generator = torch.Generator().manual_seed(0)
    drawn = [space.vector(space.sample_within(budget, generator)) for _ in range(200)]
    fair = np.mean(drawn, axis=0) / space.vector(space.full)
    ours, walled = (
        mean_ratios(environment(space, budget, kind=kind)) for kind in (PruningEnv, WalledEnv)
    )
    places = np.linspace(0, 1, len(fair))
    rises = [np.polyfit(places, ratios, 1)[0] for ratios in (ours, walled)]
    assert abs(rises[0]) < 0.06 and rises[1] > 0.2
    assert np.abs(ours - fair).max() < 0.12 and np.abs(walled - fair).max() > 0.2
