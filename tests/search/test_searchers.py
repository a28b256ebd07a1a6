"""What all searches share: equal evaluations, equal budgets, determinism, resumption."""

import pytest
import torch

from graphpruning.predictor import PREDICTORS
from graphpruning.search import (
    ddpg,
    evolution,
    predicted,
    random_search,
    trajectory_feedback,
    uniform,
)
from graphpruning.search.environment import PruningEnv
from graphpruning.search.states import AggregatedState, AmcState, HandCraftedState
from graphpruning.search.walled import WalledEnv

EVALUATIONS = 23  # more than two generations or the warm-up, and a multiple of neither
SETTINGS = trajectory_feedback.AgentSettings(warmup_episodes=8)
AMC = ddpg.DDPGSettings(hidden=32, warmup_episodes=8)
GENERATIONS = evolution.EvolutionSettings(population=9, parents=3, mutations=4, crossovers=4)


def features(space):
    def ratios(widths):
        groups = [layer.group for layer in space.graph.layers]
        kept = [widths.get(group, 1) / space.full.get(group, 1) for group in groups]
        return torch.tensor(kept)[:, None]

    return ratios


def aggregated(space, budget, journal, generator):
    state = AggregatedState(space, budget, features(space))
    env = PruningEnv(space, budget, state, journal)
    trajectory_feedback.search(env, journal.evaluations, SETTINGS, generator)


def hand_crafted(space, budget, journal, generator):
    env = PruningEnv(space, budget, HandCraftedState(space, budget), journal)
    trajectory_feedback.search(env, journal.evaluations, SETTINGS, generator)


def frozen(space, budget, journal, generator):
    env = PruningEnv(space, budget, HandCraftedState(space, budget), journal)
    trajectory_feedback.search(env, journal.evaluations, SETTINGS, generator, learns=False)


def by_ddpg(space, budget, journal, generator):
    env = WalledEnv(space, budget, AmcState(space), journal)
    ddpg.search(env, journal.evaluations, AMC, generator)


def evolving(space, budget, journal, generator):
    evolution.search(space, budget, journal, GENERATIONS, generator)


def predicting(space, budget, journal, generator):
    settings = predicted.PredictorSettings(warmup=8)
    predicted.search(
        space, budget, journal, settings, lambda: PREDICTORS["ridge"](space, 0), generator
    )


def uniformly(space, budget, journal, generator):
    uniform.search(space, budget, journal)


SEARCHERS = {
    "aggregated": aggregated,
    "hand-crafted": hand_crafted,
    "frozen": frozen,
    "ddpg": by_ddpg,
    "evolution": evolving,
    "predictor": predicting,
    "random": random_search.search,
    "uniform": uniformly,
}
every = pytest.mark.parametrize("name", SEARCHERS)


def accuracy(widths):
    return sum(width**0.5 for width in widths.values())


def run(name, space, budget, journal, seed=0, answer=accuracy):
    opened = journal(answer, 1 if name == "uniform" else EVALUATIONS, seed=seed)
    SEARCHERS[name](space, budget, opened, torch.Generator().manual_seed(seed))
    return opened.history.candidates


@every
def test_all_evaluations_are_used_within_the_budget(name, space, half, journal):
    candidates = run(name, space, half, journal)
    assert len(candidates) == (1 if name == "uniform" else EVALUATIONS)
    assert all(0.98 * half <= candidate.macs <= half for candidate in candidates)


@every
def test_same_seed_finds_the_same_and_another_something_else(name, space, half, journal):
    first = run(name, space, half, journal, seed=0)
    other = run(name, space, half, journal, seed=1)
    assert run(name, space, half, journal, seed=0) == first
    assert (other == first) == (name == "uniform")


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("name", "answers"),
    [(name, answers) for name in SEARCHERS for answers in (0, 5, 12) if name != "uniform"]
    + [("uniform", 0)],
)
def test_killed_search_ends_as_if_undisturbed(name, answers, space, half, journal):
    undisturbed = run(name, space, half, journal)
    run(name, space, half, journal, seed=1)  # another fingerprint: the journal begins anew
    computed = []

    def dying(widths):
        if len(computed) == answers:
            raise Killed
        computed.append(space.vector(widths))
        return accuracy(widths)

    def living(widths):
        computed.append(space.vector(widths))
        return accuracy(widths)

    with pytest.raises(Killed):
        run(name, space, half, journal, answer=dying)
    assert run(name, space, half, journal, answer=living) == undisturbed
    assert len(computed) == len(set(computed))  # nothing was computed a second time
