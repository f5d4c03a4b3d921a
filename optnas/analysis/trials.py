"""What a trial of a study is to its reader: how it ended and what it was worth."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas import record
from optnas.answers import key, params_key
from optnas.record import End, Target, end


def objective_value(study: Study, target: Target | None) -> Target:
    """`target`, or the value of a study with one objective.

    Raises:
        ValueError: several objectives and no `target`.
    """
    if target is not None:
        return target
    if len(study.directions) > 1:
        raise ValueError(
            f"Study {study.study_name!r} has {len(study.directions)} objectives: say which one, for example "
            "target=lambda trial: trial.values[0]."
        )
    return objective_target(0)


def objective_target(i: int) -> Target:
    """The value of the i-th objective, as a `target`."""
    return lambda trial: float("nan") if not trial.values else trial.values[i]


def finished(study: Study) -> list[FrozenTrial]:
    """COMPLETE and feasible trials, each params once per measurement: a twin that repeats the params of
    another trial says nothing new and is left out; a twin with params of its own is evidence and stays."""
    by_number = {t.number: t for t in study.get_trials(deepcopy=False)}

    def repeats(trial: FrozenTrial) -> bool:
        number = record.TWIN_OF.of(trial)
        original = None if number is None else by_number.get(number)
        return original is not None and params_key(original.params) == params_key(trial.params)

    complete = (t for t in by_number.values() if t.state == TrialState.COMPLETE)
    return [t for t in complete if end(t) is not End.INFEASIBLE and not repeats(t)]


def scored(study: Study, target: Target | None = None) -> list[FrozenTrial]:
    """`finished` trials whose `target`, or whose value, is a finite number.

    Raises:
        ValueError: several objectives and no `target`.
    """
    value = objective_value(study, target)
    return [trial for trial in finished(study) if isfinite(value(trial))]


def objective_names(study: Study) -> list[str]:
    """What each objective measures, as the study was told; else `value`, or `value 0`, `value 1`, ..."""
    n = len(study.directions)
    return study.metric_names or (["value"] if n == 1 else [f"value {i}" for i in range(n)])


def maximizes(study: Study, objective: int = 0) -> bool:
    """Whether larger values of this objective are better."""
    return study.directions[objective] == StudyDirection.MAXIMIZE


def choices_of(trials: Sequence[FrozenTrial], name: str) -> tuple[Any, ...] | None:
    """All choices that these trials had, each of which was asked this question; None of a number.

    They may differ between the trials of a study in memory.
    """
    asked = [(trial.distributions[name], trial.params[name]) for trial in trials]
    if not any(isinstance(distribution, CategoricalDistribution) for distribution, _ in asked):
        return None
    found: dict[Any, Any] = {}
    for distribution, answer in asked:
        options = distribution.choices if isinstance(distribution, CategoricalDistribution) else (answer,)
        for option in options:
            found.setdefault(key(option), option)
    return tuple(found.values())
