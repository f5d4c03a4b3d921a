"""Two numbers of a trial against each other: facts, metrics, the value; and which trials nothing beats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import FunctionType

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas import pareto, private, record
from optnas.analysis.trials import finished, maximizes, objective_names, objective_target
from optnas.record import FactKind, Target

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
    better in one: `study.best_trials`, but without twins, and an infinite value does not hide all others."""
    return pareto.front_trials(study)


@dataclass(frozen=True)
class Hypervolumes:
    """The hypervolume that the front dominates, after each trial that has values.

    Attributes:
        reference: the corner up to which it is counted, a value for each objective.
        trials: the numbers of the trials, as they ended.
        volumes: after each of them.
    """

    reference: Mapping[str, float]
    trials: tuple[int, ...]
    volumes: tuple[float, ...]


def hypervolumes(study: Study, reference: Mapping[str, float] | None = None) -> Hypervolumes:
    """The hypervolume of the front over time.

    Args:
        reference: a value for each objective, by name, worse than those that matter. By default the worst of
            each objective that the study has, and a tenth of its span beyond: give one reference to compare
            searches.

    Raises:
        ValueError: the study has one objective, no trial has values, or `reference` is not one number for
            each objective.

    Examples:
        >>> volumes = optnas.analysis.hypervolumes(several, reference={"score": 0, "flops": 1e7})
    """
    names = objective_names(study)
    trials = sorted(pareto.valued(study), key=lambda t: (t.datetime_complete or datetime.min, t.number))
    if len(names) < 2 or not trials:
        raise ValueError(
            f"Study {study.study_name!r} has {len(names)} objective(s) and {len(trials)} trials with values; "
            "a hypervolume needs at least two and one."
        )
    if reference is not None and reference.keys() != set(names):
        raise ValueError(f"reference={dict(reference)} must have one number for each of {', '.join(names)}.")
    losses, signs = pareto.losses(study, trials), pareto.signs(study)
    corner = (
        pareto.reference_point(losses)
        if reference is None
        else np.array([reference[name] for name in names]) * signs
    )
    volumes = tuple(private.hypervolume(losses[: n + 1], corner) for n in range(len(trials)))
    named = dict(zip(names, (corner * signs).tolist(), strict=True))
    return Hypervolumes(named, tuple(t.number for t in trials), volumes)


def distance_to_front(study: Study) -> Target:
    """By how much all values of a trial must improve until no other dominates it, as shares of their spans.

    It is 0 on the front (the additive epsilon of Zitzler et al. 2003), and a `target` for `importance`: which
    decisions bring a network close to the front?

    Examples:
        >>> distance = optnas.analysis.distance_to_front(several)
        >>> min(distance(trial) for trial in several.trials)
        0.0
    """
    trials = pareto.valued(study)
    losses, signs = pareto.losses(study, trials), pareto.signs(study)
    if not trials:
        return lambda trial: math.nan
    span = np.ptp(losses, axis=0)
    scale = np.where(span > 0, span, 1.0)
    front = pareto.losses(study, pareto.front_trials(study)) / scale

    def distance(trial: FrozenTrial) -> float:
        if not trial.values or not np.isfinite(trial.values).all():
            return math.nan
        return float(max(0.0, (np.array(trial.values) * signs / scale - front).min(axis=1).max()))

    return distance


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

    Examples:
        >>> cheapest = optnas.analysis.pareto_front(study, "flops", "value")[0]
        >>> optnas.record.facts(cheapest)["flops"]
        4632
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
