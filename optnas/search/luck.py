"""How much of a winner's score is luck: what the leaders of a search are expected to score."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, create_trial

from optnas import record
from optnas.objective import Objective
from optnas.strategy.base import is_sound, loss

FEWEST = 8
"""With fewer complete trials it cannot be told how much of their values is luck."""

MOST = 30
"""How many of the best trials are compared; no other trial counts as the best of the study."""

NOISE = (-2.0, 1.5)
"""The prior for the noise of single trainings: the logarithm of its variance, if all values have variance 1.
Trainings anew, if there are some, soon outweigh it."""

HEADROOM = 1.0
"""See `Surrogate`. Closer to the best value, its logarithm would take the luck of the luckiest for merit."""

DRAWS = 4000


@dataclass(frozen=True)
class Leader:
    """One of the best trials of a study.

    Attributes:
        trial: COMPLETE, and no twin.
        expected: The score that another training of it is expected to get: less than the luckiest got.
        probability: That it is really the best of the study. Where several are about equal, each has a part.
        scatter: By how much single trainings of the best differ from what is expected of them: a standard
            deviation, estimated from the noise that the surrogate sees. Where it sees a dozen trials only,
            it may be off by a factor of three.
        near_best: Probability that no other of the study is better by more than `scatter`.

    The last three are NaN where too few trials are complete to tell.
    """

    trial: FrozenTrial
    expected: float
    probability: float = math.nan
    scatter: float = math.nan
    near_best: float = math.nan


def leaders(study: optuna.Study, objective: Objective) -> list[Leader]:
    """The best trials of a study of one value, the best expected score first.

    The best of many single trainings is partly the luckiest. A surrogate of all complete trials, and of their
    trainings anew (`Best.retrain`), estimates how much single trainings scatter, and what similar networks
    got.
    """
    sound = [t for t in study.get_trials() if is_sound(t) and record.TWIN_OF.of(t) is None]
    sound.sort(key=lambda trial: loss(study, trial))
    values = [float(trial.values[0]) for trial in sound]
    [name] = objective.values
    exact = not objective.estimator.is_noisy or any(name in record.facts(trial) for trial in sound)
    # Scores of weights that other trials trained do not tell what to expect of a training from scratch.
    exact = exact or any(record.WEIGHTS.of(trial) is not None for trial in sound)
    if exact or len(sound) < FEWEST or len(set(values)) < 2:
        return [Leader(trial, value) for trial, value in zip(sound, values, strict=True)]
    from optnas.surrogate.model import Surrogate  # only here: it takes scipy, which takes a second to import

    anew = [_like(trial, run[name]) for trial in sound for run in runs_anew(study, trial) if name in run]
    told = [_like(trial, value) for trial, value in zip(sound, values, strict=True)]
    best = sound[:MOST]
    surrogate = Surrogate(study.direction, headroom=HEADROOM, noise=NOISE).fit([*told, *anew])
    params = [trial.params for trial in best]
    sign = -1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1.0
    losses = sign * surrogate.draws(params, DRAWS, seed=0)
    expected = sign * losses.mean(axis=0)
    scatter = float(np.median(surrogate.scatter(params)))
    wins = np.bincount(losses.argmin(axis=1), minlength=len(best)) / DRAWS
    near = (losses <= losses.min(axis=1, keepdims=True) + scatter).mean(axis=0)
    columns = zip(best, expected.tolist(), wins.tolist(), near.tolist(), strict=True)
    found = [Leader(trial, mean, won, scatter, close) for trial, mean, won, close in columns]
    return sorted(found, key=lambda leader: sign * leader.expected)


def runs_anew(study: optuna.Study, trial: FrozenTrial) -> list[dict[str, float]]:
    """The metrics of a trial's trainings anew with as many epochs as in the search."""
    return record.retrained(study, trial.number, None)


def _like(trial: FrozenTrial, value: float) -> FrozenTrial:
    """Its answers and a value, without its reports, which belong to the training in the search."""
    return create_trial(params=trial.params, distributions=trial.distributions, value=value)
