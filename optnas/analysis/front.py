"""Two numbers of a trial against each other: facts, metrics, the value; and which trials nothing beats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas import record
from optnas.analysis.trials import finished, maximizes, objective_names, objective_target
from optnas.record import FactKind

Quantity = str | Callable[[FrozenTrial], float]
"""A name, as `quantity` reads it, or a function of a trial."""


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
        kinds = record.fact_kinds(study, study.get_trials(deepcopy=False))
        x, y = x or next(iter(kinds)), y or "value"
        labels = {name: kind.label for name, kind in kinds.items()} | {"value": names[0]}
        titles = (_title(x, labels), _title(y, labels))
        return cls(x, y, titles, maximize or (_is_better_higher(x, kinds), maximizes(study)))


def _title(what: Quantity, labels: Mapping[str, str]) -> str:
    if isinstance(what, str):
        return labels.get(what, what)
    return what.__name__ if isinstance(what, FunctionType) else ""


def _is_better_higher(what: Quantity, kinds: Mapping[str, FactKind]) -> bool:
    return isinstance(what, str) and what in kinds and kinds[what].better == "higher"


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
    trials = _measured(study)
    found = _points(trials, x, y)
    if trials and not found:
        raise ValueError(
            f"No COMPLETE trial of study {study.study_name!r} has both {x!r} and {y!r}. "
            f"Choose x= and y= among {', '.join(quantities(trials))}."
        )
    return found


def has_points(study: Study, x: Quantity | None = None, y: Quantity | None = None) -> bool:
    """Whether a trial has both numbers, by default those of `pareto_front`: without, there is no front."""
    axes = Axes.of(study, x, y, None)
    return bool(_points(_measured(study), axes.x, axes.y))


def _measured(study: Study) -> list[FrozenTrial]:
    return [trial for trial in finished(study) if record.TWIN_OF.of(trial) is None]


def _points(
    trials: Sequence[FrozenTrial], x: Quantity, y: Quantity
) -> list[tuple[float, float, FrozenTrial]]:
    found = [(quantity(t, x), quantity(t, y), t) for t in trials]
    return [point for point in found if math.isfinite(point[0]) and math.isfinite(point[1])]


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

    `x`, `y`: "value", a fact, a metric, or a function of a trial; by default the first fact that the study
    records ("n_params") and "value", and of a study with several objectives its first two. `maximize`:
    whether larger is better, of x and of y; unless given, less of x is better (but of a fact that says that
    more is), and y is read as the study's first objective.

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
