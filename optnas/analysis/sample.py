"""What is shown of a large study: counts of all its trials, the best of them, and some of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas import private, record
from optnas.pareto import leaders
from optnas.storage.base import Outline, complete
from optnas.storage.open import open_storage, storage_of
from optnas.storage.sampled import SampledStorage

MOST = 3000
"""Trials of a study that is shown whole."""

_BEST = 100


def sampled(storage: BaseStorage, most: int = MOST, *, once: bool = False) -> SampledStorage:
    """The storage, with the hundred best (or the front) and about `most` others of each larger study.

    `once`: what is given of a study stays as it was, so that one page shows one state of it.
    """
    behind = open_storage(storage)

    def best(study_id: int, rows: Sequence[Outline]) -> list[FrozenTrial]:
        study = optuna.load_study(study_name=behind.get_study_name_from_id(study_id), storage=behind)
        return leaders(study, complete(rows), partial(behind.trials_of, study_id), _BEST)

    return SampledStorage(behind, most, best, record.COUNTS.name, once=once)


def sampled_study(study: Study, most: int = MOST) -> Study:
    """The study as it is now, with some of its trials where it has many."""
    return optuna.load_study(study_name=study.study_name, storage=sampled(storage_of(study), most, once=True))


def n_counted(study: Study) -> int:
    """How many trials of the whole study count toward `n_trials`."""
    return sum(row.counts for row in _rows(study))


def what_is_shown(study: Study) -> str:
    """Of a study that gives some of its trials, which; "" of one that gives all."""
    n_given = len(study.get_trials(deepcopy=False))
    n = storage_of(study).get_n_trials(private.study_id(study))
    if n <= n_given:
        return ""
    states = Counter(row.state.name.lower() for row in _rows(study)).most_common()
    best = f"the best {_BEST}" if len(study.directions) == 1 else "the front"
    return (
        f"The study has {n:,} trials: {', '.join(f'{k:,} {state}' for state, k in states)}. What is shown "
        f"here, and all that is said of trials below, is of {n_given:,} of them: {best}, and others drawn "
        "at random."
    )


def _rows(study: Study) -> list[Outline]:
    return storage_of(study).outlines(private.study_id(study), record.COUNTS.name)
