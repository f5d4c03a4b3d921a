"""A model of finished trials with uncertainty: what would this architecture score?

A Gaussian process over the answers of a trial, for conditional spaces too. The distance between two trials is
the sum over answers of how differently they gave them, each with a weight fitted to the trials; a decision
that one of them was not asked stands in the middle. Values are compared on the logarithm of the distance to
the best one: among architectures the good ones are close together, and the bad ones are bad in many ways.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from scipy.special import ndtr

from optnas.surrogate.encoder import Encoder, Features, Params
from optnas.surrogate.gaussian_process import NOISE, GaussianProcess
from optnas.surrogate.screened import screen
from optnas.surrogate.standing import Observed, by_report, observe, standings

if TYPE_CHECKING:
    from optnas.surrogate.prior import Prior

Array = NDArray[np.float64]
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


BELIEF = 0.5
"""What is believed of the share of what other studies say that holds here: 1, with this deviation."""


class Surrogate:
    """Predicts the values of trials from those of other trials, or from what these have reported so far.

    Where all that is known are values of COMPLETE trials, these are modeled. Where others have reported (they
    stopped early, run or are paused), all are ranked, two by two at their last common report, and how they
    stand is modeled: at the end, and where trials stopped (`by_report`), so that the surrogate learns what
    early reports say of the end. Infeasible trials (a constraint is above 0) and FAIL ones do not count.

    Args:
        direction: Direction of the study.
        features: More about an architecture than its answers, if given; called with the params of each trial
            and of each candidate.
        headroom: How much better than the best trial a value can be, as a share of the distance from there to
            the median. Near its end, values are told apart best.
        noise: Prior of the noise of single values; see `GaussianProcess.fit`.
        prior: What studies on other data predict. It becomes the mean of the process, in full, by half or not
            at all, whichever predicts each trial best from all others.

    Attributes:
        looks: Whether the fitted surrogate uses the features.

    Examples:
        >>> surrogate = optnas.surrogate.Surrogate(study.direction)
        >>> fitted = surrogate.fit(study.trials)
    """

    def __init__(
        self,
        direction: StudyDirection = StudyDirection.MINIMIZE,
        features: Features | None = None,
        headroom: float = 0.2,
        noise: tuple[float, float] = NOISE,
        prior: Prior | None = None,
    ) -> None:
        self._prior = prior
        self._noise = noise
        self._headroom = headroom
        self._sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
        self._features = features

    def fit(self, trials: Sequence[FrozenTrial]) -> Surrogate:
        """Learn from trials; those that tell nothing about values are ignored.

        Raises:
            ValueError: there are fewer than two trials to learn from.
        """
        observed, screened = observe(trials, self._sign), screen(trials, self._sign)
        whole = [o.trial for o in observed]
        known = list({id(trial): trial for trial in (*whole, *screened.trials)}.values())
        if len(known) < 2:
            raise ValueError(
                f"A surrogate needs two feasible trials with values or reports; among {len(trials)} trials "
                f"there are {len(known)}. Run more trials first."
            )
        warp, rows, latent, levels = _warped(observed, self._headroom, apart=not screened.trials)
        self._warp: _Warp | _Standings | _Placed = warp
        told = [whole[i] for i in rows]
        if screened.trials:
            self._warp = placed = _Placed(warp, *screened.place(whole))
            latent = np.r_[placed.placed(latent), screened.scores]
            told, levels = [*told, *screened.trials], np.r_[levels, np.zeros(len(screened.trials))]
        kept = (most_telling(latent) if screened.trials else _in_turns(latent, levels))[:MOST_TRIALS]
        params, levels = [told[i].params for i in kept], levels[kept]
        several = bool((levels < 1).any())
        partial = (levels, np.array([told[i].number for i in kept])) if several else None
        self._weights, expected = np.zeros(0), np.zeros(len(kept))
        if self._prior is not None:
            heard = self._prior.scores(params)
            self._weights = self._prior.weigh(heard, latent[kept])
            expected = heard @ self._weights
        fits = []
        for share in (0.0,) if self._prior is None else (1.0, 0.5, 0.0):
            fit = fit_process(
                known,
                params,
                latent[kept] - share * expected,
                self._features,
                self._noise,
                partial,
            )
            surprise = len(kept) * fit[0] + 0.5 * ((1 - share) / BELIEF) ** 2
            fits.append((surprise, share, *fit[1:]))
        _, self.share, (self._gp, self._encoder), self._plain = min(fits, key=lambda fit: fit[0])
        self.looks = self._encoder.has_features
        # What is believed of running trials later is no value to beat, so both are taken now.
        heard = self.share * expected
        self._best, self._plain_best = (
            self._to_beat(fitted, params, heard, several)
            for fitted in ((self._gp, self._encoder), self._plain)
        )
        return self

    def _to_beat(self, fitted: Fitted, params: Sequence[Params], heard: Array, several: bool) -> float:
        """The best that is known, or expected of what was only estimated in part."""
        process, encoder = fitted
        known = process.predict(encoder.encode(params))[0] if several else process.fitted()
        return float((known + heard).min())

    def _expected(self, params: Sequence[Params]) -> Array:
        """What other studies let expect, as values are modeled, `(n,)`."""
        if self._prior is None or not self.share:
            return np.zeros(len(params))
        expected: Array = self.share * (self._prior.scores(params) @ self._weights)
        return expected

    def _latent(self, params: Sequence[Params]) -> tuple[Array, Array]:
        mean, std = self._gp.predict(self._encoder.encode(params))
        return mean + self._expected(params), std

    def predict(self, params: Sequence[Params]) -> tuple[Array, Array]:
        """Mean and standard deviation of the values, without noise, each `(n,)`, in the study's units."""
        mean, std = self._warp.to_losses(*self._latent(params))
        return self._sign * mean, std

    def scatter(self, params: Sequence[Params]) -> Array:
        """By how much single values of an architecture differ: a standard deviation, `(n,)`."""
        mean, _ = self._latent(params)
        return self._warp.to_losses(mean, np.full(len(params), self._gp.noise))[1]

    def promise(self, params: Sequence[Params]) -> Array:
        """How good architectures are expected to be, as values are modeled: larger for the better, `(n,)`.

        It needs no value, as `predict` does: cheap scores will do.
        """
        promise: Array = -self._latent(params)[0]
        return promise

    def draws(self, params: Sequence[Params], n: int, seed: int) -> Array:
        """Values, without noise, that all may have at once, `(n, len(params))`."""
        latent = self._gp.draws(self._encoder.encode(params), n, seed) + self._expected(params)
        return self._sign * self._warp.to_loss(latent)

    def without_features(self) -> Surrogate:
        """A copy that goes by the answers alone: in no time, and not as well."""
        other = copy.copy(self)
        (other._gp, other._encoder), other.looks = self._plain, False
        other._best = self._plain_best
        return other

    def outcomes(self, params: Sequence[Params]) -> tuple[Array, Array]:
        """Values that trials may come to, `(n, k)`, and the weight of each in an expectation, `(k,)`.

        They are more doubtful than those of `predict`, by `DOUBT`: for who chooses by them.
        """
        mean, std = self._latent(params)
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
        mean, std = self._latent(params)
        std *= DOUBT
        return _log_improvement((self._best - MARGIN - mean) / std) + np.log(std)


Fitted: TypeAlias = tuple[GaussianProcess, Encoder]


def fit_process(
    trials: Sequence[FrozenTrial],
    params: Sequence[Params],
    targets: Array,
    features: Features | None,
    noise: tuple[float, float] = NOISE,
    partial: tuple[Array, NDArray[np.intp]] | None = None,
) -> tuple[float, Fitted, Fitted]:
    """The surprise of a process with features if they predict better, and without if not; it; that without.

    Args:
        trials: Say what is asked.
        params: Those that `targets`, `(n,)`, are of.
        partial: Of each target whether it is a whole estimate, 1, or a cheap one, 0, or between; and the
            number of its trial, which is to be predicted from other trials. None: all are whole, one a trial.
    """
    fits: list[tuple[float, Fitted]] = []
    for seen in dict.fromkeys((None, features)):
        encoder = Encoder(trials, seen, levels=partial is not None)
        if not fits or encoder.has_features:
            levels, numbers = (1.0, None) if partial is None else partial
            process = GaussianProcess().fit(
                encoder.encode(params, levels), targets, noise=noise, groups=numbers, n_own=encoder.n_own
            )
            fits.append((process.surprise(), (process, encoder)))
    plain, richer = fits[0], fits[-1]
    best = richer if plain[0] - richer[0] > GAIN else plain
    return *best, plain[1]


def most_telling(losses: Array) -> NDArray[np.intp]:
    """All indices, the best and the latest taking turns."""
    turns = np.column_stack([np.argsort(losses, kind="stable"), np.arange(len(losses))[::-1]]).ravel()
    _, first = np.unique(turns, return_index=True)
    return turns[np.sort(first)]


def _in_turns(losses: Array, levels: Array) -> NDArray[np.intp]:
    """All indices, the most telling first; those of whole and of partial estimates take turns."""
    place = np.empty(len(losses))
    for at in (np.flatnonzero(levels == 1), np.flatnonzero(levels < 1)):
        place[at[most_telling(losses[at])]] = np.arange(len(at))
    return np.argsort(place, kind="stable")


def _warped(
    observed: Sequence[Observed], headroom: float, apart: bool
) -> tuple[_Warp | _Standings, Sequence[int], Array, Array]:
    """How losses are modeled; and of each row of what is known the index of its trial, its loss as modeled
    (lower is better), and after which share of a training that was.

    `apart`: whether a row each is made of how trials stood where others stopped early (`by_report`).
    """
    finals = np.array([np.nan if o.final is None else o.final for o in observed])
    rows, levels = list(range(len(observed))), np.ones(len(observed))
    if len(finals) and np.isfinite(finals).all():
        warp = _Warp(finals, headroom)
        return warp, rows, warp.to_latent(finals), levels
    if apart:
        rows, scores, levels = by_report(observed)
    else:
        scores = standings(observed)
    at_end = np.flatnonzero(levels == 1)
    return _Standings([observed[rows[i]] for i in at_end], scores[at_end]), rows, scores, levels


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
        ended = np.array([o.final is not None and np.isfinite(o.final) for o in observed], dtype=bool)
        known = ended if ended.sum() > 1 else np.array([len(o.best) > 0 for o in observed], dtype=bool)
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
        if not len(self._scores):
            raise ValueError("No trial has a value yet, so that none can be predicted.")
        losses: Array = np.interp(scores, self._scores, self._losses)
        return losses


class _Placed:
    """Losses among those of more networks, of which most are known by a cheap score only.

    Args:
        warp: models them for themselves.
        mean, spread: that they have among all, where normal scores of all have 0 and 1.
    """

    def __init__(self, warp: _Warp | _Standings, mean: float, spread: float) -> None:
        self._warp, self._mean, self._spread = warp, mean, spread

    def placed(self, latent: Array) -> Array:
        """How the losses are modeled that the warp models so."""
        return self._mean + self._spread * latent

    def to_loss(self, latent: Array) -> Array:
        return self._warp.to_loss((latent - self._mean) / self._spread)

    def to_losses(self, mean: Array, std: Array) -> tuple[Array, Array]:
        return self._warp.to_losses((mean - self._mean) / self._spread, std / self._spread)


def _log_improvement(z: Array) -> Array:
    """log(E[max(z + normal, 0)]), accurate far below 0 where the expectation underflows."""
    near, far = np.maximum(z, -30.0), np.minimum(z, -30.0)
    expectation = np.exp(-0.5 * near**2) / np.sqrt(2 * np.pi) + near * ndtr(near)
    # From the asymptotic series of Mills' ratio: the density times 1 / z**2.
    asymptote = -0.5 * far**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(-far)
    log_improvement: Array = np.where(z > -30.0, np.log(expectation), asymptote)
    return log_improvement
