"""Large studies as pages can show them: the best of their trials, those that run, and some of the others."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Container, Sequence
from datetime import datetime

import numpy as np
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from optnas.private import trial_id as id_of
from optnas.storage.base import Outline, Storage
from optnas.storage.foreign import ForeignStorage

Best = Callable[[int, Sequence[Outline]], Sequence[FrozenTrial]]
"""From the id of a study and all that it has, to the best of it."""


class SampledStorage(ForeignStorage):
    """Gives, of a study with more than `most` trials, the best, those that run, and `most` / 2 others.

    The others are drawn at random, for each number the same way: a study that grows gains some of its new
    trials, and loses half of all whenever they would be more than about `most`. All else, and each trial by
    its id, is as in the storage behind it. Of what is not given nothing is read but its row and its values.

    Args:
        storage: that of which trials are given.
        most: a study of so many trials is given whole.
        best: which trials are given in any case.
        counts: as for `Storage.claim`.
        once: what was given once is given for ever, whatever becomes of the study.
    """

    def __init__(self, storage: Storage, most: int, best: Best, counts: str, *, once: bool = False) -> None:
        super().__init__(storage)
        self.place, self.lacks, self.refuses = storage.place, storage.lacks, storage.refuses
        self.most = most
        self._behind = storage
        self._best = best
        self._counts = counts
        self._once = once
        self._known: dict[int, dict[int, FrozenTrial]] = {}  # finished trials that were given, by study
        self._given: dict[int, list[FrozenTrial]] = {}
        self._rows: dict[int, list[Outline]] = {}
        self._ends: dict[int, tuple[int, ...]] = {}  # how many trials were in each state
        self._lock = threading.Lock()

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._lock:
            if self._once and study_id in self._given:
                given = self._given[study_id]
            else:
                given = self._given[study_id] = self._some(study_id)
            found = given if states is None else [trial for trial in given if trial.state in states]
        return copy.deepcopy(found) if deepcopy else list(found)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return BaseStorage.get_best_trial(self, study_id)  # of those that are given

    def outlines(self, study_id: int, counts: str) -> list[Outline]:
        if self._once and counts == self._counts and study_id in self._rows:
            return self._rows[study_id]
        return self._behind.outlines(study_id, counts)

    def last_start(self, study_id: int) -> datetime | None:
        return self._behind.last_start(study_id)

    def _some(self, study_id: int) -> list[FrozenTrial]:
        ends = tuple(self._behind.get_n_trials(study_id, state) for state in TrialState)
        if sum(ends) <= self.most:
            return self._behind.get_all_trials(study_id, deepcopy=False)
        if ends == self._ends.get(study_id) and (again := self._again(study_id)) is not None:
            return again
        self._ends[study_id] = ends
        rows = self._rows[study_id] = self._behind.outlines(study_id, self._counts)
        known = {id_of(trial): trial for trial in self._best(study_id, rows)}
        drawn = np.random.default_rng(0).random(max(row.number for row in rows) + 1)
        share = 0.5 ** math.ceil(math.log2(len(rows) / self.most))
        wanted = {
            row.trial_id for row in rows if row.state == TrialState.RUNNING or drawn[row.number] < share
        }
        known |= {
            key: trial
            for key, trial in self._known.get(study_id, {}).items()
            if key in wanted and key not in known
        }
        read = self._behind.trials_of(study_id, wanted - known.keys())
        found = sorted([*known.values(), *read], key=lambda trial: trial.number)
        self._known[study_id] = {id_of(trial): trial for trial in found if trial.state.is_finished()}
        return found

    def _again(self, study_id: int) -> list[FrozenTrial] | None:
        """What was given, with what has been reported since; None where a trial began, paused or ended."""
        given = self._given.get(study_id, [])
        unfinished = {id_of(trial) for trial in given if not trial.state.is_finished()}
        read = {trial.number: trial for trial in self._behind.trials_of(study_id, unfinished)}
        now = [read.get(trial.number, trial) for trial in given]
        return now if [t.state for t in now] == [t.state for t in given] and now else None
