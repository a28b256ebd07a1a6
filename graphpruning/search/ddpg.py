"""DDPG (Lillicrap et al. 2016, arXiv 1509.02971) as AMC uses it to choose kept ratios.

It differs from the textbook in what AMC's official repository does (mit-han-lab/amc): noise from
a truncated normal that decays by the episode, the final reward given to every step of an
episode, rewards measured from a moving average, no discount.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn


@dataclass(frozen=True)
class DDPGSettings:
    """AMC's published values; warm-up episodes have uniform actions and nothing is learnt."""

    hidden: int = 300
    actor_lr: float = 1e-4
    critic_lr: float = 1e-3
    tau: float = 0.01
    discount: float = 1.0
    batch: int = 64
    replay_per_step: int = 100
    warmup_episodes: int = 100
    noise: float = 0.5
    noise_decay: float = 0.95
    baseline_rate: float = 0.5


class Actor(nn.Module):
    """Observations [batch, size] to kept ratios [batch, 1] in (0, 1)."""

    def __init__(self, size: int, hidden: int, generator: Generator) -> None:
        super().__init__()
        self.layers = _perceptron(size, hidden, generator)

    def forward(self, observations: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(observations))


class Critic(nn.Module):
    """Observations [batch, size] and kept ratios [batch, 1] to values [batch, 1]."""

    def __init__(self, size: int, hidden: int, generator: Generator) -> None:
        super().__init__()
        self.layers = _perceptron(size + 1, hidden, generator)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        values: Tensor = self.layers(torch.cat([observations, actions], dim=1))
        return values


def _perceptron(inputs: int, hidden: int, generator: Generator) -> nn.Sequential:
    """Two hidden layers; PyTorch's default initialisation, drawn from `generator`."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in ((inputs, hidden), (hidden, hidden), (hidden, 1)):
        linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out)
        for parameter in (linear.weight, linear.bias):
            nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5, generator=generator)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Replay:
    """The last `capacity` transitions: observation, action, reward, next observation, last."""

    def __init__(self, capacity: int, size: int) -> None:
        self.columns = [torch.zeros(capacity, width) for width in (size, 1, 1, size, 1)]
        self.capacity = capacity
        self.added = 0

    def add(self, *transition: Tensor) -> None:
        """Add one transition, over the oldest when full."""
        for column, value in zip(self.columns, transition, strict=True):
            column[self.added % self.capacity] = value
        self.added += 1

    def sample(self, count: int, generator: Generator) -> Iterator[Tensor]:
        """Draw `count` transitions with replacement, each a row of the five columns."""
        rows = torch.randint(min(self.added, self.capacity), (count,), generator=generator)
        return (column[rows] for column in self.columns)


def noise(settings: DDPGSettings, episode: int) -> float:
    """Standard deviation of the exploration in `episode`, counted from 0 with the warm-up."""
    return settings.noise * settings.noise_decay ** (episode - settings.warmup_episodes)


def truncated_normal(mean: float, deviation: float, generator: Generator) -> float:
    """Draw from a normal distribution within [0, 1], by inverting its distribution function."""
    normal = NormalDist(mean, deviation)
    low, high = normal.cdf(0), normal.cdf(1)
    share = low + (high - low) * float(torch.rand((), dtype=torch.float64, generator=generator))
    share = min(max(share, 1e-12), 1 - 1e-12)  # the inverse is infinite at 0 and 1
    return min(max(normal.inv_cdf(share), 0.0), 1.0)


def moved_baseline(baseline: float | None, rewards: Tensor, rate: float) -> float:
    """The moving average after a batch of `rewards`; the first batch's mean starts it."""
    mean = float(rewards.mean())
    return mean if baseline is None else baseline + rate * (mean - baseline)


def search(
    env: gymnasium.Env[Any, Any], evaluations: int, settings: DDPGSettings, generator: Generator
) -> None:
    """Play `evaluations` episodes of `env`; whoever answers its evaluations keeps the history.

    Observations are vectors, actions [1] within [0, 1]. All randomness comes from `generator`.
    """
    assert env.observation_space.shape is not None
    size = env.observation_space.shape[0]
    actor = Actor(size, settings.hidden, generator)
    critic = Critic(size, settings.hidden, generator)
    slow_actor, slow_critic = deepcopy(actor), deepcopy(critic)
    actor_adam = torch.optim.Adam(actor.parameters(), settings.actor_lr, fused=True)
    critic_adam = torch.optim.Adam(critic.parameters(), settings.critic_lr, fused=True)
    slow_parameters: list[Tensor] = [*slow_actor.parameters(), *slow_critic.parameters()]
    parameters: list[Tensor] = [*actor.parameters(), *critic.parameters()]
    replay: Replay | None = None
    baseline: float | None = None

    for episode in range(evaluations):
        transitions = []
        observation = torch.from_numpy(env.reset()[0])
        last = False
        while not last:
            if episode < settings.warmup_episodes:
                action = float(torch.rand((), generator=generator))
            else:
                with torch.no_grad():
                    mean = float(actor(observation))
                action = truncated_normal(mean, noise(settings, episode), generator)
            following, reward, last, _, _ = env.step(np.array([action], dtype=np.float32))
            after = torch.from_numpy(following)
            transitions.append((observation, torch.tensor(action), after, torch.tensor(last)))
            observation = after

        if replay is None:
            replay = Replay(settings.replay_per_step * len(transitions), size)
        final = torch.tensor(float(reward))
        for before, taken, after, ended in transitions:
            replay.add(before, taken, final, after, ended)
            if episode < settings.warmup_episodes:
                continue
            states, actions, rewards, next_states, ends = replay.sample(settings.batch, generator)
            baseline = moved_baseline(baseline, rewards, settings.baseline_rate)

            with torch.no_grad():
                next_values = slow_critic(next_states, slow_actor(next_states))
            target = rewards - baseline + settings.discount * (1 - ends) * next_values
            critic_loss = F.mse_loss(critic(states, actions), target)
            critic_adam.zero_grad()
            critic_loss.backward()
            critic_adam.step()

            actor_loss = -critic(states, actor(states)).mean()
            actor_adam.zero_grad()
            actor_loss.backward(inputs=list(actor.parameters()))  # the critic stays as it is
            actor_adam.step()

            with torch.no_grad():
                torch._foreach_lerp_(slow_parameters, parameters, settings.tau)
