"""The agent finds what is good from the rewards of whole episodes, and never repeats itself."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build
from graphpruning.search.environment import PruningEnv
from graphpruning.search.states import HandCraftedState
from graphpruning.search.trajectory_feedback import Agent, AgentSettings, search

OPTIMUM = (0.2, 0.9, 0.5)
SETTINGS = AgentSettings(warmup_episodes=10)


class Targets(gymnasium.Env):
    """Three steps; at the end the reward is minus the squared distance to `OPTIMUM`, plus noise.

    The observation is the step, one-hot. `new` is what every episode is, but for those whose number
    is in `old`.
    """

    action_space = Box(0, 1, (1,), np.float32)
    observation_space = Box(0, 1, (3,), np.float32)

    def __init__(self, noise=0.0, old=(), seed=0):
        self.noise, self.old = noise, set(old)
        self.rewards, self.noisy, self.episodes = [], [], []
        self.estimated: int | None = None
        self.random = np.random.default_rng(seed)

    def reset(self, *, seed=None, options=None):
        self.actions = []
        return self.seen(), {}

    def step(self, action):
        self.actions.append(float(action[0]))
        terminated = len(self.actions) == 3
        reward, info = 0.0, {}
        if terminated:
            info = {"new": len(self.episodes) not in self.old}
            self.episodes.append(self.actions)
            reward = -float(np.square(np.subtract(self.actions, OPTIMUM)).sum())
            self.rewards.append(reward)
            reward += self.noise * self.random.standard_normal()
            self.noisy.append(reward)
        return self.seen(), reward, terminated, False, info

    def seen(self):
        return np.eye(3, dtype=np.float32)[min(len(self.actions), 2)]


def played(evaluations, seed=0, settings=SETTINGS, learns=True, **named):
    env = Targets(seed=seed, **named)
    generator = torch.Generator().manual_seed(seed)
    env.estimated = search(env, evaluations, settings, generator, learns)
    return env


def test_what_is_found_is_less_often_luck_than_the_best_reward() -> None:
    """Of uniform episodes, whose candidates differ by more than their luck."""
    better = []
    uniform = replace(SETTINGS, warmup_episodes=60)
    for seed in range(20):
        env = played(60, seed, noise=0.2, settings=uniform)
        assert env.estimated is not None
        better.append(env.rewards[env.estimated] - env.rewards[int(np.argmax(env.noisy))])
    assert np.mean(better) > 2 * np.std(better, ddof=1) / 20**0.5
    assert played(60, settings=replace(SETTINGS, warmup_episodes=61)).estimated is None


def test_a_reward_that_is_trusted_wholly_decides_alone() -> None:
    env = played(60, noise=0.2, settings=replace(SETTINGS, trust=1.0))
    assert env.estimated == int(np.argmax(env.noisy))


def test_it_reaches_a_known_optimum_in_forty_episodes_of_noisy_rewards():
    last = [played(40, seed, noise=0.1).rewards[-10:] for seed in range(10)]
    uniform = [played(40, seed, learns=False).rewards[-10:] for seed in range(10)]
    assert np.mean(last) > -0.08
    assert np.mean(uniform) < -0.4


def test_least_squares_find_the_rewards_of_single_steps():
    """Without noise and with hardly any ridge, f is the squared distance, but for a constant."""
    agent = Agent(3, replace(SETTINGS, prior=1e-9), torch.Generator().manual_seed(0))
    random, eye = np.random.default_rng(1), np.eye(3)
    rewards = []
    for _ in range(60):
        actions = random.random(3)
        rewards.append(-float(np.square(actions - OPTIMUM).sum()))
        agent.learn(eye, actions, rewards[-1])
    a = np.linspace(-0.5, 0.5, 5)
    for step, best in enumerate(OPTIMUM):
        x = np.concatenate([[1.0], 2 * eye[step] - 1])
        slope, bend = agent.mean.reshape(2, -1) @ x
        found = (slope * a + bend * a**2) * np.std(rewards)
        exact = -np.square(a + 0.5 - best)
        np.testing.assert_allclose(found - found[2], exact - exact[2], atol=1e-5)


def test_randomness_comes_from_the_generator_alone():
    plays = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        plays.append(played(20, seed=7).rewards)
        assert torch.equal(torch.get_rng_state(), before)
    assert plays[0] == plays[1] != played(20, seed=8).rewards


def test_a_frozen_agent_acts_uniformly_whatever_it_is_told():
    env = played(200, learns=False)
    assert env.rewards == played(200, learns=False, noise=5.0).rewards
    actions = np.array(env.episodes)
    np.testing.assert_allclose(actions.mean(axis=0), 0.5, atol=0.07)
    np.testing.assert_allclose(actions.std(axis=0), 12**-0.5, atol=0.03)


def test_a_warm_up_longer_than_the_search_is_uniform():
    long = replace(SETTINGS, warmup_episodes=100)
    assert played(9, settings=long).episodes == played(9, learns=False).episodes


def test_it_plays_on_until_a_candidate_is_new_and_learns_nothing_from_the_others(monkeypatch):
    learnt = []
    monkeypatch.setattr(Agent, "learn", lambda agent, *episode: learnt.append(episode))
    env = played(15, old=[3, 4, 12])
    assert len(env.episodes) == 15 + 3
    expected = [actions for n, actions in enumerate(env.episodes) if n not in env.old]
    np.testing.assert_allclose([actions for _, actions, _ in learnt], expected, atol=1e-6)


def every(space, budget, evaluations):
    asked = []

    def answer(widths):
        asked.append(space.vector(widths))
        return 50 + sum(width**0.5 for width in widths.values())

    env = PruningEnv(space, budget, HandCraftedState(space, budget), answer)
    settings = AgentSettings(warmup_episodes=evaluations // 4)
    search(env, evaluations, settings, torch.Generator().manual_seed(0))
    return asked


def test_nine_tenths_of_the_candidates_are_distinct(space, half):
    asked = every(space, half, 100)
    assert len(asked) == 100 and len(set(asked)) >= 90


@pytest.mark.parametrize("evaluations", [2, 7])
def test_a_budget_that_leaves_no_choice_is_judged_as_often_as_asked(space, evaluations):
    least = space.macs(space.smallest)
    assert every(space, least, evaluations) == [space.vector(space.smallest)] * evaluations


@pytest.mark.parametrize("ratios", [(1.0,), tuple((10 + 3 * i) / 100 for i in range(31))])
def test_one_level_and_thirty_one_levels(space, ratios):
    other = SearchSpace(space.graph, divisor=None, ratios=ratios)
    budget = other.macs(other.full) if len(ratios) == 1 else other.macs(other.full) // 2
    assert len(every(other, budget, 12)) == 12


def test_a_deep_network_is_searched():
    with torch.no_grad():
        deep = SearchSpace(trace(build("resnet110", 10), (3, 32, 32)), divisor=8)
    assert len(deep.groups) > 50
    asked = every(deep, deep.macs(deep.full) // 2, 8)
    assert len(set(asked)) == 8
