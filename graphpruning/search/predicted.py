"""A search that measures a few candidates, and lets what it learnt from them propose the next ones.

It is Bayesian optimisation: a predictor of accuracy is fitted to all candidates measured so far,
and the next one is where its mean and its standard deviation together are largest,

    x = argmax  mean(x) + scale deviation(x)   over candidates x not measured yet,

the upper confidence bound (Srinivas et al. 2010, arXiv 0912.3995). The maximum is sought by hill
climbing, from random candidates and from those measured: a step changes the widths of one or two
groups, so that what is taken from one is given to another. An accuracy is partly luck (few images,
one training), and the best of many is the luckiest; so what is found is the candidate with the best
estimate,

    mean(x) + trust (accuracy(x) - mean(x)),

which takes only a part of a measurement's distance to the prediction for real.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from graphpruning.network.cost import Counts
from graphpruning.network.widths import SearchSpace
from graphpruning.search.history import Journal
from graphpruning.search.random_search import unknown_within

Values = NDArray[np.float64]


class Predictor(Protocol):
    """Accuracy in percent as a function of width vectors [n, groups] (channels)."""

    def fit(self, vectors: Counts, accuracies: Values) -> None:
        """Learn from measured accuracies [n]; what was learnt before is forgotten."""
        ...

    def predict(self, vectors: Counts) -> tuple[Values, Values]:
        """Mean [n] of what the true accuracies may be, and their standard deviation [n]."""
        ...


@dataclass(frozen=True)
class PredictorSettings:
    """What was best on Channel-Bench-Macro, on seeds that no table reports."""

    kind: Literal["ridge", "gp", "perceptron", "graph", "no-edges"] = "ridge"
    """A key of `predictor.PREDICTORS`."""
    warmup: int = 20
    """Random candidates at the start."""
    pool: int = 20
    """Candidates from which hills are climbed for a proposal: the best, and a few random ones."""
    scale: float = 0.5
    """Factor of the standard deviation in what is maximised: 0 is greedy."""
    trust: float = 0.3
    """Share of a measurement's distance to its prediction that is taken for real, not for luck."""


FRESH = 2
"""Random candidates among those from which hills are climbed."""
MOVES = 500
"""Changes of one or two groups that are tried at each step of a climb, of all hills together."""
STEPS = 20
"""Steps after which a climb ends, even if it could go on."""


def search(
    space: SearchSpace,
    budget: int,
    journal: Journal,
    settings: PredictorSettings,
    predictor: Callable[[], Predictor],
    generator: Generator,
) -> int | None:
    """Ask `journal` about widths within `budget` until it has no evaluation left.

    Returns the number, from 0, of the candidate that is estimated to be the best; None after a
    single one.

    Args:
        journal: answers with the accuracy of widths in percent.
        predictor: makes one that has learnt nothing yet.
        generator: all randomness comes from it.

    Raises:
        UserError: when the space cannot meet the budget.
    """
    asked: list[tuple[int, ...]] = []
    accuracies: list[float] = []
    while len(asked) < journal.evaluations:
        proposed = None
        if len(asked) >= max(2, settings.warmup):
            fitted = _fitted(predictor, asked, accuracies)
            proposed = _propose(space, budget, asked, fitted, settings, generator)
        widths = proposed or unknown_within(space, budget, set(asked), generator)
        asked.append(space.vector(widths))
        accuracies.append(journal(widths))
    if len(asked) < 2:
        return None
    mean, _ = _fitted(predictor, asked, accuracies).predict(np.array(asked))
    return int((mean + settings.trust * (np.array(accuracies) - mean)).argmax())


def _fitted(
    predictor: Callable[[], Predictor], asked: list[tuple[int, ...]], accuracies: list[float]
) -> Predictor:
    fitted = predictor()
    fitted.fit(np.array(asked), np.array(accuracies))
    return fitted


def _propose(
    space: SearchSpace,
    budget: int,
    asked: list[tuple[int, ...]],
    fitted: Predictor,
    settings: PredictorSettings,
    generator: Generator,
) -> dict[str, int] | None:
    """The best candidate that climbs find among those not asked about; None if there is none."""

    def values(rows: Counts) -> Values:
        mean, deviation = fitted.predict(rows)
        found: Values = mean + settings.scale * deviation
        return found

    measured = np.unique(np.array(asked), axis=0)
    top = measured[_best_first(values(measured))[: settings.pool]]
    fresh = [space.vector(space.sample_within(budget, generator)) for _ in range(FRESH)]
    rows = top = np.unique(np.concatenate([top, np.array(fresh)]), axis=0)
    for _ in range(STEPS):
        rows = np.unique(np.concatenate([top, _neighbours(space, budget, top, generator)]), axis=0)
        rows = rows[_best_first(values(rows))]
        before, top = top, rows[: settings.pool]
        if np.array_equal(before, top):
            break
    known = set(asked)
    for row in rows.tolist():
        if tuple(row) not in known:
            return space.widths(row)
    return None


def _best_first(values: Values) -> NDArray[np.int64]:
    return np.argsort(-values, kind="stable")


def _neighbours(space: SearchSpace, budget: int, rows: Counts, generator: Generator) -> Counts:
    """Of `MOVES` random changes of one or two groups in `rows`, those that the budget allows.

    They fill it, or use at least as much of it as the rows do.
    """
    least = min(space.filled * budget, space.resource.used(rows).min())
    levels = [np.array(space.levels[group]) for group in space.groups]
    moved = np.repeat(rows, -(-MOVES // len(rows)), axis=0)
    for _ in range(2):
        columns = torch.randint(len(levels), (len(moved),), generator=generator).numpy()
        draws = torch.rand(len(moved), dtype=torch.float64, generator=generator).numpy()
        for column, among in enumerate(levels):
            here = columns == column
            moved[here, column] = among[(draws[here] * len(among)).astype(np.int64)]
    used = space.resource.used(moved)
    allowed: Counts = moved[(used >= least) & (used <= budget)]
    return allowed
