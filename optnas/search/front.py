"""The winners of a search for several values at once: the front, its knee, and the one that is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import optuna

from optnas import pareto, record
from optnas.limits import Bound, Limit, in_words, nearest_in_words
from optnas.objective import Objective
from optnas.search.best import Best
from optnas.search.study import check_values


def front(study: optuna.Study, objective: Objective) -> list[Best]:
    """The Pareto front of a study: the trials that no other trial beats, the best in the first value first.

    Another trial beats one if it is as good in all values and better in one. Each can be rebuilt, tested,
    trained anew and exported, as the one that `best` returns. They were chosen among many, so their values
    are optimistic; `Best.retrain` measures them again.

        cheap = optnas.pick(optnas.front(study, objective), limits={"flops": 2e6})
        cheap.retrain(n_seeds=5)

    Raises:
        ValueError: no trial has its values within the limits yet.
        ParamsMismatchError: the study optimizes something else than the objective.

    Examples:
        >>> front = optnas.front(several, two)
        >>> cheap = optnas.pick(front, limits={"flops": 2e5})
    """
    check_values(study, objective)
    trials = pareto.front_trials(study)
    if not trials:
        reasons = [f"Trial {t.number}: {words}" for t in study.trials if (words := record.why(t))]
        raise ValueError(
            f"Study {study.study_name!r} has no front yet. "
            + (reasons[-1] if reasons else "Run optnas.optimize(study, objective).")
        )
    order = np.lexsort(pareto.losses(study, trials).T[::-1])
    return [Best(study, objective, trials[i]) for i in order]


def pick(front: Sequence[Best], limits: Mapping[str, Bound] | None = None) -> Best:
    """Choose one trial of a front: with `limits`, the best in the first value of those that keep them;
    without, the knee.

    Args:
        front: from `front`.
        limits: limits of values, facts and metrics of the trials, such as `{"flops": 2e6}`; see `Objective`.

    Raises:
        ValueError: the front is empty, or none of it keeps the limits; the message has how near it comes.

    Examples:
        >>> cheap = optnas.pick(optnas.front(several, two), limits={"flops": 2e5})
        >>> cheap.trial.values[1] <= 2e5
        True
    """
    if not front:
        raise ValueError("pick(front=[]): the front is empty; optnas.front(study, objective) has it.")
    if not limits:
        return knee(front)
    wanted = [Limit.of(name, bound) for name, bound in limits.items()]
    numbers = [_numbers(member) for member in front]
    if absent := [limit.name for limit in wanted if limit.name not in set().union(*numbers)]:
        known = ", ".join(dict.fromkeys(name for found in numbers for name in found))
        raise ValueError(f"pick(limits=...) names {absent[0]!r}, which no trial of the front has: {known}.")
    kept = [
        all(limit.name in found and limit.violation(found[limit.name]) <= 0 for limit in wanted)
        for found in numbers
    ]
    if not any(kept):
        near = []
        for limit in wanted:
            values = [found[limit.name] for found in numbers if limit.name in found]
            nearest = min(values, key=limit.violation)
            near.append(
                f"{limit}" + (nearest_in_words(limit, nearest) if limit.violation(nearest) > 0 else "")
            )
        raise ValueError(f"None of the {len(front)} trials on the front keeps {' and '.join(near)}.")
    return front[kept.index(True)]


def knee(front: Sequence[Best]) -> Best:
    """The member after which a little more of one value costs most of the others.

    It is the one farthest from the plane through the ends of the front, each value as a share of its span
    (Das 1999): where that share, summed over the values, is smallest.

    Raises:
        ValueError: the front is empty.

    Examples:
        >>> balanced = optnas.knee(optnas.front(several, two))
        >>> balanced.trial.values
        [0.99705, 4632.0]
    """
    if not front:
        raise ValueError("knee(front=[]): the front is empty; optnas.front(study, objective) has it.")
    losses = pareto.losses(front[0].study, [member.trial for member in front])
    return front[pareto.knee(losses)]


def in_figures(member: Best) -> str:
    """The values of a winner: `val_acc 0.9812, flops 1,200,000`."""
    return ", ".join(f"{name} {in_words(value)}" for name, value in member.values.items())


def _numbers(member: Best) -> dict[str, float]:
    return {**record.facts(member.trial), **record.metrics(member.trial), **member.values}
