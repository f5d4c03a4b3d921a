"""Several objectives: which trials are on the front, and how good a set of them is.

Losses are values whose sign says that lower is better, one column an objective.
"""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.record import End

Array = NDArray[np.float64]


class MultiObjectivePruner(BasePruner, ABC):
    """A pruner that judges trials of studies with several objectives, which Optuna asks none about.

    `Run.should_prune` asks it; what trials reported of each objective stands in `record.REPORTS`.
    """


def as_one(study: Study, trial: FrozenTrial, objective: int) -> FrozenTrial:
    """A copy of the trial as one of a study that has this objective only, with what it reported of it."""
    seen = copy.copy(trial)
    seen.values = None if trial.values is None else [trial.values[objective]]
    reports = record.REPORTS.of(trial) or {}
    name = (study.metric_names or {objective: str(objective)})[objective]
    seen.intermediate_values = {int(at): found[name] for at, found in reports.items() if name in found}
    return seen


def signs(study: Study) -> Array:
    """What makes a loss of each value: -1 where the study maximizes it, else 1; `(n_objectives,)`."""
    return np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions])


def losses(study: Study, trials: Sequence[FrozenTrial]) -> Array:
    """The losses of COMPLETE trials, `(n_trials, n_objectives)`."""
    return np.array([t.values for t in trials]).reshape(len(trials), len(study.directions)) * signs(study)


def valued(study: Study) -> list[FrozenTrial]:
    """COMPLETE trials that keep all limits and whose values are finite; twins are not repeated."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [t for t in complete if record.end(t) is End.COMPLETE and np.isfinite(t.values).all()]


def front_trials(study: Study) -> list[FrozenTrial]:
    """Those of `valued` than which none other is as good in all objectives and better in one."""
    trials = valued(study)
    if not trials:
        return []
    return [t for t, rank in zip(trials, private.ranks(losses(study, trials)), strict=True) if rank == 0]


def leaders(
    study: Study,
    complete: Mapping[int, Sequence[float]],
    read: Callable[[Collection[int]], Sequence[FrozenTrial]],
    n: int,
) -> list[FrozenTrial]:
    """The `n` best of `valued`, or `front_trials`, of which few are read.

    Args:
        complete: the values of all COMPLETE trials, by id.
        read: the trials of some ids.
    """
    left = {key: told for key, told in complete.items() if np.isfinite(told).all()}
    found: list[FrozenTrial] = []
    while left and len(found) < n:
        ids = list(left)
        values = np.array(list(left.values())) * signs(study)
        several = values.shape[1] > 1
        first = private.on_front(values) if several else np.argsort(values[:, 0], kind="stable")[:n]
        chosen = {ids[i] for i in first}
        sound = [trial for trial in read(chosen) if record.end(trial) is End.COMPLETE]
        found += sound
        if several:  # those that are not sound may have stood before others that are
            chosen -= {private.trial_id(trial) for trial in sound}
            if not chosen:
                break
            found = []
        left = {key: told for key, told in left.items() if key not in chosen}
    if len(study.directions) == 1:
        found.sort(key=lambda trial: (losses(study, [trial])[0, 0], trial.number))
        return found[:n]
    return found


def standing(study: Study, trials: Sequence[FrozenTrial]) -> Array:
    """Places of COMPLETE trials from the best, 0, to the worst: `(n_trials,)`.

    Of one objective by its value; of several by non-dominated sorting, within a rank by crowding (Deb et al.
    2002): who has more room around it comes first.
    """
    found = losses(study, trials)
    if found.shape[1] == 1:
        order = np.argsort(found[:, 0], kind="stable")
    else:
        ranks = private.ranks(found)
        order = np.lexsort((-crowding(found, ranks), ranks))
    places = np.empty(len(trials))
    places[order] = np.arange(len(trials))
    return places


def knee(losses: Array) -> int:
    """The row farthest from the plane through the ends of a front, each column as a share of its span
    (Das 1999): where the sum of these shares is smallest."""
    span = np.ptp(losses, axis=0)
    shares = (losses - losses.min(axis=0)) / np.where(span > 0, span, 1.0)
    return int(shares.sum(axis=1).argmin())


def crowding(losses: Array, ranks: NDArray[np.int64]) -> Array:
    """The room that each has among those of its rank, `(n,)`: infinite at the ends of an objective."""
    room = np.zeros(len(losses))
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        for column in losses[members].T:
            order = members[np.argsort(column, kind="stable")]
            ordered = np.sort(column)
            room[order[[0, -1]]] = np.inf
            if (span := ordered[-1] - ordered[0]) > 0:
                room[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    return room


def reference_point(losses: Array) -> Array:
    """The worst of each objective, and a tenth of its span beyond, so that the ends of a front count."""
    worst, best = losses.max(axis=0), losses.min(axis=0)
    reference: Array = worst + 0.1 * np.where(worst > best, worst - best, np.maximum(np.abs(worst), 1.0))
    return reference
