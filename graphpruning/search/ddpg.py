"""DDPG (Lillicrap et al. 2016, arXiv 1509.02971) as AMC uses it to choose kept ratios.

It differs from the textbook in what AMC's official repository does (mit-han-lab/amc): noise from
a truncated normal that decays by the episode, the final reward given to every step of an
episode, rewards measured from a moving average, no discount.
"""

from copy import deepcopy
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class DDPGSettings:
    """AMC's published values."""

    hidden: int = 300
    """Units of each of the two hidden layers, of actor and critic."""
    actor_lr: float = 1e-4
    """Adam's learning rate of the actor."""
    critic_lr: float = 1e-3
    """Adam's learning rate of the critic."""
    tau: float = 0.01
    """Share by which the target networks move towards actor and critic at an update."""
    discount: float = 1.0
    """Factor of the next observation's value; 1: none is lost."""
    batch: int = 64
    """Transitions of an update."""
    replay_per_step: int = 100
    """Episodes that the replay holds: its capacity, divided by the steps of an episode."""
    warmup_episodes: int = 100
    """Episodes at the start, in which actions are uniform and nothing is learnt."""
    noise: float = 0.5
    """Standard deviation of the kept ratio drawn in the first episode after the warm-up."""
    noise_decay: float = 0.95
    """Factor of that standard deviation, per episode."""
    baseline_rate: float = 0.5
    """Share by which the baseline moves towards the mean reward of a batch."""


class Transition(NamedTuple):
    """One step of an episode, or a batch of them with one more axis in front; float32."""

    observation: Tensor
    """What the agent saw [size]."""
    action: Tensor
    """The kept ratio that it chose [1], within [0, 1]."""
    reward: Tensor
    """What it got [1]."""
    next_observation: Tensor
    """What it saw then [size]."""
    terminated: Tensor
    """1 where the step was the last one of its episode, else 0 [1]."""


class Replay:
    """The last `capacity` transitions, with observations [size]."""

    def __init__(self, capacity: int, size: int) -> None:
        self.transitions = Transition(
            observation=torch.zeros(capacity, size),
            action=torch.zeros(capacity, 1),
            reward=torch.zeros(capacity, 1),
            next_observation=torch.zeros(capacity, size),
            terminated=torch.zeros(capacity, 1),
        )
        self.capacity = capacity
        self.added = 0

    def add(self, transition: Transition) -> None:
        """Add one transition, over the oldest when full."""
        for column, value in zip(self.transitions, transition, strict=True):
            column[self.added % self.capacity] = value
        self.added += 1

    def sample(self, count: int, generator: Generator) -> Transition:
        """Draw `count` transitions with replacement; return them as a batch."""
        rows = torch.randint(min(self.added, self.capacity), (count,), generator=generator)
        return Transition(*(column[rows] for column in self.transitions))


class Actor(nn.Module):
    """mu: observations [batch, size] to kept ratios [batch, 1] in (0, 1)."""

    def __init__(self, size: int, hidden: int, generator: Generator) -> None:
        super().__init__()
        self.layers = _perceptron(size, hidden, generator)

    def forward(self, observations: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(observations))


class Critic(nn.Module):
    """Q: observations [batch, size] and kept ratios [batch, 1] to values [batch, 1]."""

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


def noise(settings: DDPGSettings, episode: int) -> float:
    """Standard deviation of the exploration in `episode`, counted from 0 with the warm-up.

    noise x noise_decay^(episode - warmup_episodes)
    """
    return settings.noise * settings.noise_decay ** (episode - settings.warmup_episodes)


def truncated_normal(mean: float, deviation: float, generator: Generator) -> float:
    """Draw from the normal distribution cut to [0, 1], by inverting its distribution function."""
    normal = NormalDist(mean, deviation)
    low, high = normal.cdf(0), normal.cdf(1)
    share = low + (high - low) * float(torch.rand((), dtype=torch.float64, generator=generator))
    share = min(max(share, 1e-12), 1 - 1e-12)  # the inverse is infinite at 0 and 1
    return min(max(normal.inv_cdf(share), 0.0), 1.0)


def moved_baseline(baseline: float | None, rewards: Tensor, rate: float) -> float:
    """The moving average b after a batch of `rewards` [batch, 1].

    b + rate (mean of the rewards - b); the first batch's mean starts it (`baseline` None).
    """
    mean = float(rewards.mean())
    return mean if baseline is None else baseline + rate * (mean - baseline)


class DDPG:
    """Actor, critic, their slowly following targets, and the baseline of the rewards.

    With o, a, r, o' and t for a transition's parts, mu for the actor, Q for the critic, ' for their
    targets and b for the baseline, an update makes one step of Adam on each of

        critic: mean (Q(o, a) - (r - b + discount (1 - t) Q'(o', mu'(o'))))^2
        actor: -mean Q(o, mu(o))

    and moves the targets' parameters: p' <- p' + tau (p - p').

    Args:
        size: length of an observation.
        generator: draws initial weights and actions.
    """

    def __init__(self, size: int, settings: DDPGSettings, generator: Generator) -> None:
        self.settings, self.generator = settings, generator
        self.actor = Actor(size, settings.hidden, generator)
        self.critic = Critic(size, settings.hidden, generator)
        self.target_actor, self.target_critic = deepcopy(self.actor), deepcopy(self.critic)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), settings.actor_lr, fused=True)
        self.critic_adam = torch.optim.Adam(
            self.critic.parameters(), settings.critic_lr, fused=True
        )
        self.parameters: list[Tensor] = [*self.actor.parameters(), *self.critic.parameters()]
        self.target_parameters: list[Tensor] = [
            *self.target_actor.parameters(),
            *self.target_critic.parameters(),
        ]
        self.baseline: float | None = None

    def act(self, observation: Tensor, episode: int) -> float:
        """Return the kept ratio for `observation` [size]; uniform during the warm-up."""
        if episode < self.settings.warmup_episodes:
            return float(torch.rand((), generator=self.generator))
        with torch.no_grad():
            mean = float(self.actor(observation))
        return truncated_normal(mean, noise(self.settings, episode), self.generator)

    def update(self, batch: Transition) -> None:
        """Make one update from `batch`, see the class."""
        self.baseline = moved_baseline(self.baseline, batch.reward, self.settings.baseline_rate)

        with torch.no_grad():
            next_action = self.target_actor(batch.next_observation)
            next_value = self.target_critic(batch.next_observation, next_action)
        to_come = self.settings.discount * (1 - batch.terminated) * next_value
        target = batch.reward - self.baseline + to_come
        critic_loss = F.mse_loss(self.critic(batch.observation, batch.action), target)
        self.critic_adam.zero_grad()
        critic_loss.backward()
        self.critic_adam.step()

        actor_loss = -self.critic(batch.observation, self.actor(batch.observation)).mean()
        self.actor_adam.zero_grad()
        actor_loss.backward(inputs=list(self.actor.parameters()))  # the critic stays as it is
        self.actor_adam.step()

        with torch.no_grad():
            torch._foreach_lerp_(self.target_parameters, self.parameters, self.settings.tau)


def search(
    env: gymnasium.Env[Vector, Vector],
    evaluations: int,
    settings: DDPGSettings,
    generator: Generator,
) -> None:
    """Play `evaluations` episodes of `env`; what answers its evaluations keeps the history.

    Args:
        env: observations are float32 vectors [size], actions kept ratios [1] within [0, 1]; all
            episodes have the same number of steps.
        generator: all randomness comes from it.
    """
    assert env.observation_space.shape is not None
    size = env.observation_space.shape[0]
    agent = DDPG(size, settings, generator)
    replay: Replay | None = None
    for episode in range(evaluations):
        transitions = _play(env, agent, episode)
        if replay is None:
            replay = Replay(settings.replay_per_step * len(transitions), size)
        for transition in transitions:  # AMC: each has the reward of the last one
            replay.add(transition._replace(reward=transitions[-1].reward))
            if episode >= settings.warmup_episodes:
                agent.update(replay.sample(settings.batch, generator))


def _play(env: gymnasium.Env[Vector, Vector], agent: DDPG, episode: int) -> list[Transition]:
    """The transitions of one episode."""
    transitions = []
    observation, terminated = torch.from_numpy(env.reset()[0]), False
    while not terminated:
        action = agent.act(observation, episode)
        seen, reward, terminated, _, _ = env.step(np.array([action], dtype=np.float32))
        step = Transition(
            observation=observation,
            action=torch.tensor(action),
            reward=torch.tensor(float(reward)),
            next_observation=torch.from_numpy(seen),
            terminated=torch.tensor(terminated),
        )
        transitions.append(step)
        observation = step.next_observation
    return transitions
