"""A model of finished trials with uncertainty: what would this architecture score?

A Gaussian process over the answers of a trial, for conditional spaces too. The distance between two trials is
the sum over answers of how differently they gave them, each with a weight fitted to the trials; a decision
that one of them was not asked stands in the middle. Values are compared on the logarithm of the distance to
the best one: among architectures the good ones are close together, and the bad ones are bad in many ways.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from scipy.special import ndtr

from optnas.answers import key
from optnas.surrogate.gaussian_process import NOISE, GaussianProcess
from optnas.surrogate.standing import Observed, observe, standings

Array = NDArray[np.float64]
Params = Mapping[str, Any]
MOST_TRIALS = 300
"""Predictions rest on at most so many trials."""

DOUBT = 1.5
"""How much larger errors are than the kernel says, which is but one of those that fit the trials."""

MARGIN = 0.2
"""What counts as an improvement, in standard deviations of the values as they are modeled."""

# For the expectation of a function of a standard normal (Gauss and Hermite).
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()

GAIN = 0.05
"""How much features must lower the mean of -log of the density that trials are predicted with, each from all
others. Where the answers say it all, chance makes smaller differences."""

Features = Callable[[Params], Mapping[str, float]]
"""Numbers about an architecture that cost no training, by name: FLOPs, parameters, zero-cost scores."""


class Surrogate:
    """Predicts the values of trials from those of other trials, or from what these have reported so far.

    Where all that is known are values of COMPLETE trials, these are modeled. Where others have reported (they
    stopped early, run or are paused), all are ranked, two by two at their last common report, and how they
    stand is modeled (`standings`). Infeasible trials (a constraint is above 0) and FAIL ones do not count.

    Args:
        direction: Of the study.
        features: More about an architecture than its answers, if given; called with the params of each trial
            and of each candidate.
        headroom: How much better than the best trial a value can be, as a share of the distance from there to
            the median. Near its end, values are told apart best.
        noise: What is believed of single values; see `GaussianProcess.fit`.

    Attributes:
        looks: Once it is fitted, whether it looks at features.
    """

    def __init__(
        self,
        direction: StudyDirection = StudyDirection.MINIMIZE,
        features: Features | None = None,
        headroom: float = 0.2,
        noise: tuple[float, float] = NOISE,
    ) -> None:
        self._noise = noise
        self._headroom = headroom
        self._sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
        self._features = features

    def fit(self, trials: Sequence[FrozenTrial]) -> Surrogate:
        """Learn from trials; those that tell nothing about values are ignored.

        Raises:
            ValueError: there are fewer than two trials to learn from.
        """
        observed = observe(trials, self._sign)
        if len(observed) < 2:
            raise ValueError(
                f"A surrogate needs two feasible trials with values or reports; among {len(trials)} trials "
                f"there are {len(observed)}. Run more trials first."
            )
        self._warp, latent = _warped(observed, self._headroom)
        kept = _most_telling(latent)[:MOST_TRIALS]
        params = [observed[i].trial.params for i in kept]
        models: list[tuple[GaussianProcess, Encoder]] = []
        for features in dict.fromkeys((None, self._features)):
            encoder = Encoder([o.trial for o in observed], features)
            if not models or encoder.has_features:
                models.append(
                    (GaussianProcess().fit(encoder.encode(params), latent[kept], noise=self._noise), encoder)
                )
        plain, richer = models[0], models[-1]
        wins = plain[0].surprise() - richer[0].surprise() > GAIN
        self._gp, self._encoder = richer if wins else plain
        self._plain = plain
        self.looks = wins
        self._best = float(self._gp.fitted().min())
        return self

    def predict(self, params: Sequence[Params]) -> tuple[Array, Array]:
        """Mean and standard deviation of the values, without noise, each `(n,)`, in the study's units."""
        mean, std = self._warp.to_losses(*self._gp.predict(self._encoder.encode(params)))
        return self._sign * mean, std

    def draws(self, params: Sequence[Params], n: int, seed: int) -> Array:
        """Values, without noise, that all may have at once, `(n, len(params))`."""
        return self._sign * self._warp.to_loss(self._gp.draws(self._encoder.encode(params), n, seed))

    def without_features(self) -> Surrogate:
        """A copy that goes by the answers alone: in no time, and not as well."""
        other = copy.copy(self)
        (other._gp, other._encoder), other.looks = self._plain, False
        other._best = float(other._gp.fitted().min())
        return other

    def outcomes(self, params: Sequence[Params]) -> tuple[Array, Array]:
        """Values that trials may come to, `(n, k)`, and the weight of each in an expectation, `(k,)`.

        They are more doubtful than those of `predict`, by `DOUBT`: for who chooses by them.
        """
        mean, std = self._gp.predict(self._encoder.encode(params))
        points = self._warp.to_loss(mean[:, None] + DOUBT * std[:, None] * _NODES)
        return self._sign * points, _WEIGHTS

    def believe(self, running: Sequence[Params]) -> Surrogate:
        """A copy that believes trials still running to end as predicted.

        So what they will tell is not asked for again (the kriging believer, Ginsbourger et al. 2010).
        """
        if not running:
            return self
        other = copy.copy(self)
        other._gp = self._gp.believe(self._encoder.encode(running))
        gp, encoder = self._plain
        other._plain = gp.believe(encoder.encode(running)) if self.looks else other._gp, encoder
        return other

    def improvement(self, params: Sequence[Params]) -> Array:
        """Logarithm of the expected improvement over the best trial (Jones et al. 1998), `(n,)`.

        It is taken on the scale on which values are modeled, and what is less than `MARGIN` better is none
        (Lizotte 2008): else variations of the best trial that change nothing are tried one by one.
        """
        mean, std = self._gp.predict(self._encoder.encode(params))
        std *= DOUBT
        return _log_improvement((self._best - MARGIN - mean) / std) + np.log(std)


def _most_telling(losses: Array) -> NDArray[np.intp]:
    """All indices, the best and the latest taking turns."""
    turns = np.column_stack([np.argsort(losses, kind="stable"), np.arange(len(losses))[::-1]]).ravel()
    _, first = np.unique(turns, return_index=True)
    return turns[np.sort(first)]


def _warped(observed: Sequence[Observed], headroom: float) -> tuple[_Warp | _Standings, Array]:
    """How losses are modeled, and those of the trials so: lower is better."""
    finals = np.array([np.nan if o.final is None else o.final for o in observed])
    if np.isfinite(finals).all():
        warp = _Warp(finals, headroom)
        return warp, warp.to_latent(finals)
    scores = standings(observed)
    return _Standings(observed, scores), scores


class _Warp:
    """Losses to the standardized logarithm of their distance to a little below the best, and back."""

    def __init__(self, losses: Array, headroom: float) -> None:
        best, middle = float(losses.min()), float(np.median(losses))
        # The median may be the best, or all may be equal.
        spread = max(middle - best, 0.01 * float(losses.std())) or 1.0
        self._origin = best - headroom * spread
        logs = np.log(losses - self._origin)
        self._mean, self._std = float(logs.mean()), float(logs.std()) or 1.0

    def to_latent(self, losses: Array) -> Array:
        latent: Array = (np.log(losses - self._origin) - self._mean) / self._std
        return latent

    def to_loss(self, latent: Array) -> Array:
        losses: Array = np.exp(latent * self._std + self._mean) + self._origin
        return losses

    def to_losses(self, mean: Array, std: Array) -> tuple[Array, Array]:
        """Moments of the log-normal distribution whose logarithm has these moments."""
        mean, variance = mean * self._std + self._mean, (std * self._std) ** 2
        expected = np.exp(mean + variance / 2)
        return expected + self._origin, expected * np.sqrt(np.expm1(variance))


class _Standings:
    """Standings to losses, by those of the trials that have one; where fewer than two have, by reports."""

    def __init__(self, observed: Sequence[Observed], scores: Array) -> None:
        ended = np.array([o.final is not None and np.isfinite(o.final) for o in observed])
        known = ended if ended.sum() > 1 else np.array([len(o.best) > 0 for o in observed])
        losses = [
            o.best[-1] if o.final is None else o.final for o, use in zip(observed, known, strict=True) if use
        ]
        self._scores, self._losses = np.sort(scores[known]), np.sort(np.array(losses))

    def to_losses(self, mean: Array, std: Array) -> tuple[Array, Array]:
        """Mean and standard deviation, of a normal distribution of the standing."""
        points = self.to_loss(mean[:, None] + std[:, None] * _NODES)
        expected = points @ _WEIGHTS
        return expected, np.sqrt((points - expected[:, None]) ** 2 @ _WEIGHTS)

    def to_loss(self, scores: Array) -> Array:
        losses: Array = np.interp(scores, self._scores, self._losses)
        return losses


class Encoder:
    """Params to rows: two trials are as different as their rows are apart, column by column.

    There is a column for each answer of a categorical decision and one for a number, so that the surrogate
    can learn that one answer of one decision is special; for each family, the decisions that have the same
    distribution (operations of the edges of a cell, widths of layers), the sums of these columns, which say
    how often an answer was given and tell much from few trials; and one for each feature.
    """

    def __init__(self, trials: Sequence[FrozenTrial], features: Features | None) -> None:
        distributions: dict[str, BaseDistribution] = {}
        for trial in trials:
            distributions |= trial.distributions
        self._columns: dict[str, Callable[[Any], tuple[int, float]]] = {}
        self._first: dict[str, int] = {}
        self._width = 0
        for name, distribution in distributions.items():
            self._first[name] = self._width
            self._columns[name] = _column(distribution, self._width)
            self._width += _width(distribution)
        self._sums = self._sum_matrix(distributions)
        self._features = None if features is None else _Standardized(features, trials)

    @property
    def has_features(self) -> bool:
        """Whether any feature differs between the trials."""
        return self._features is not None and bool(self._features.names)

    def encode(self, params: Sequence[Params]) -> Array:
        rows = np.zeros((len(params), self._width))
        for row, answers in zip(rows, params, strict=True):
            for name, value in answers.items():
                if name in self._columns:
                    column, number = self._columns[name](value)
                    row[column] = number
        parts = [rows, rows @ self._sums]
        if self._features is not None:
            parts.append(self._features.of(params))
        return np.hstack(parts)

    def _sum_matrix(self, distributions: Mapping[str, BaseDistribution]) -> Array:
        """What rows are multiplied with to get the sums of each family."""
        families = _families(distributions)
        widths = [_width(distributions[names[0]]) for names in families]
        matrix = np.zeros((self._width, sum(widths)))
        start = 0
        for names, width in zip(families, widths, strict=True):
            for name in names:
                matrix[self._first[name] + np.arange(width), start + np.arange(width)] = 1.0
            start += width
        return matrix


class _Standardized:
    """Features as columns of mean 0 and variance 1 over the trials; what is not known is 0.

    One that is the same for all trials says nothing, and of those that are equal one is enough.
    """

    def __init__(self, features: Features, trials: Sequence[FrozenTrial]) -> None:
        self._features = features
        known = [features(trial.params) for trial in trials]
        self.names: list[str] = []
        moments: dict[bytes, tuple[float, float]] = {}
        for name in sorted({name for row in known for name in row}):
            numbers = np.array([row.get(name, np.nan) for row in known], float)
            center, scale = float(np.nanmean(numbers)), float(np.nanstd(numbers))
            if scale <= 1e-9 * (1 + abs(center)):
                continue
            column = np.round((numbers - center) / scale, 6).tobytes()
            if column not in moments:
                moments[column] = center, scale
                self.names.append(name)
        self._center, self._scale = np.array(list(moments.values())).reshape(-1, 2).T

    def of(self, params: Sequence[Params]) -> Array:
        rows = [self._features(p) for p in params]
        table = np.array([[row.get(name, np.nan) for name in self.names] for row in rows], float)
        columns: Array = np.nan_to_num((table.reshape(len(rows), -1) - self._center) / self._scale)
        return columns


def _column(distribution: BaseDistribution, first: int) -> Callable[[Any], tuple[int, float]]:
    """What an answer writes: into which column which number. No answer is 0 everywhere."""
    if isinstance(distribution, CategoricalDistribution):
        # Two different answers are 1 apart, an answer and no answer 1/2.
        known = {key(choice): (first + i, 0.5**0.5) for i, choice in enumerate(distribution.choices)}
        return lambda value: known[key(value)]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        low, high = math.log(low), math.log(high)
        return lambda value: (first, (math.log(value) - low) / (high - low or 1.0) - 0.5)
    return lambda value: (first, (value - low) / (high - low or 1.0) - 0.5)


def _width(distribution: BaseDistribution) -> int:
    return len(distribution.choices) if isinstance(distribution, CategoricalDistribution) else 1


def _families(distributions: Mapping[str, BaseDistribution]) -> list[list[str]]:
    """Names of decisions with the same distribution, where there are several."""
    families: dict[str, list[str]] = {}
    for name, distribution in distributions.items():
        families.setdefault(repr(distribution), []).append(name)
    return [names for names in families.values() if len(names) > 1]


def _log_improvement(z: Array) -> Array:
    """log(E[max(z + normal, 0)]), accurate far below 0 where the expectation underflows."""
    near, far = np.maximum(z, -30.0), np.minimum(z, -30.0)
    expectation = np.exp(-0.5 * near**2) / np.sqrt(2 * np.pi) + near * ndtr(near)
    # From the asymptotic series of Mills' ratio: the density times 1 / z**2.
    asymptote = -0.5 * far**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(-far)
    log_improvement: Array = np.where(z > -30.0, np.log(expectation), asymptote)
    return log_improvement
