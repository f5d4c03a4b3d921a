"""What finished studies on other data let expect of an architecture.

Values are mapped to normal scores in each study, and a Gaussian process is fitted to the scores of each
(Salinas, Shen & Perrone, A Quantile-based Approach for Hyperparameter Transfer Learning, ICML 2020,
arXiv:1909.13595).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import json_to_distribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, create_trial
from scipy.optimize import nnls

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


def hear(study: Study) -> Heard:
    """What other studies can learn from this one: answers, and normal scores, of which lower is better.

    Raises:
        ValueError: it has several objectives, or fewer than five trials that tell anything.
    """
    if len(study.directions) > 1:
        raise ValueError(f"Study {study.study_name!r} has several objectives; learn from a study of one.")
    sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
    trials = [trial for trial in study.get_trials(deepcopy=False) if TWIN_OF.of(trial) is None]
    observed = observe(trials, sign)
    if len(observed) < FEWEST:
        raise ValueError(
            f"Study {study.study_name!r} has {len(observed)} trials with values or reports; to learn from "
            f"it, it needs {FEWEST}."
        )
    scores = standings(observed)
    kept = most_telling(scores)[:MOST_TRIALS]
    return Heard.of(study.study_name, [observed[i].trial for i in kept], scores[kept].tolist())


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
