"""Two numbers of a trial against each other: facts, metrics, the value; and which trials nothing beats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from optnas.analysis.trials import finished

Quantity = str | Callable[[FrozenTrial], float]
"""A name, as `quantity` reads it, or a function of a trial."""


def quantity(trial: FrozenTrial, what: Quantity) -> float:
    """A number of a trial: "value", a fact such as "n_params" or "flops", or a metric; NaN where absent."""
    if callable(what):
        return float(what(trial))
    if what == "value":
        return float("nan") if not trial.values else trial.values[0]
    found = trial.user_attrs.get(what, trial.user_attrs.get("metrics", {}).get(what))
    return float(found) if isinstance(found, int | float) else float("nan")


def points(study: Study, x: Quantity, y: Quantity) -> list[tuple[float, float, FrozenTrial]]:
    """(x, y, trial) of COMPLETE, feasible trials where both are finite; twins are not repeated.

    Raises:
        ValueError: no trial has both numbers; the message lists what trials have.
    """
    trials = [t for t in finished(study) if "twin_of" not in t.user_attrs]
    found = [(quantity(t, x), quantity(t, y), t) for t in trials]
    found = [point for point in found if math.isfinite(point[0]) and math.isfinite(point[1])]
    if trials and not found:
        raise ValueError(
            f"No COMPLETE trial of study {study.study_name!r} has both {x!r} and {y!r}. "
            f"There are: {', '.join(quantities(trials))}."
        )
    return found


def quantities(trials: Sequence[FrozenTrial]) -> list[str]:
    """Names of the numbers that these trials have."""
    names = {"value": None}
    for trial in trials:
        numbers = {**trial.user_attrs, **trial.user_attrs.get("metrics", {})}
        names |= {k: None for k, v in numbers.items() if isinstance(v, int | float) and k != "seed"}
    return list(names)


def pareto_front(
    study: Study,
    x: Quantity = "n_params",
    y: Quantity = "value",
    *,
    maximize: tuple[bool, bool] | None = None,
) -> list[FrozenTrial]:
    """Trials that no other trial beats in both numbers, in the order of x.

    `maximize`: whether larger is better, of x and of y; unless given, less of x is better, and y is read as
    the study's first objective.

    Raises:
        ValueError: no trial has both numbers.
    """
    up = maximize or (False, study.directions[0] == StudyDirection.MAXIMIZE)
    ordered = sorted(
        points(study, x, y), key=lambda p: (-p[0] if up[0] else p[0], -p[1] if up[1] else p[1], p[2].number)
    )
    front: list[tuple[float, float, FrozenTrial]] = []
    for point in ordered:
        if not front or (point[1] > front[-1][1] if up[1] else point[1] < front[-1][1]):
            front.append(point)
    return [trial for _, _, trial in sorted(front, key=lambda p: p[0])]
