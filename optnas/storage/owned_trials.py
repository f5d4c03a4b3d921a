"""Trials are taken, created, held by a lease, lost and queued again; storage.py says what is guaranteed."""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
import weakref
from abc import abstractmethod
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from optnas.errors import StorageUnavailableError
from optnas.storage import tables, transitions
from optnas.storage.database import Database
from optnas.storage.known import KnownStudy
from optnas.storage.lease import Heart, Loss, Process, StaleTrial, stale
from optnas.storage.ownership import Claim, Own
from optnas.storage.rdb_studies import StudyStorage
from optnas.storage.tables import Header


class OwnedTrials(StudyStorage):
    """Who runs which trial; abstract in all that trials hold."""

    def __init__(self, database: Database, lease: float) -> None:
        super().__init__(database)
        self.lease = lease
        self._reset()
        if hasattr(os, "register_at_fork"):
            reference = weakref.ref(self)

            def forked() -> None:
                if (storage := reference()) is not None:
                    storage._reset()  # the child owns nothing

            os.register_at_fork(after_in_child=forked)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._own: dict[int, Own] = {}
        self._studies: dict[int, KnownStudy] = {}
        self._heart: Heart | None = None

    def __repr__(self) -> str:
        return f"SharedStorage({str(self._database)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"database": self._database, "lease": self.lease}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # opens anew; a copy owns nothing

    def arguments(self) -> dict[str, Any]:
        """For `open_storage(**arguments)` elsewhere. They hold the password: not for print or a file.

        A pickled storage goes without it, and looks for it in PGPASSWORD or ~/.pgpass.
        """
        database = self._database
        return {
            "storage": database.url.render_as_string(hide_password=False),
            "lease": self.lease,
            "patience": database.patience,
            "full_sync": database.full_sync,
        }

    def close(self) -> None:
        """Flush, stop renewing leases, and close all connections."""
        with self._lock:
            self.flush()
            if self._heart is not None:
                self._heart.stop()
            self._database.engine.dispose()

    def delete_study(self, study_id: int) -> None:
        with self._lock:
            super().delete_study(study_id)
            self._own = {key: own for key, own in self._own.items() if own.study_id != study_id}
            self._studies.pop(study_id, None)

    @abstractmethod
    def flush(self, trial_id: int | None = None) -> None:
        """Write what is buffered, of one trial or of all that run here; when it returns, it is stored."""

    # ---- taking trials ----

    def claim(self, study_id: int, n_trials: int | None) -> Claim:
        """Take a WAITING trial or create one, unless `n_trials` count or run already; in one transaction."""
        token = uuid.uuid4().hex

        def work(connection: Connection, again: bool) -> tuple[Claim, FrozenTrial | None]:
            tables.lock_study(connection, study_id)  # who takes or creates a trial waits for this one
            counted, running = transitions.count_budget(connection, study_id)
            if again and (found := transitions.find_trial(connection, "token", token)):
                return Claim(found, counted, running - 1), read_trial(connection, found)
            if n_trials is not None and counted + running >= n_trials:
                return Claim(None, counted, running), None
            waiting = transitions.next_waiting(connection, study_id)
            if waiting is not None:
                if not transitions.start_waiting(connection, waiting):  # Optuna takes them without that lock
                    return work(connection, again)
                self._record_owner(connection, waiting, token)
                return Claim(waiting, counted, running), read_trial(connection, waiting)
            row = self._insert_running(connection, study_id, token)
            return Claim(row.trial_id, counted, running), tables.new_trial(row)

        with self._lock:
            result, trial = self._database.write(work)
            if trial is not None:
                self._own_now(study_id, trial, token)
            return result

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        key = uuid.uuid4().hex
        if template_trial is not None:
            template = template_trial
            return self._database.write(lambda c, again: _copy_trial(c, again, study_id, template, key))

        def work(connection: Connection, again: bool) -> FrozenTrial:
            tables.lock_study(connection, study_id)
            if again and (found := transitions.find_trial(connection, "token", key)):
                return read_trial(connection, found)
            return tables.new_trial(self._insert_running(connection, study_id, key))

        with self._lock:
            trial = self._database.write(work)
            self._own_now(study_id, trial, key)
            return trial._trial_id

    def _insert_running(self, connection: Connection, study_id: int, token: str) -> Header:
        start = tables.to_utc(datetime.now())
        row = transitions.insert_trial(connection, study_id, TrialState.RUNNING, datetime_start=start)
        self._record_owner(connection, row.trial_id, token, created_by=token)
        return row

    def _take(self, trial_id: int) -> bool:
        """WAITING becomes RUNNING, and ours."""
        token, study_id = uuid.uuid4().hex, self._row(trial_id).study_id

        def work(connection: Connection, again: bool) -> FrozenTrial | None:
            tables.lock_study(connection, study_id)
            if again and transitions.find_trial(connection, "token", token):
                return read_trial(connection, trial_id)
            self.check_trial_is_updatable(trial_id, transitions.lock_trial(connection, trial_id))
            if not transitions.start_waiting(connection, trial_id):
                return None
            self._record_owner(connection, trial_id, token)
            return read_trial(connection, trial_id)

        taken = self._database.write(work)
        if taken is not None:
            self._own_now(study_id, taken, token)
        return taken is not None

    def _record_owner(self, connection: Connection, trial_id: int, token: str, **columns: Any) -> None:
        before = 0 if columns else transitions.count_attempts(connection, trial_id)
        owner = {"token": token, "expires": self._expiry(), **asdict(Process.this())}
        transitions.record_attempt(connection, trial_id, n_attempts=before + 1, **owner, **columns)

    def _expiry(self) -> Any:
        return self._database.now() + self.lease

    def _own_now(self, study_id: int, trial: FrozenTrial, token: str) -> None:
        self._own[trial._trial_id] = Own(token, study_id, trial)
        if self._heart is None or not self._heart.is_alive():
            self._heart = Heart(self._beat, self.lease / 4)

    # ---- losing trials ----

    def owns(self, trial_id: int) -> bool:
        """Whether the trial is this process's, by its last write or renewal of the lease."""
        own = self._own.get(trial_id)
        return own is not None and not own.lost

    def stale_trials(self, study_id: int) -> list[StaleTrial]:
        """RUNNING trials whose process is dead, whose lease has ended, or which nobody ever leased.

        Of leases that ended, those that this process has seen so for half a lease in which the database could
        be written. Where it could not for a while, or its clock was set, all have ended, and who lives renews
        them now.
        """
        rows = self._database.read(
            lambda connection: transitions.running_attempts(
                connection, self._database.now(), study_id=study_id
            )
        )
        judged = [(row, stale(row, one_machine=self._database.is_sqlite)) for row in rows]
        ended = [(row.token, row.expires) for row, trial in judged if trial and trial.loss is Loss.EXPIRED]
        study = self._study(study_id)
        if not study.ended.keys() >= set(ended):  # it may be read and yet be locked: wait until it is not
            self._database.write(lambda connection, again: tables.lock_study(connection, study_id))
        now = time.monotonic()
        with self._lock:
            study.ended = {lease: study.ended.get(lease, now) for lease in ended}
            return [
                trial
                for row, trial in judged
                if trial and now - study.ended.get((row.token, row.expires), -math.inf) >= self.lease / 2
            ]

    def take_over(self, trial: StaleTrial) -> bool:
        """Become the owner of a stale trial, to requeue or to finish it; False if another was faster.

        The former owner is fenced off from now on. The count of attempts stays.
        """
        token = uuid.uuid4().hex

        def work(connection: Connection, again: bool) -> FrozenTrial | None:
            transitions.lock_trial(connection, trial.trial_id)
            if not (again and transitions.find_trial(connection, "token", token)):
                rows = transitions.running_attempts(connection, self._database.now(), trial_id=trial.trial_id)
                now = [stale(row, one_machine=self._database.is_sqlite) for row in rows]
                if not now or now[0] is None or now[0].token != trial.token:
                    return None  # not RUNNING any more, renewed since, or taken
                owner = {"token": token, "expires": self._expiry(), **asdict(Process.this())}
                transitions.record_attempt(connection, trial.trial_id, n_attempts=trial.n_attempts, **owner)
            return read_trial(connection, trial.trial_id)

        with self._lock:
            current = self._database.write(work)
            if current is None:
                return False
            self._own_now(self._row(trial.trial_id).study_id, current, token)
            return True

    def requeue(self, trial: StaleTrial | int) -> bool:
        """RUNNING becomes WAITING in place: number, parameters, reports and attributes stay.

        Of an own trial, by its id, or of a stale one; False if another process was faster with that.
        """
        if isinstance(trial, StaleTrial):
            if not self.take_over(trial):
                return False
            trial = trial.trial_id
        return self.set_trial_state_values(trial, TrialState.WAITING)

    def requeue_abandoned(self) -> None:
        """Queue again what this process runs no more, but could not say so when the storage failed."""
        with self._lock:
            for trial_id in [key for key, own in self._own.items() if own.abandoned and not own.lost]:
                with suppress(UpdateFinishedTrialError, KeyError):
                    self.set_trial_state_values(trial_id, TrialState.WAITING)

    def _beat(self) -> None:
        """Renew the leases, learn which trials are lost, and write what waits to be flushed."""
        with self._lock:
            mine = {own.token: own for own in self._own.values() if not own.lost}
            if not mine:
                return
            try:
                kept = self._database.write(
                    lambda connection, again: transitions.renew(connection, mine, self._expiry()), patience=0
                )
            except StorageUnavailableError:
                return  # the next beat, or the next write of the objective, finds out
            for token in mine.keys() - kept:
                mine[token].lost = True
            with suppress(StorageUnavailableError):
                self.requeue_abandoned()
                self.flush()

    def _row(self, trial_id: int) -> Header:
        return self._database.read(lambda connection: tables.read_header(connection, trial_id))

    def _study(self, study_id: int) -> KnownStudy:
        return self._studies.setdefault(study_id, KnownStudy(study_id))


def read_trial(connection: Connection, trial_id: int) -> FrozenTrial:
    """Raises KeyError where there is no such trial."""
    return tables.read_trials(connection, [tables.read_header(connection, trial_id)])[0]


def _copy_trial(connection: Connection, again: bool, study_id: int, template: FrozenTrial, key: str) -> int:
    tables.lock_study(connection, study_id)
    if again and (found := transitions.find_trial(connection, "created_by", key)):
        return found
    times = {
        "datetime_start": tables.to_utc(template.datetime_start),
        "datetime_complete": tables.to_utc(template.datetime_complete),
    }
    row = transitions.insert_trial(connection, study_id, template.state, **times)
    tables.template_changes(template).write(connection, row.trial_id)
    if template.values is not None:
        tables.write_values(connection, row.trial_id, template.values)
    transitions.record_attempt(connection, row.trial_id, created_by=key, token=None, n_attempts=0)
    return row.trial_id
