"""An agent that learns finds better widths than one that acts uniformly, in both environments."""

import numpy as np
import pytest
import torch

from graphpruning.search import ddpg, trajectory_feedback
from graphpruning.search.environment import PruningEnv
from graphpruning.search.states import AmcState, HandCraftedState
from graphpruning.search.walled import WalledEnv
from tests.search.test_evolution import separable

SEEDS = range(4)


def by_trajectory_feedback(space, budget, evaluate, generator, learns):
    env = PruningEnv(space, budget, HandCraftedState(space, budget), evaluate)
    settings = trajectory_feedback.AgentSettings(warmup_episodes=15)
    trajectory_feedback.search(env, 60, settings, generator, learns)


def by_ddpg(space, budget, evaluate, generator, learns):
    """AMC's agent, with a learning rate for its actor that suits a hundred episodes."""
    env = WalledEnv(space, budget, AmcState(space), evaluate)
    settings = ddpg.DDPGSettings(
        hidden=64, actor_lr=1e-3, noise_decay=0.97, warmup_episodes=20 if learns else 100
    )
    ddpg.search(env, 100, settings, generator)


def accuracies(search, space, budget, learns):
    """Of the candidates in the order in which they were judged, [seeds, evaluations]."""
    accuracy = separable(space)
    found = []
    for seed in SEEDS:
        judged = []
        search(
            space,
            budget,
            lambda widths, judged=judged: judged.append(accuracy(widths)) or judged[-1],
            torch.Generator().manual_seed(seed),
            learns,
        )
        found.append(judged)
    return np.array(found)


@pytest.mark.parametrize("search", [by_trajectory_feedback, by_ddpg])
def test_what_learns_finds_better_widths_than_what_never_learns(space, half, search):
    """By more than a point on average. In its last quarter it proposes what is better by far."""
    learnt, frozen = (accuracies(search, space, half, learns) for learns in (True, False))
    assert learnt.shape == frozen.shape
    best = learnt.max(axis=1) - frozen.max(axis=1)
    assert (best >= 0).all() and best.mean() > 1, best
    last = len(learnt[0]) // 4
    ends = learnt[:, -last:].mean(axis=1) - frozen[:, -last:].mean(axis=1)
    assert ends.mean() > 4, ends
