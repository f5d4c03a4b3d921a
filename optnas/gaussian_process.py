"""A Gaussian process whose kernel weighs groups of columns, fitted by maximum a posteriori."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]

MOST_FITTED = 100
"""The kernel is fitted to at most so many rows: its cost grows with their cube, its use does not."""

MOST_ROWS = 300
"""Predictions rest on at most so many rows."""

JITTER = 1e-8


class GaussianProcess:
    """Matern 5/2 over a weighted sum of squared distances, one weight for each group of columns.

    Log-normal priors on all weights, the variance of the signal and that of the noise keep the fit sane
    where there are fewer rows than groups. Targets should be standardized, lower being better.

    Args:
        groups: The group of each column of the rows, counted from 0, `(columns,)`.
        spread: How much weights may differ: the standard deviation of their logarithms in the prior.
    """

    def __init__(self, groups: NDArray[np.intp], spread: float = 1.0) -> None:
        self._groups = groups
        self._n_groups = int(groups.max()) + 1 if len(groups) else 0
        # Before anything is known, rows that differ in everything are about as similar however many groups.
        self._prior_mean = np.r_[np.full(self._n_groups, np.log(2.2 / max(self._n_groups, 1))), 0.0, -6.0]
        self._prior_std = np.r_[np.full(self._n_groups, spread), 1.0, 2.0]

    def fit(self, rows: Array, targets: Array) -> GaussianProcess:
        """Fit the kernel, then condition on `rows`, `(n, columns)`, and `targets`, `(n,)`."""
        chosen = _informative(targets, MOST_FITTED)
        columns = [rows[np.ix_(chosen, self._groups == group)] for group in range(self._n_groups)]
        distances = np.array([_squared(c, c).ravel() for c in columns]).reshape(self._n_groups, -1)
        found = minimize(
            self._loss,
            self._prior_mean,
            (distances, targets[chosen]),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-10.0, 5.0)] * self._n_groups + [(-4.0, 4.0), (-14.0, 1.0)],
            options={"maxiter": 25},
        )
        self._weights = np.exp(found.x[:-2])
        self._signal, self._noise = np.exp(found.x[-2:])
        kept = _informative(targets, MOST_ROWS)
        self._condition(rows[kept], targets[kept])
        return self

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the signal, each `(n,)`."""
        kernel = self._signal * _matern(self._distances(rows))
        whitened = solve_triangular(self._factor, kernel.T, lower=True, check_finite=False)
        variance = self._signal - (whitened**2).sum(axis=0)
        return kernel @ self._alpha, np.sqrt(np.maximum(variance, JITTER))

    def believe(self, rows: Array) -> GaussianProcess:
        """A copy that takes its own predictions for `rows` as observed."""
        other = copy.copy(self)
        other._condition(np.vstack([self._rows, rows]), np.r_[self._targets, self.predict(rows)[0]])
        return other

    def _condition(self, rows: Array, targets: Array) -> None:
        self._rows, self._targets = rows, targets
        covariance = self._signal * _matern(self._distances(rows))
        covariance[np.diag_indices(len(rows))] += self._noise + JITTER
        self._factor = np.linalg.cholesky(covariance)
        self._alpha = cho_solve((self._factor, True), targets)

    def _distances(self, rows: Array) -> Array:
        scale = np.sqrt(self._weights[self._groups])
        return _squared(rows * scale, self._rows * scale)

    def _loss(self, x: Array, distances: Array, targets: Array) -> tuple[float, Array]:
        """Negative log posterior of the logarithms of the hyperparameters, and its gradient."""
        n = len(targets)
        weights, signal, noise = np.exp(x[:-2]), np.exp(x[-2]), np.exp(x[-1])
        weighted = (weights @ distances).reshape(n, n)
        correlation = _matern(weighted)
        factor = np.linalg.cholesky(signal * correlation + (noise + JITTER) * np.eye(n))
        inverse = cho_solve((factor, True), np.eye(n))
        alpha = inverse @ targets
        z = (x - self._prior_mean) / self._prior_std
        loss = 0.5 * targets @ alpha + np.log(np.diag(factor)).sum() + 0.5 * z @ z
        outer = 0.5 * (inverse - np.outer(alpha, alpha))
        by_distance = (outer * signal * _matern_slope(weighted)).ravel()
        gradient = np.r_[
            weights * (distances @ by_distance),
            signal * (outer * correlation).sum(),
            noise * np.trace(outer),
        ]
        return float(loss), gradient + z / self._prior_std


def _informative(targets: Array, most: int) -> NDArray[np.intp]:
    """At most so many rows: the best, as half of them, and the latest of the others."""
    n = len(targets)
    if n <= most:
        return np.arange(n)
    best = np.argsort(targets, kind="stable")[: most // 2]
    others = np.setdiff1d(np.arange(n), best)
    return np.sort(np.r_[best, others[len(best) - most :]])


def _squared(a: Array, b: Array) -> Array:
    """Squared Euclidean distances between the rows of `a` and of `b`."""
    distances: Array = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - 2 * a @ b.T
    return np.maximum(distances, 0.0)


def _matern(squared: Array) -> Array:
    t = np.sqrt(5 * squared)
    correlation: Array = (1 + t + t * t / 3) * np.exp(-t)
    return correlation


def _matern_slope(squared: Array) -> Array:
    """Derivative of `_matern` by the squared distance."""
    t = np.sqrt(5 * squared)
    slope: Array = -5 / 6 * (1 + t) * np.exp(-t)
    return slope
