"""Accuracy as a function of widths, learnt from a few measured width vectors.

A predictor is one entry of `PREDICTORS`: it is fitted to the accuracies of width vectors, and says
of others what their accuracy may be, with a standard deviation. `ridge` is here, `gp` in
`gaussian_process.py`, and those that are neural networks in `neural_predictor.py`; a module that
takes long to import is imported when it is asked for. The first three know a network's groups
alone; `graph` and `no-edges` see its layers, and can be asked about another network.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from graphpruning.network.cost import Counts
from graphpruning.network.widths import SearchSpace
from graphpruning.search.predicted import Predictor

Values = NDArray[np.float64]
TINY = 1e-12
"""The least variance: that of equal accuracies would be 0."""


class LogWidths:
    """Features [n, groups] of width vectors [n, groups]: logarithms of the kept shares.

    They are standardised: 0 and 1 are mean and standard deviation over the levels of a group.
    """

    def __init__(self, space: SearchSpace) -> None:
        levels = [np.log2(space.levels[group]) for group in space.groups]
        self.mean = np.array([level.mean() for level in levels])
        self.deviation = np.array([level.std() or 1.0 for level in levels])

    def __call__(self, vectors: Counts) -> Values:
        features: Values = (np.log2(vectors) - self.mean) / self.deviation
        return features


class Ridge:
    """Bayesian linear regression on features [n, size] of width vectors, with an intercept.

    With X and y centred, accuracies y = X w + noise, w ~ N(0, s^2 / r I), noise ~ N(0, s^2 I):

        P = X'X + r I,   mean(x) = x P^-1 X'y,   variance(x) = s^2 (x P^-1 x' + 1 / n)

    r is that of `RIDGES` with which y is most likely, at the s^2 that is most likely with it
    (MacKay 1992, "Bayesian Interpolation"); noise is not part of the variance.
    """

    def __init__(self, features: Callable[[Counts], Values]) -> None:
        self.features = features

    def fit(self, vectors: Counts, accuracies: Values) -> None:
        x, y = self.features(vectors), np.asarray(accuracies, dtype=np.float64)
        self.middle, self.level = x.mean(axis=0), float(y.mean())
        left, singular, self.axes = np.linalg.svd(x - self.middle, full_matrices=False)
        y = y - self.level
        along = left.T @ y
        count = max(1, len(y) - 1)

        def noise(ridge: float) -> float:
            """s^2, y (I + X X' / r)^-1 y / (n - 1)."""
            explained = float((along**2 * singular**2 / (singular**2 + ridge)).sum())
            return max((float(y @ y) - explained) / count, TINY)

        def misfit(ridge: float) -> float:
            """-2 log likelihood of y, but for a constant."""
            return count * math.log(noise(ridge)) + float(np.log1p(singular**2 / ridge).sum())

        self.ridge = min(RIDGES, key=misfit)
        self.noise, self.count = noise(self.ridge), len(y)
        self.singular = singular
        self.weights = self.axes.T @ (singular * along / (singular**2 + self.ridge))

    def predict(self, vectors: Counts) -> tuple[Values, Values]:
        x = self.features(vectors) - self.middle
        seen = x @ self.axes.T
        # P^-1 is 1 / (singular^2 + r) along the axes, and 1 / r in directions that X lacks.
        along = (seen**2 / (self.singular**2 + self.ridge)).sum(axis=1)
        across = np.clip((x**2).sum(axis=1) - (seen**2).sum(axis=1), 0, None) / self.ridge
        deviation: Values = np.sqrt(self.noise * (along + across + 1 / self.count))
        return self.level + x @ self.weights, deviation


RIDGES = tuple(float(ridge) for ridge in np.logspace(-2, 4, 25))


def _gaussian_process(space: SearchSpace, seed: int) -> Predictor:
    from graphpruning.gaussian_process import GaussianProcess

    return GaussianProcess(LogWidths(space))


def _perceptron(space: SearchSpace, seed: int) -> Predictor:
    from graphpruning.neural_predictor import Perceptron

    return Perceptron(LogWidths(space), seed)


def _graph(space: SearchSpace, seed: int) -> Predictor:
    from graphpruning.neural_predictor import GraphNetwork

    return GraphNetwork(space.graph, seed)


def _no_edges(space: SearchSpace, seed: int) -> Predictor:
    from graphpruning.neural_predictor import GraphNetwork

    return GraphNetwork(space.graph, seed, edges=False)


PREDICTORS: dict[str, Callable[[SearchSpace, int], Predictor]] = {
    "ridge": lambda space, seed: Ridge(LogWidths(space)),
    "gp": _gaussian_process,
    "perceptron": _perceptron,
    "graph": _graph,
    "no-edges": _no_edges,
}
"""Makes a predictor that has learnt nothing yet for a space; what is random comes from the seed."""
