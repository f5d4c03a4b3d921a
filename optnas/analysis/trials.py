"""What a trial of a study is to its reader: how it ended and what it was worth."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from math import isfinite
from typing import Any

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

Target = Callable[[FrozenTrial], float]
"""A number of a COMPLETE trial: `lambda t: t.values[0]`, `lambda t: t.user_attrs["n_params"]`."""


class End(StrEnum):
    """How a trial ended, finer than Optuna's states."""

    COMPLETE = "complete"
    TWIN = "twin"
    PRUNED = "pruned"
    INFEASIBLE = "infeasible"
    FAILED = "failed"
    OPEN = "open"


def end(trial: FrozenTrial) -> End:
    """A twin carries another trial's value; an infeasible trial broke a constraint, for example of memory."""
    if not trial.state.is_finished():
        return End.OPEN
    if trial.state == TrialState.FAIL:
        return End.FAILED
    if "infeasible" in trial.user_attrs or any(v > 0 for v in trial.constraints.values()):
        return End.INFEASIBLE
    if trial.state == TrialState.PRUNED:
        return End.PRUNED
    return End.TWIN if "twin_of" in trial.user_attrs else End.COMPLETE


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
        original = by_number.get(trial.user_attrs.get("twin_of", -1))
        return original is not None and params_key(original) == params_key(trial)

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


def params_key(trial: FrozenTrial) -> tuple[tuple[str, Any], ...]:
    """Equal for equal params; True and 1 differ."""
    return tuple((name, answer_key(value)) for name, value in sorted(trial.params.items()))


def answer_key(value: Any) -> tuple[type, Any]:
    """Equal for equal answers; True and 1 differ."""
    return type(value), value


def same(one: Any, other: Any) -> bool:
    """Equal answers; True and 1 differ."""
    return type(one) is type(other) and bool(one == other)
