"""A Gaussian process as a predictor of accuracy."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

from graphpruning.network.cost import Counts

Values = NDArray[np.float64]
FITTED = 300
"""Accuracies that decide a Gaussian process's kernel; the time grows with the cube of them."""


class GaussianProcess:
    """Gaussian process on features [n, size] of width vectors, with a constant mean.

        k(x, x') = a exp(-|x - x'|^2 / (2 l^2)),   accuracies ~ N(mean, k + s^2 I)

    with the a, l, s with which the accuracies (the first `FITTED` of them) are most likely, found
    from one start (Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning",
    algorithm 2.1 and equation 5.9).
    """

    def __init__(self, features: Callable[[Counts], Values]) -> None:
        self.features = features

    def fit(self, vectors: Counts, accuracies: Values) -> None:
        self.x, y = self.features(vectors), np.asarray(accuracies, dtype=np.float64)
        self.level, self.spread = float(y.mean()), float(y.std()) or 1.0
        y = (y - self.level) / self.spread
        squares = cdist(self.x, self.x, "sqeuclidean")
        few, told = squares[:FITTED, :FITTED], y[:FITTED]
        eye = np.eye(len(told))

        def misfit(logarithms: Values) -> tuple[float, Values]:
            """-log likelihood of y, but for a constant, and its gradient by the logarithms."""
            amplitude, length, noise = np.exp(2 * logarithms)
            kernel = amplitude * np.exp(-few / (2 * length))
            factor = cho_factor(kernel + noise * eye, lower=True)
            solved = cho_solve(factor, told)
            value = 0.5 * told @ solved + np.log(np.diag(factor[0])).sum()
            apart = cho_solve(factor, eye) - np.outer(solved, solved)
            slopes = (kernel, kernel * few / (2 * length), noise * eye)
            return float(value), np.array([(apart * slope).sum() for slope in slopes])

        start = np.log([1.0, self.x.shape[1] ** 0.5, 0.3])
        bounds = [(start[0] - 5, start[0] + 5), (start[1] - 3, start[1] + 5), (-6.0, 1.0)]
        found = minimize(misfit, start, jac=True, method="L-BFGS-B", bounds=bounds)
        self.amplitude, self.length, self.noise = np.exp(2 * found.x)
        kernel = self.amplitude * np.exp(-squares / (2 * self.length))
        self.factor = cho_factor(kernel + self.noise * np.eye(len(y)), lower=True)
        self.solved = cho_solve(self.factor, y)

    def predict(self, vectors: Counts) -> tuple[Values, Values]:
        squares = cdist(self.features(vectors), self.x, "sqeuclidean")
        kernel = self.amplitude * np.exp(-squares / (2 * self.length))
        known = (kernel * cho_solve(self.factor, kernel.T).T).sum(axis=1)
        deviation = np.sqrt(np.clip(self.amplitude - known, 0, None))
        return self.level + self.spread * (kernel @ self.solved), self.spread * deviation
