"""Two numbers of a trial against each other: facts, metrics, the value; and which trials nothing beats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas import record
from optnas.analysis.trials import finished, maximizes, objective_names, objective_target

Quantity = str | Callable[[FrozenTrial], float]
"""A name, as `quantity` reads it, or a function of a trial."""


_LABELS = {
    "n_params": "parameters",
    "flops": "FLOPs per sample",
    "duration": "duration of the estimate (s)",
}


@dataclass(frozen=True)
class Axes:
    """Two numbers of a trial, what to call them, and whether larger is better."""

    x: Quantity
    y: Quantity
    labels: tuple[str, str]
    up: tuple[bool, bool]

    @classmethod
    def of(
        cls, study: Study, x: Quantity | None, y: Quantity | None, maximize: tuple[bool, bool] | None
    ) -> Axes:
        """With the defaults of `pareto_front`."""
        names = objective_names(study)
        if len(names) > 1 and x is None and y is None:
            up = maximize or (maximizes(study, 0), maximizes(study, 1))
            return cls(objective_target(0), objective_target(1), (names[0], names[1]), up)
        x, y = x or "n_params", y or "value"
        return cls(x, y, (_label(x, names), _label(y, names)), maximize or (False, maximizes(study)))


def _label(what: Quantity, names: Sequence[str]) -> str:
    if callable(what):
        return getattr(what, "__name__", "")
    return names[0] if what == "value" else _LABELS.get(what, what)


def quantity(trial: FrozenTrial, what: Quantity) -> float:
    """A number of a trial: "value", a fact such as "n_params" or "flops", or a metric; NaN where absent."""
    if callable(what):
        return float(what(trial))
    if what == "value":
        return float("nan") if not trial.values else trial.values[0]
    return float(_numbers(trial).get(what, math.nan))


def _numbers(trial: FrozenTrial) -> dict[str, float]:
    """What the trial recorded: its metrics, its facts, and numbers that the user attached."""
    theirs = {k: n for k, v in trial.user_attrs.items() if (n := record.amount(v)) is not None}
    ours = {**record.facts(trial), **record.metrics(trial)}
    return {**{k: v for k, v in theirs.items() if not k.startswith(record.PREFIX)}, **ours}


def points(study: Study, x: Quantity, y: Quantity) -> list[tuple[float, float, FrozenTrial]]:
    """(x, y, trial) of COMPLETE, feasible trials where both are finite; twins are not repeated.

    Raises:
        ValueError: no trial has both numbers; the message lists what trials have.
    """
    trials = [t for t in finished(study) if record.TWIN_OF.of(t) is None]
    found = [(quantity(t, x), quantity(t, y), t) for t in trials]
    found = [point for point in found if math.isfinite(point[0]) and math.isfinite(point[1])]
    if trials and not found:
        raise ValueError(
            f"No COMPLETE trial of study {study.study_name!r} has both {x!r} and {y!r}. "
            f"Choose x= and y= among {', '.join(quantities(trials))}."
        )
    return found


def quantities(trials: Sequence[FrozenTrial]) -> list[str]:
    """Names of the numbers that these trials have."""
    names = {"value": None}
    for trial in trials:
        names |= dict.fromkeys(_numbers(trial))
    return list(names)


def best_trials(study: Study) -> list[FrozenTrial]:
    """COMPLETE, feasible trials with finite values than which none other is as good in all objectives and
    better in one: `study.best_trials`, in which an infinite value hides all others."""
    trials = [trial for trial in finished(study) if all(map(math.isfinite, trial.values))]
    signs = [1.0 if maximizes(study, i) else -1.0 for i in range(len(study.directions))]
    values = np.array([trial.values for trial in trials]).reshape(-1, len(signs)) * signs
    beaten = (((values >= v).all(axis=1) & (values > v).any(axis=1)).any() for v in values)
    return [trial for trial, worse in zip(trials, beaten, strict=True) if not worse]


def pareto_front(
    study: Study,
    x: Quantity | None = None,
    y: Quantity | None = None,
    *,
    maximize: tuple[bool, bool] | None = None,
) -> list[FrozenTrial]:
    """Trials that no other trial beats in both numbers, in the order of x.

    `x`, `y`: "value", a fact, a metric, or a function of a trial; by default "n_params" and "value", and of a
    study with several objectives its first two. `maximize`: whether larger is better, of x and of y; unless
    given, less of x is better, and y is read as the study's first objective.

    Raises:
        ValueError: no trial has both numbers.
    """
    axes = Axes.of(study, x, y, maximize)
    up = axes.up
    ordered = sorted(
        points(study, axes.x, axes.y),
        key=lambda p: (-p[0] if up[0] else p[0], -p[1] if up[1] else p[1], p[2].number),
    )
    front: list[tuple[float, float, FrozenTrial]] = []
    for point in ordered:
        if not front or (point[1] > front[-1][1] if up[1] else point[1] < front[-1][1]):
            front.append(point)
    return [trial for _, _, trial in sorted(front, key=lambda p: p[0])]
