"""Thompson sampling from trajectory feedback: the agent that searches for GraphPruning.

An episode is judged only once, by its last reward R. As in Efroni, Merlis and Mannor 2021
("Reinforcement Learning with Trajectory Feedback", AAAI, arXiv 2008.06036) R is taken for a sum of
rewards of single steps, these are estimated by least squares from all episodes so far, and the
next episode acts by a sample of what they may be (Thompson sampling; with linear functions as in
RLSVI, Osband, Van Roy and Wen 2016, arXiv 1402.0635). Few episodes are enough, because every one is
used again in each estimate (`paper/differences.md`, "Agents that were tried").

With s for an observation, x(s) = (1, 2s - 1), a for an action scaled to [-1/2, 1/2], and n episodes

    reward of a step   f(s, a) = x(s)' (u a + v (a^2 - 1/12)),     w = (u, v)
    an episode         z = sum over its steps of f + noise,        z: R standardised over the n
    posterior          P = F'F + prior I,   w ~ N(P^-1 F'z, (scale sigma)^2 P^-1)
    action             the a on a grid with the largest f(s, a) under the w drawn for the episode,
                       after r plays without a new candidate with probability r / 2 steps any

    estimate          F_i (P^-1 F'z) + trust (z_i - F_i (P^-1 F'z))  of the reward of episode i

where a row of F [n, 2 size + 2] holds an episode's sum of (x a, x (a^2 - 1/12)), centred over the
episodes, and sigma^2 is the mean squared residual. f has no part that does not depend on the
action: it would decide nothing. Each step takes what is best for itself; the effect on later
observations is not looked ahead to. A reward is partly luck (few images, one training), and the
best of many is the luckiest; so what is found is the candidate with the best estimate, which takes
only a part of a reward's distance to the least squares for real.
"""

from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

Vector = NDArray[np.float32]
Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class AgentSettings:
    """What was best on Channel-Bench-Macro, on seeds that no table reports."""

    warmup_episodes: int = 25
    """Episodes at the start, in which actions are uniform."""
    prior: float = 1.0
    """Ridge of the least squares: the prior precision of each weight, in units of the noise."""
    scale: float = 1.0
    """Factor of the posterior's standard deviation: 0 is greedy."""
    trust: float = 0.3
    """Share of a reward's distance to its estimate that is taken for real, and not for luck."""
    grid: int = 21
    """Actions that are compared; the chosen one is moved at random within its part of the range."""


PLAYS = 20
"""Plays for one new candidate before one that was judged already is judged again."""


class Agent:
    """Estimates the rewards of steps from whole episodes, and acts by samples of them.

    Args:
        size: length of an observation.
        generator: all randomness comes from it.
        uniform: it never acts by what it has learnt.
    """

    def __init__(
        self, size: int, settings: AgentSettings, generator: Generator, uniform: bool = False
    ) -> None:
        self.settings, self.generator, self.uniform = settings, generator, uniform
        width = 2 * (size + 1)
        self.rows: list[Vectors] = []
        self.rewards: list[float] = []
        self.mean = np.zeros(width)
        self.factor = np.eye(width)
        self.sigma = 1.0
        self.weights = np.zeros((2, size + 1))
        self.steps = 0
        self.estimates = np.zeros(0)
        self.learnt = False
        self.random_share = 0.0
        edges = np.linspace(-0.5, 0.5, settings.grid + 1)
        self.actions = (edges[1:] + edges[:-1]) / 2
        self.bends = self.actions**2 - 1 / 12

    def begin(self, repeats: int = 0) -> None:
        """Draw the weights that the next episode acts by, and how often it acts at random, after
        `repeats` plays without a new candidate.
        """
        if not self.learnt or self.uniform:
            return
        self.random_share = repeats / (2 * self.steps)
        noise = torch.randn(len(self.mean), dtype=torch.float64, generator=self.generator).numpy()
        spread = self.settings.scale * self.sigma
        drawn = self.mean + spread * np.linalg.solve(self.factor.T, noise)
        self.weights = drawn.reshape(2, -1)

    def act(self, observation: Vector) -> float:
        """Return the action for `observation` [size], within [0, 1]."""
        draw = torch.rand(2, dtype=torch.float64, generator=self.generator)
        uniform, share = draw.tolist()
        if not self.learnt or self.uniform or share < self.random_share:
            return float(uniform)
        slope, bend = (self.weights[:, 0] + self.weights[:, 1:] @ (2 * observation - 1)).tolist()
        best = self.actions[(slope * self.actions + bend * self.bends).argmax()]
        return float(best + 0.5 + (uniform - 0.5) / len(self.actions))

    def learn(self, observations: Vectors, actions: Vectors, reward: float) -> None:
        """Add an episode, observations [steps, size] and actions [steps] within [0, 1]; from the
        end of the warm-up on update the posterior from all of them.
        """
        self.steps = len(actions)
        self.rows.append(_features(observations, actions - 0.5).sum(axis=0))
        self.rewards.append(reward)
        if len(self.rows) < max(2, self.settings.warmup_episodes):
            return
        rewards = np.array(self.rewards)
        target = (rewards - rewards.mean()) / (rewards.std() or 1.0)
        rows = np.array(self.rows)
        rows = rows - rows.mean(axis=0)
        precision = rows.T @ rows + self.settings.prior * np.eye(rows.shape[1])
        self.factor = np.linalg.cholesky(precision)
        self.mean = np.linalg.solve(precision, rows.T @ target)
        expected = rows @ self.mean
        self.sigma = float(np.sqrt(np.square(target - expected).mean()))
        self.estimates = expected + self.settings.trust * (target - expected)
        self.learnt = True

    def best(self) -> int | None:
        """Return the number of the episode with the best estimate; None if nothing was learnt."""
        return int(self.estimates.argmax()) if self.learnt else None


def _features(observations: Vectors, actions: Vectors) -> Vectors:
    """(x a, x (a^2 - 1/12)) [steps, 2 size + 2] of observations [steps, size], actions [steps]."""
    x = np.concatenate([np.ones((len(observations), 1)), 2 * observations - 1], axis=1)
    a = actions[:, None]
    return np.concatenate([x * a, x * (a**2 - 1 / 12)], axis=1)


def search(
    env: gymnasium.Env[Vector, Vector],
    evaluations: int,
    settings: AgentSettings,
    generator: Generator,
    learns: bool = True,
) -> int | None:
    """Play `env` until it has judged `evaluations` candidates; what answers keeps the history.

    Returns the number, from 0, of the candidate that is estimated to be the best; None if nothing
    was learnt because the warm-up was longer.

    Args:
        env: observations are float32 vectors [size] within [0, 1]. An episode whose candidate was
            judged before has `info["new"]` False at its end, and is not judged unless `reset` was
            given `{"again": True}`.
        generator: all randomness comes from it.
        learns: False leaves the agent's actions as they begin, uniform; what it finds among its
            candidates is estimated alike.
    """
    assert env.observation_space.shape is not None
    size = env.observation_space.shape[0]
    agent = Agent(size, settings, generator, uniform=not learns)
    for _ in range(evaluations):
        for repeats in range(PLAYS):
            agent.begin(repeats)
            episode = _play(env, agent, again=repeats == PLAYS - 1)
            if episode is not None:
                break
        assert episode is not None  # the last play is judged in any case
        agent.learn(*episode)
    return agent.best()


def _play(
    env: gymnasium.Env[Vector, Vector], agent: Agent, again: bool
) -> tuple[Vectors, Vectors, float] | None:
    """One episode's observations, actions and reward; None if its candidate was not judged."""
    observations, actions = [], []
    observation, _ = env.reset(options={"again": again})
    low, high = env.action_space.low[0], env.action_space.high[0]  # type: ignore[attr-defined]
    terminated = False
    while not terminated:
        action = agent.act(observation)
        observations.append(observation)
        actions.append(action)
        taken = np.array([low + (high - low) * action], dtype=np.float32)
        observation, reward, terminated, _, info = env.step(taken)
    if not (info["new"] or again):
        return None
    return np.array(observations, dtype=np.float64), np.array(actions), float(reward)
