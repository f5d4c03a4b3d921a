"""A Gaussian process that learns how much each column of its rows matters, by maximum a posteriori."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

Array = NDArray[np.float64]

MOST_FITTED = 100
"""The kernel is fitted to at most so many rows: its cost grows with their cube."""

DISTANCE = 0.6
"""What two rows are apart on average, by the weights of the prior."""

SPREAD = 1.5
"""How much weights may differ: the standard deviation of their logarithms in the prior."""

NOISE = (-6.0, 2.0)
"""What is believed of the logarithm of the noise's variance, and of that of the luck of a group: mean and
standard deviation of the prior."""

JITTER = 1e-8

_THREADS = ThreadpoolController()


class GaussianProcess:
    """Matern 3/2 over a weighted sum of squared distances, one weight for each column.

    Log-normal priors on all weights, the variance of the signal and that of the noise keep the fit sane
    where there are fewer rows than columns. Targets should be standardized.

    Everything runs on one thread: matrices of this size gain nothing from two, and two that wait for each
    other are tens of times slower where something else, a training, uses the cores.
    """

    def fit(
        self,
        rows: Array,
        targets: Array,
        most: int = MOST_FITTED,
        noise: tuple[float, float] = NOISE,
        groups: NDArray[np.intp] | None = None,
        n_own: int = 0,
    ) -> GaussianProcess:
        """Condition on `rows`, `(n, columns)`, and `targets`, `(n,)`; fit the kernel to the first `most`.

        Args:
            noise: What is believed of the logarithm of its variance, mean and standard deviation.
            groups: `(n,)`: targets of one group, which were read off one training, share its luck. Else the
                noise would seem as small as they differ from each other. None: each is alone.
            n_own: The last so many columns are in units of their own: of their weights the prior expects 1,
                however much the others vary.
        """
        n_others = rows.shape[1] - n_own
        typical = DISTANCE / max(2 * rows[:, :n_others].var(axis=0).sum(), JITTER)
        expected = np.r_[np.full(n_others, typical), np.ones(n_own)]
        fitted = rows[:most]
        telling = np.ptp(fitted, axis=0) > 0  # of the others, only the prior says something
        n_telling = int(telling.sum())
        same = None if groups is None else _same(groups[:most])
        n_noises = 1 if groups is None else 2
        self._prior_mean = np.r_[np.log(expected[telling]), 0.0, np.full(n_noises, noise[0])]
        self._prior_std = np.r_[np.full(n_telling, SPREAD), 1.0, np.full(n_noises, noise[1])]
        reach = 5 * self._prior_std
        with _one_thread():
            found = minimize(
                self._loss,
                self._prior_mean,
                (fitted[:, telling], targets[:most], same),
                jac=True,
                method="L-BFGS-B",
                bounds=np.column_stack([self._prior_mean - reach, self._prior_mean + reach]),
                options={"maxiter": 25},
            )
        self._scale = np.sqrt(expected)
        self._scale[telling] = np.exp(found.x[:n_telling] / 2)
        self._signal, self._noise, *luck = np.exp(found.x[n_telling:])
        self._luck = sum(luck)
        self._condition(rows * self._scale, targets, groups)
        return self

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the signal, each `(n,)`."""
        with _one_thread():
            kernel = self._signal * _matern(_squared(rows * self._scale, self._scaled))
            whitened = solve_triangular(self._factor, kernel.T, lower=True, check_finite=False)
            variance = self._signal - (whitened**2).sum(axis=0)
            return kernel @ self._alpha, np.sqrt(np.maximum(variance, JITTER))

    def draws(self, rows: Array, n: int, seed: int) -> Array:
        """Samples of the signal at all rows jointly, `(n, len(rows))`."""
        with _one_thread():
            scaled = rows * self._scale
            kernel = self._signal * _matern(_squared(scaled, self._scaled))
            whitened = solve_triangular(self._factor, kernel.T, lower=True, check_finite=False)
            covariance = self._signal * _matern(_squared(scaled, scaled)) - whitened.T @ whitened
            covariance[np.diag_indices(len(rows))] += 1e-6 * self._signal
            factor = np.linalg.cholesky(covariance)
            normal = np.random.default_rng(seed).standard_normal((n, len(rows)))
            drawn: Array = kernel @ self._alpha + normal @ factor.T
            return drawn

    @property
    def noise(self) -> float:
        """What the targets of one row would differ by: a standard deviation."""
        return float(np.sqrt(self._noise + self._luck))

    def fitted(self) -> Array:
        """Mean of the signal, without the noise, at the rows it was conditioned on, `(n,)`."""
        fitted: Array = self._targets - self._noises @ self._alpha
        return fitted

    def surprise(self) -> float:
        """How badly targets are predicted by `left_out`: the mean of -log of their predicted density."""
        mean, variance = self.left_out()
        return float(0.5 * (np.log(2 * np.pi * variance) + (self._targets - mean) ** 2 / variance).mean())

    def left_out(self) -> tuple[Array, Array]:
        """Mean and variance of each target, predicted from those of all other groups, each `(n,)`.

        In closed form (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, section 5.4.2).
        """
        with _one_thread():
            inverse = _inverse(self._factor)
        if self._groups is None:
            variance = 1 / np.diag(inverse)
            return self._targets - self._alpha * variance, variance
        mean, variance = np.empty_like(self._targets), np.empty_like(self._targets)
        for group in np.unique(self._groups):
            at = np.flatnonzero(self._groups == group)
            covariance = np.linalg.inv(inverse[np.ix_(at, at)])
            mean[at] = self._targets[at] - covariance @ self._alpha[at]
            variance[at] = np.diag(covariance)
        return mean, variance

    def believe(self, rows: Array) -> GaussianProcess:
        """A copy that takes its own predictions for `rows` as observed."""
        other = copy.copy(self)
        believed = np.r_[self._targets, self.predict(rows)[0]]
        groups = self._groups
        if groups is not None:
            groups = np.r_[groups, groups.max() + 1 + np.arange(len(rows))]
        other._condition(np.vstack([self._scaled, rows * self._scale]), believed, groups)
        return other

    def _condition(self, scaled: Array, targets: Array, groups: NDArray[np.intp] | None) -> None:
        self._scaled, self._targets, self._groups = scaled, targets, groups
        with _one_thread():
            self._noises = (self._noise + JITTER) * np.eye(len(scaled))
            if groups is not None:
                self._noises += self._luck * _same(groups)
            covariance = self._signal * _matern(_squared(scaled, scaled)) + self._noises
            self._factor = np.linalg.cholesky(covariance)
            self._alpha = cho_solve((self._factor, True), targets)

    def _loss(self, x: Array, rows: Array, targets: Array, same: Array | None) -> tuple[float, Array]:
        """Negative log posterior of the logarithms of the hyperparameters, and its gradient."""
        n, n_columns = rows.shape
        signal, noise, *luck = np.exp(x[n_columns:])
        scaled = rows * np.exp(x[:n_columns] / 2)
        distances = _squared(scaled, scaled)
        correlation = _matern(distances)
        covariance = signal * correlation + (noise + JITTER) * np.eye(n)
        if same is not None:
            covariance += luck[0] * same
        factor = np.linalg.cholesky(covariance)
        inverse = _inverse(factor)
        alpha = inverse @ targets
        z = (x - self._prior_mean) / self._prior_std
        loss = 0.5 * targets @ alpha + np.log(np.diag(factor)).sum() + 0.5 * z @ z
        outer = 0.5 * (inverse - np.outer(alpha, alpha))
        by_distance = outer * signal * _matern_slope(distances)
        # The sum over pairs of by_distance * (difference in a column)**2, for all columns at once.
        by_weight = 2 * (by_distance.sum(axis=0) @ scaled**2 - ((by_distance @ scaled) * scaled).sum(axis=0))
        by_variance = [signal * (outer * correlation).sum(), noise * np.trace(outer)]
        if same is not None:
            by_variance.append(luck[0] * (outer * same).sum())
        gradient = np.concatenate([by_weight, by_variance])
        return float(loss), gradient + z / self._prior_std


def _same(groups: NDArray[np.intp]) -> Array:
    """1 where two are of one group."""
    same: Array = (groups[:, None] == groups).astype(float)
    return same


def _one_thread() -> AbstractContextManager[object]:
    limits: AbstractContextManager[object] = _THREADS.limit(limits=1, user_api="blas")
    return limits


def _inverse(factor: Array) -> Array:
    """Of the matrix whose lower Cholesky factor this is."""
    half, _ = dpotri(factor, lower=True)  # the other half stays that of the factor: zeros
    inverse: Array = half + np.tril(half, -1).T
    return inverse


def _squared(a: Array, b: Array) -> Array:
    """Squared Euclidean distances between the rows of `a` and of `b`."""
    distances: Array = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - 2 * a @ b.T
    return np.maximum(distances, 0.0)


def _matern(squared: Array) -> Array:
    t = np.sqrt(3 * squared)
    correlation: Array = (1 + t) * np.exp(-t)
    return correlation


def _matern_slope(squared: Array) -> Array:
    """Derivative of `_matern` by the squared distance."""
    slope: Array = -1.5 * np.exp(-np.sqrt(3 * squared))
    return slope
