import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from graphpruning.common.errors import UserError
from graphpruning.search.states import AmcState
from graphpruning.search.walled import WalledEnv


def environment(space, budget, evaluate=lambda widths: 50.0):
    return WalledEnv(space, budget, AmcState(space), evaluate)


def play(env, ratios):
    env.reset()
    return [env.step(np.array([ratio], dtype=np.float32)) for ratio in ratios]


def test_gymnasium_accepts_it(space, half):
    check_env(environment(space, half), skip_render_check=True)


def test_unreachable_budget_is_refused(space):
    with pytest.raises(UserError, match="cannot be reached"):
        environment(space, space.macs(space.smallest) - 1)


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
def test_every_candidate_uses_98_to_100_percent_of_the_budget(random_space, blocks, share, ratios):
    space = random_space(blocks)
    least, most = space.macs(space.smallest), space.macs(space.full)
    budget = int(least + share * (most - least))
    judged = []
    env = environment(space, budget, lambda widths: judged.append(dict(widths)) or 50.0)
    info = play(env, ratios[: env.steps])[-1][-1]
    assert judged == [info["widths"]]
    assert info["macs"] == space.macs(info["widths"])
    assert 0.98 * budget <= info["macs"] <= budget


def test_reward_comes_with_the_last_step_alone(space, half):
    steps = play(environment(space, half, lambda widths: 62.5), [0.5] * 6)
    assert [reward for _, reward, *_ in steps] == [0, 0, 0, 0, 0, 0.625]
    assert [terminated for *_, terminated, _, _ in steps] == [False] * 5 + [True]


def test_clipped_action_is_the_one_reported_and_seen(space):
    budget = int(1.05 * space.macs(space.smallest))
    observation, *_, info = play(environment(space, budget), [1.0])[0]
    group = space.groups[0]
    assert info["action"] == info["widths"][group] / space.full[group] < 1
    assert observation[-1] == np.float32(info["action"])


def test_action_takes_the_nearest_level(space, half):
    env = environment(space, half)
    info = play(env, [0.7, 0.3])[-1][-1]
    assert [info["widths"][group] for group in space.groups[:2]] == [12, 4]  # 11.2 and 4.8 of 16
