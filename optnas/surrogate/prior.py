"""What finished studies on other data let expect of an architecture.

Values are mapped to normal scores in each study, and a Gaussian process is fitted to the scores of each
(Salinas, Shen & Perrone, A Quantile-based Approach for Hyperparameter Transfer Learning, ICML 2020,
arXiv:1909.13595).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import json_to_distribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, create_trial
from scipy.optimize import nnls

from optnas import pareto
from optnas.record import TWIN_OF, Heard
from optnas.surrogate.encoder import Encoder, Params
from optnas.surrogate.gaussian_process import GaussianProcess
from optnas.surrogate.model import MOST_TRIALS, fit_process, most_telling
from optnas.surrogate.standing import observe, standings

Array = NDArray[np.float64]

FEWEST = 5
"""Trials of a study from which anything is learned."""

SENSE = 0.3, 2.5
"""A study is heard if the share of the variance of its own scores that it predicts, each from all others, is
above the first, and above the second over the root of the number of its trials: values that do not depend on
the answers come to 0.1 of a hundred trials, and seldom to 0.4 of twenty."""

PULL = 4.0
"""How strongly the weights of studies are held where nothing is known: as by so many trials."""


def hear(study: Study, objective: str = "") -> Heard:
    """What other studies can learn from this one: answers, and normal scores, of which lower is better.

    Args:
        objective: of a study of several, which; `Study.metric_names` has them.

    Raises:
        ValueError: it has no such objective, or fewer than five trials that tell anything.
    """
    names, i = study.metric_names or [], 0
    if len(study.directions) > 1:
        if objective not in names:
            known = ", ".join(names) or "they have no names"
            raise ValueError(
                f"Study {study.study_name!r} has {len(study.directions)} objectives ({known}), and none is "
                f"{objective!r}."
            )
        i = names.index(objective)
    sign = -1.0 if study.directions[i] == StudyDirection.MAXIMIZE else 1.0
    trials = [trial for trial in study.get_trials(deepcopy=False) if TWIN_OF.of(trial) is None]
    if len(study.directions) > 1:
        trials = [pareto.as_one(study, trial, i) for trial in trials]
    observed = observe(trials, sign)
    if len(observed) < FEWEST:
        raise ValueError(
            f"Study {study.study_name!r} has {len(observed)} trials with values or reports; to learn from "
            f"it, it needs {FEWEST}."
        )
    scores = standings(observed)
    kept = most_telling(scores)[:MOST_TRIALS]
    told = [observed[i].trial for i in kept]
    return Heard.of(study.study_name, told, scores[kept].tolist(), objective)


@dataclass(frozen=True)
class _Model:
    process: GaussianProcess
    encoder: Encoder
    best: list[dict[str, Any]]


class Prior:
    """The expectations of all studies that were heard and make sense, side by side.

    Attributes:
        best: The most promising architectures of each study, a few of each.
    """

    def __init__(self, heard: Sequence[Heard], n_best: int = 5) -> None:
        models = [_model(one, n_best) for one in heard]
        self._models = [model for model in models if model is not None]
        self.best = [params for model in self._models for params in model.best]

    looks = False

    def leaning(self, rng: np.random.Generator) -> Prior:
        """It is of one objective."""
        return self

    def without_features(self) -> Prior:
        """It has none."""
        return self

    def __bool__(self) -> bool:
        return bool(self._models)

    def scores(self, params: Sequence[Params]) -> Array:
        """What each study lets expect, as a normal score of which lower is better, `(n, studies)`."""
        found = [model.process.predict(model.encoder.encode(params))[0] for model in self._models]
        return np.column_stack(found)

    def improvement(self, params: Sequence[Params]) -> Array:
        """How promising architectures are before anything was tried on these data, `(n,)`."""
        promising: Array = -self.scores(params).mean(axis=1)
        return promising

    def weigh(self, scores: Array, latent: Array) -> Array:
        """How much each study says of trials of these scores, `(n, studies)`, that came to `latent`, `(n,)`.

        Least squares of weights that are not negative, held at equal ones that sum to 1.
        """
        n_studies = scores.shape[1]
        equal = np.full(n_studies, 1 / n_studies)
        rows = np.vstack([scores - scores.mean(axis=0), np.sqrt(PULL) * np.eye(n_studies)])
        weights, _ = nnls(rows, np.r_[latent - latent.mean(), np.sqrt(PULL) * equal])
        found: Array = weights
        return found


class Priors:
    """Of a study with several objectives: the prior of each of which it was told.

    Attributes:
        of: by the name of the objective.
        best: as of a `Prior`, of each objective a few.
    """

    looks = False

    def __init__(self, heard: Sequence[Heard]) -> None:
        names = dict.fromkeys(one.objective for one in heard)
        found = {name: Prior([one for one in heard if one.objective == name]) for name in names}
        self.of = {name: prior for name, prior in found.items() if prior}
        self.best = [params for prior in self.of.values() for params in prior.best]
        self._leaning: Array = np.ones(len(self.of))

    def leaning(self, rng: np.random.Generator) -> Priors:
        """A copy that cares for the objectives as chance has it: each finds another part of a front."""
        other = copy.copy(self)
        other._leaning = rng.dirichlet(np.ones(len(self.of)))
        return other

    def without_features(self) -> Priors:
        """It has none."""
        return self

    def __bool__(self) -> bool:
        return bool(self.of)

    def improvement(self, params: Sequence[Params]) -> Array:
        """As of a `Prior`, by a weighted sum over the objectives."""
        promising: Array = self._leaning @ [prior.improvement(params) for prior in self.of.values()]
        return promising


def _model(heard: Heard, n_best: int) -> _Model | None:
    """A model of one study; None where it does not even predict itself."""
    scores = np.array(heard.scores)
    distributions = {name: json_to_distribution(text) for name, text in heard.distributions.items()}
    trials: list[FrozenTrial] = [
        create_trial(params=p, distributions={name: distributions[name] for name in p}, value=score)
        for p, score in zip(heard.params, scores, strict=True)
    ]
    variation = ((scores - scores.mean()) ** 2).sum()
    if not variation:  # all came to the same
        return None
    _, (process, encoder), _ = fit_process(trials, heard.params, scores, None)
    predicted, _ = process.left_out()
    explained = 1 - ((scores - predicted) ** 2).sum() / variation
    if explained < max(SENSE[0], SENSE[1] / len(scores) ** 0.5):
        return None
    return _Model(process, encoder, [dict(heard.params[i]) for i in np.argsort(scores)[:n_best]])
