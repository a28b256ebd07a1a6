"""Accuracy as a function of widths, learnt from a few measured width vectors.

A predictor is one entry of `PREDICTORS`: it is fitted to the accuracies of width vectors, and says
of others what their accuracy may be, with a standard deviation. `ridge` and `gp` are here, those
that are neural networks in `neural_predictor.py`. The first three know a network's groups alone;
`graph` and `no-edges` see its layers, and can be asked about another network.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

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


class GaussianProcess:
    """Gaussian process on features [n, size] of width vectors, with a constant mean.

        k(x, x') = a exp(-|x - x'|^2 / (2 l^2)),   accuracies ~ N(mean, k + s^2 I)

    with the a, l, s with which the accuracies are most likely, found from one start (Rasmussen and
    Williams 2006, "Gaussian Processes for Machine Learning", algorithm 2.1 and equation 5.9).
    """

    def __init__(self, features: Callable[[Counts], Values]) -> None:
        self.features = features

    def fit(self, vectors: Counts, accuracies: Values) -> None:
        self.x, y = self.features(vectors), np.asarray(accuracies, dtype=np.float64)
        self.level, self.spread = float(y.mean()), float(y.std()) or 1.0
        y = (y - self.level) / self.spread
        squares, eye = cdist(self.x, self.x, "sqeuclidean"), np.eye(len(y))

        def misfit(logarithms: Values) -> tuple[float, Values]:
            """-log likelihood of y, but for a constant, and its gradient by the logarithms."""
            amplitude, length, noise = np.exp(2 * logarithms)
            kernel = amplitude * np.exp(-squares / (2 * length))
            factor = cho_factor(kernel + noise * eye, lower=True)
            solved = cho_solve(factor, y)
            value = 0.5 * y @ solved + np.log(np.diag(factor[0])).sum()
            apart = cho_solve(factor, eye) - np.outer(solved, solved)
            slopes = (kernel, kernel * squares / (2 * length), noise * eye)
            return float(value), np.array([(apart * slope).sum() for slope in slopes])

        start = np.log([1.0, self.x.shape[1] ** 0.5, 0.3])
        bounds = [(start[0] - 5, start[0] + 5), (start[1] - 3, start[1] + 5), (-6.0, 1.0)]
        found = minimize(misfit, start, jac=True, method="L-BFGS-B", bounds=bounds)
        self.amplitude, self.length, self.noise = np.exp(2 * found.x)
        kernel = self.amplitude * np.exp(-squares / (2 * self.length))
        self.factor = cho_factor(kernel + self.noise * eye, lower=True)
        self.solved = cho_solve(self.factor, y)

    def predict(self, vectors: Counts) -> tuple[Values, Values]:
        squares = cdist(self.features(vectors), self.x, "sqeuclidean")
        kernel = self.amplitude * np.exp(-squares / (2 * self.length))
        known = (kernel * cho_solve(self.factor, kernel.T).T).sum(axis=1)
        deviation = np.sqrt(np.clip(self.amplitude - known, 0, None))
        return self.level + self.spread * (kernel @ self.solved), self.spread * deviation


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
    "gp": lambda space, seed: GaussianProcess(LogWidths(space)),
    "perceptron": _perceptron,
    "graph": _graph,
    "no-edges": _no_edges,
}
"""Makes a predictor that has learnt nothing yet for a space; what is random comes from the seed."""
