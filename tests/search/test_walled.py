"""What AMC's environment does differently; what both do alike is tested in test_environment.py."""

import numpy as np

from graphpruning.search.states import AmcState
from graphpruning.search.walled import WalledEnv
from tests.search.test_environment import play


def environment(space, budget):
    return WalledEnv(space, budget, AmcState(space), lambda widths: 50.0)


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
