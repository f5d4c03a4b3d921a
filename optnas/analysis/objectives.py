"""One number of a study with several objectives, as a study: what explains one value explains it too."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Container, Sequence

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas import pareto
from optnas.analysis.front import distance_to_front
from optnas.analysis.trials import objective_names
from optnas.record import Target

FRONT = "front"
"""Beside the names of the objectives: how far from the front a trial is (`distance_to_front`)."""


def as_one(study: Study, of: str) -> Study:
    """A copy in memory whose one value is an objective of the study, or the distance to its front.

    Trials keep their numbers, and what they reported of the objective. A study of one objective is returned
    as it is, by the name of that.

    Args:
        of: the name of an objective, or "front".

    Raises:
        ValueError: the study has no such objective, or one only and hence no front.
    """
    names = objective_names(study)
    if of not in names and (of != FRONT or len(names) == 1):
        known = names if len(names) == 1 else [*names, FRONT]
        raise ValueError(f"of={of!r} must be one of {', '.join(known)}: what study {study.study_name!r} has.")
    if len(names) == 1:
        return study
    direction = StudyDirection.MINIMIZE if of not in names else study.directions[names.index(of)]
    if of in names:
        trials = [pareto.as_one(study, t, names.index(of)) for t in study.get_trials(deepcopy=False)]
    else:
        distance = distance_to_front(study)
        trials = [_with_distance(t, distance) for t in study.get_trials(deepcopy=False)]
    one = quiet_study([direction], trials, study.study_name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of set_metric_names
        one.set_metric_names([of if of in names else "distance to the front"])
    return one


class _Given(InMemoryStorage):
    """A storage of one study, whose trials are given."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._given = list(trials)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        found = [trial for trial in self._given if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return BaseStorage.get_best_trial(self, study_id)


def quiet_study(
    directions: Sequence[StudyDirection], trials: Sequence[FrozenTrial], name: str | None = None
) -> Study:
    """A study in memory with these trials, which keep their numbers; nothing is logged."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(directions=directions, study_name=name, storage=_Given(trials))
    finally:
        optuna.logging.set_verbosity(verbosity)


def _with_distance(trial: FrozenTrial, distance: Target) -> FrozenTrial:
    seen = copy.copy(trial)
    far = distance(trial)
    # Infinite where a value is: a COMPLETE trial must have one, and what explains leaves those out.
    seen.values = None if trial.values is None else [math.inf if math.isnan(far) else far]
    seen.intermediate_values = {}
    return seen
