"""What a trial would add to the front of a study with several objectives.

The expected hypervolume improvement (Emmerich et al. 2006), exactly: what no trial dominates is cut into
disjoint boxes (Lacour et al. 2017; Daulton et al., NeurIPS 2020, arXiv:2006.05078), over each of which the
expectation is a product of one factor an objective. An objective that can be computed, such as FLOPs, has no
uncertainty, and needs no model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas import pareto, private
from optnas.surrogate.encoder import Encoder, Features, Params
from optnas.surrogate.model import Surrogate
from optnas.surrogate.prior import Prior
from optnas.surrogate.standing import is_feasible

Array = NDArray[np.float64]

HEADROOM = 2.0
"""See `Surrogate`: of several objectives, the best in one of them is not all that matters."""

Costs = Callable[[Params], Mapping[str, float]]
"""Objectives of an architecture that are known exactly without a trial, by name; others are left out."""


class FrontSurrogate:
    """Predicts by how much a trial would enlarge the hypervolume of a study's front.

    Args:
        study: Gives directions and names of the objectives.
        features: See `Surrogate`.
        costs: What is known exactly; every other objective has a `Surrogate` of its own.
        priors: What studies on other data let expect, by the name of an objective.
    """

    def __init__(
        self,
        study: Study,
        features: Features | None = None,
        costs: Costs | None = None,
        priors: Mapping[str, Prior] | None = None,
    ) -> None:
        self._priors = priors or {}
        self._study = study
        self._directions = study.directions
        self._names = study.metric_names or [str(i) for i in range(len(study.directions))]
        self._signs = pareto.signs(study)
        self._features = features
        self._costs = costs or (lambda params: {})
        self._estimates: dict[int, Estimate] = {}
        self._by_answers = False
        self._reference: Array = np.zeros(0)

    def fit(self, trials: Sequence[FrozenTrial]) -> FrontSurrogate:
        """Learn from trials; of PRUNED and running ones what they reported of each objective.

        Raises:
            ValueError: fewer than two are COMPLETE, with finite values, and keep all limits.
        """
        complete = [t for t in trials if t.state == TrialState.COMPLETE and is_feasible(t)]
        complete = [t for t in complete if np.isfinite(t.values).all()]
        if len(complete) < 2:
            raise ValueError(
                f"A surrogate of a front needs two COMPLETE, feasible trials; there are {len(complete)}. Run "
                "more trials first."
            )
        self._set_losses(np.array([t.values for t in complete]) * self._signs)
        known = self._costs(complete[0].params)
        self._estimates = {
            i: Estimate(complete, np.array([t.values[i] for t in complete]))
            for i, name in enumerate(self._names)
            if name in known
        }
        self._models = {
            i: Surrogate(self._directions[i], self._features, HEADROOM, prior=self._priors.get(name)).fit(
                [pareto.as_one(self._study, t, i) for t in trials]
            )
            for i, name in enumerate(self._names)
            if name not in known
        }
        self._worst = self._losses.max(axis=0)
        return self

    @property
    def looks(self) -> bool:
        """Once it is fitted, whether it has costs to compute or looks at features."""
        return bool(self._estimates) or any(model.looks for model in self._models.values())

    def without_features(self) -> FrontSurrogate:
        """A copy that goes by the answers alone, costs included: in no time, and not as well."""
        other = copy.copy(self)
        other._models = {i: model.without_features() for i, model in self._models.items()}
        other._by_answers = True
        other._worst = self._worst.copy()
        return other

    def believe(self, running: Sequence[Params]) -> FrontSurrogate:
        """A copy that believes trials still running to end as predicted, as `Surrogate.believe`."""
        if not running:
            return self
        other = copy.copy(self)
        expected = np.column_stack([points @ weights for points, weights in self._outcomes(running)])
        other._set_losses(np.vstack([self._losses, expected[np.isfinite(expected).all(axis=1)]]))
        other._models = {i: model.believe(running) for i, model in self._models.items()}
        return other

    def improvement(self, params: Sequence[Params]) -> Array:
        """Logarithm of the expected hypervolume improvement, `(n,)`; -inf where a cost is not known."""
        outcomes = list(self._outcomes(params))
        self._settle(outcomes)
        lower, upper = self._boxes
        volume = np.ones((len(params), len(lower)))
        for i, (points, weights) in enumerate(outcomes):
            volume *= _shortfall(upper[:, i], points, weights) - _shortfall(lower[:, i], points, weights)
        expected = np.nan_to_num(volume.sum(axis=1), nan=0.0)
        with np.errstate(divide="ignore"):
            logarithm: Array = np.log(expected)
        return logarithm

    def _settle(self, outcomes: Sequence[tuple[Array, Array]]) -> None:
        """Cut what no trial dominates into boxes, up to the worst of all trials and of known costs.

        The worst on the front would be too little: a lucky trial, or the first ones, would then say how much
        the best network may cost, and a search for accuracy and latency would stay with fast networks.
        """
        for i, (points, _) in enumerate(outcomes):
            if i not in self._models:
                self._worst[i] = np.nanmax(np.append(points, self._worst[i]))
        reference = pareto.reference_point(np.vstack([self._losses, self._worst]))
        if not np.array_equal(reference, self._reference):
            self._reference, self._boxes = reference, private.open_boxes(self._losses, reference)

    def _set_losses(self, losses: Array) -> None:
        self._losses = losses
        self._reference = np.zeros(0)  # that no boxes are of yet

    def _outcomes(self, params: Sequence[Params]) -> Iterator[tuple[Array, Array]]:
        """Of each objective, losses that trials may come to, `(n, k)`, and their weights, `(k,)`."""
        known = [self._costs(p) for p in params] if self._estimates and not self._by_answers else []
        for i, name in enumerate(self._names):
            if i in self._models:
                values, weights = self._models[i].outcomes(params)
            elif self._by_answers:
                values, weights = self._estimates[i](params)[:, None], np.ones(1)
            else:
                values, weights = np.array([[costs.get(name, np.nan)] for costs in known]), np.ones(1)
            yield self._signs[i] * values, weights


class Estimate:
    """A cost from the answers: linear, on the logarithm where all are above 0, with some shrinking."""

    def __init__(self, trials: Sequence[FrozenTrial], costs: Array) -> None:
        self._encoder = Encoder(trials, None)
        self._log = bool((costs > 0).all())
        rows = self._encoder.encode([t.params for t in trials])
        self._center = rows.mean(axis=0)
        rows = rows - self._center
        y = np.log(costs) if self._log else costs
        self._mean = float(y.mean())
        shrunk = rows @ rows.T + 0.1 * np.eye(len(rows))
        self._weights = rows.T @ np.linalg.solve(shrunk, y - self._mean)

    def __call__(self, params: Sequence[Params]) -> Array:
        found: Array = self._mean + (self._encoder.encode(params) - self._center) @ self._weights
        return np.exp(found) if self._log else found


def _shortfall(bounds: Array, points: Array, weights: Array) -> Array:
    """By how much a loss is below each bound, on average, `(n, n_bounds)`; it is never below -inf."""
    average: Array = np.maximum(bounds[None, :, None] - points[:, None, :], 0.0) @ weights
    return average
