"""Trials in a database that several processes share; storage.py says what is guaranteed."""

from __future__ import annotations

import copy
import json
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from optnas.search import tables
from optnas.search.database import Database, StorageUnavailableError
from optnas.search.known import KnownStudy
from optnas.search.lease import Heart, Process, StaleTrial, stale
from optnas.search.rdb_studies import StudyStorage
from optnas.search.tables import Changes, Header

_MAX_KEY = 512  # of names of parameters and attributes, in Optuna's tables


class TrialTakenError(UpdateFinishedTrialError):
    """This process lost the trial: its lease ended, and another attempt owns it now. Nothing was written."""


@dataclass(frozen=True)
class Claim:
    """The answer to `claim`: a trial to run, or None, and how the budget stood before.

    `attempt` is 0 for the first try at the trial. No trial and `counted >= n_trials`: the search is done. No
    trial and `running > 0`: wait, one of those may come back or turn out not to count.
    """

    trial_id: int | None
    attempt: int
    counted: int
    running: int


@dataclass
class _Own:
    """A trial that this process runs: as it is with `pending`, which the database does not have yet."""

    token: str
    study_id: int
    trial: FrozenTrial
    attempt: int
    pending: Changes = field(default_factory=Changes)
    lost: bool = False
    abandoned: bool = False  # to be WAITING, which could not be written yet

    def show(self, news: Mapping[str, Mapping[Any, Any]]) -> None:
        """Put `{field: {key: value}}` into a new trial: the one given out before stays as it was."""
        self.trial = copy.copy(self.trial)
        for name, entries in news.items():
            setattr(self.trial, name, {**getattr(self.trial, name), **entries})


class SharedStorage(StudyStorage):
    """Optuna's storage interface on a `Database`; made by `open_storage`.

    Beyond the interface: `claim`, `flush`, `owns`, `stale_trials`, `take_over`, `requeue`,
    `requeue_abandoned`, `arguments`, `close`.
    """

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
        self._own: dict[int, _Own] = {}
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

    # ---- taking trials ----

    def claim(self, study_id: int, n_trials: int | None) -> Claim:
        """Take a WAITING trial or create one, unless `n_trials` count or run already; in one transaction."""
        token = uuid.uuid4().hex

        def work(connection: Connection, again: bool) -> tuple[Claim, FrozenTrial | None]:
            tables.lock_study(connection, study_id)  # who takes or creates a trial waits for this one
            counted, running = tables.count_budget(connection, study_id)
            if again and (found := tables.find_attempt(connection, "token", token)):
                trial_id, n_attempts = found
                return Claim(trial_id, n_attempts - 1, counted, running - 1), _read(connection, trial_id)
            if n_trials is not None and counted + running >= n_trials:
                return Claim(None, 0, counted, running), None
            waiting = tables.next_waiting(connection, study_id)
            if waiting is not None:
                if not tables.start_waiting(connection, waiting):  # Optuna takes them without that lock
                    return work(connection, again)
                attempt = self._record_owner(connection, waiting, token)
                return Claim(waiting, attempt, counted, running), _read(connection, waiting)
            row = self._insert_running(connection, study_id, token)
            return Claim(row.trial_id, 0, counted, running), tables.new_trial(row)

        with self._lock:
            result, trial = self._database.write(work)
            if trial is not None:
                self._own_now(study_id, trial, token, result.attempt)
            return result

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        key = uuid.uuid4().hex
        if template_trial is not None:
            template = template_trial
            return self._database.write(lambda c, again: _copy_trial(c, again, study_id, template, key))

        def work(connection: Connection, again: bool) -> FrozenTrial:
            tables.lock_study(connection, study_id)
            if again and (found := tables.find_attempt(connection, "token", key)):
                return _read(connection, found[0])
            return tables.new_trial(self._insert_running(connection, study_id, key))

        with self._lock:
            trial = self._database.write(work)
            self._own_now(study_id, trial, key, 0)
            return trial._trial_id

    def _insert_running(self, connection: Connection, study_id: int, token: str) -> Header:
        start = tables.to_utc(datetime.now())
        row = tables.insert_trial(connection, study_id, TrialState.RUNNING, datetime_start=start)
        self._record_owner(connection, row.trial_id, token, created_by=token)
        return row

    def _take(self, trial_id: int) -> bool:
        """WAITING becomes RUNNING, and ours."""
        token, study_id = uuid.uuid4().hex, self._row(trial_id).study_id

        def work(connection: Connection, again: bool) -> tuple[FrozenTrial, int] | None:
            tables.lock_study(connection, study_id)
            if again and (found := tables.find_attempt(connection, "token", token)):
                return _read(connection, trial_id), found[1] - 1
            self.check_trial_is_updatable(trial_id, tables.lock_trial(connection, trial_id))
            if not tables.start_waiting(connection, trial_id):
                return None
            attempt = self._record_owner(connection, trial_id, token)
            return _read(connection, trial_id), attempt

        taken = self._database.write(work)
        if taken is not None:
            self._own_now(study_id, taken[0], token, taken[1])
        return taken is not None

    def _record_owner(self, connection: Connection, trial_id: int, token: str, **columns: Any) -> int:
        """Returns how often the trial was taken before."""
        attempt = 0 if columns else tables.count_attempts(connection, trial_id)
        owner = {"token": token, "expires": self._expiry(), **asdict(Process.this())}
        tables.record_attempt(connection, trial_id, n_attempts=attempt + 1, **owner, **columns)
        return attempt

    def _expiry(self) -> Any:
        return self._database.now() + self.lease

    def _own_now(self, study_id: int, trial: FrozenTrial, token: str, attempt: int) -> None:
        self._own[trial._trial_id] = _Own(token, study_id, trial, attempt)
        if self._heart is None or not self._heart.is_alive():
            self._heart = Heart(self._beat, self.lease / 4)

    # ---- losing trials ----

    def owns(self, trial_id: int) -> bool:
        """Whether the trial is this process's, by its last write or renewal of the lease."""
        own = self._own.get(trial_id)
        return own is not None and not own.lost

    def stale_trials(self, study_id: int) -> list[StaleTrial]:
        """RUNNING trials whose process is dead, whose lease has ended, or which nobody ever leased."""
        rows = self._database.read(
            lambda connection: tables.running_attempts(connection, self._database.now(), study_id=study_id)
        )
        found = (stale(row, one_machine=self._database.is_sqlite) for row in rows)
        return [trial for trial in found if trial is not None]

    def take_over(self, trial: StaleTrial) -> bool:
        """Become the owner of a stale trial, to requeue or to finish it; False if another was faster.

        The former owner is fenced off from now on. The count of attempts stays.
        """
        token = uuid.uuid4().hex

        def work(connection: Connection, again: bool) -> FrozenTrial | None:
            tables.lock_trial(connection, trial.trial_id)
            if not (again and tables.find_attempt(connection, "token", token)):
                rows = tables.running_attempts(connection, self._database.now(), trial_id=trial.trial_id)
                now = [stale(row, one_machine=self._database.is_sqlite) for row in rows]
                if not now or now[0] is None or now[0].token != trial.token:
                    return None  # not RUNNING any more, renewed since, or taken
                owner = {"token": token, "expires": self._expiry(), **asdict(Process.this())}
                tables.record_attempt(connection, trial.trial_id, n_attempts=trial.n_attempts, **owner)
            return _read(connection, trial.trial_id)

        with self._lock:
            current = self._database.write(work)
            if current is None:
                return False
            self._own_now(self._row(trial.trial_id).study_id, current, token, max(trial.n_attempts - 1, 0))
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
                    lambda connection, again: tables.renew(connection, mine, self._expiry()), patience=0
                )
            except StorageUnavailableError:
                return  # the next beat, or the next write of the objective, finds out
            for token in mine.keys() - kept:
                mine[token].lost = True
            with suppress(StorageUnavailableError):
                self.requeue_abandoned()
                self.flush()

    # ---- writing ----

    def flush(self, trial_id: int | None = None) -> None:
        """Write what is buffered, of one trial or of all that run here; when it returns, it is stored.

        Raises TrialTakenError if that one trial is another's now; nothing was written then.
        """
        with self._lock:
            if trial_id is None:
                for key in list(self._own):
                    with suppress(UpdateFinishedTrialError):  # its objective is told at its own next write
                        self.flush(key)
                return
            own = self._own.get(trial_id)
            if own is not None and own.pending:
                self._store(own, own.pending)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        with self._lock:
            own = self._updatable(trial_id)
            study = self._study(own.study_id if own else self._row(trial_id).study_id)
            if param_name not in study.distributions:
                self._read_news(study, None)
            known = study.distributions.get(param_name, distribution)
            check_distribution_compatibility(known, distribution)
            stored = (param_value_internal, distribution_to_json(distribution))
            value = distribution.to_external_repr(param_value_internal)
            self._change(
                trial_id,
                Changes(params={_checked(param_name): stored}),
                {"params": {param_name: value}, "distributions": {param_name: distribution}},
            )
            study.distributions[param_name] = known

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        text = json.dumps(value)
        news = {"user_attrs": {key: json.loads(text)}}
        self._change(trial_id, Changes(user_attrs={_checked(key): text}), news)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        text = json.dumps(value)
        news = {"system_attrs": {key: json.loads(text)}}
        self._change(trial_id, Changes(system_attrs={_checked(key): text}), news)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        change = Changes(reports={step: float(intermediate_value)})
        self._change(
            trial_id, change, {"intermediate_values": {step: float(intermediate_value)}}, at_once=True
        )

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        with self._lock:
            own = self._updatable(trial_id)
            if state == TrialState.RUNNING:
                return own is None and self._take(trial_id)
            if own is not None:
                self._end(own, state, values)
                return True

            def work(connection: Connection, again: bool) -> None:
                self.check_trial_is_updatable(trial_id, tables.lock_trial(connection, trial_id))
                tables.end_trial(connection, trial_id, state, values)

            self._database.write(work)
            return True

    def _end(self, own: _Own, state: TrialState, values: Sequence[float] | None) -> None:
        trial_id = own.trial._trial_id

        def work(connection: Connection) -> datetime | None:
            own.pending.write(connection, trial_id)
            return tables.end_trial(connection, trial_id, state, values)

        own.abandoned = state == TrialState.WAITING
        complete = self._while_owned(own, work, state)
        del self._own[trial_id]
        if state.is_finished():
            own.show({})
            own.trial.state = state
            own.trial.values = own.trial.values if values is None else list(values)
            own.trial.datetime_complete = tables.to_local(complete)
            self._study(own.study_id).add(own.trial)

    def _change(
        self, trial_id: int, change: Changes, news: Mapping[str, Mapping[Any, Any]], at_once: bool = False
    ) -> None:
        """Change a trial; an own one in memory until it is flushed, unless it is to be stored `at_once`."""
        with self._lock:
            own = self._updatable(trial_id)
            if own is None:
                self._database.write(lambda c, again: self._write_any(c, trial_id, change))
                return
            if at_once:
                self._store(own, own.pending | change)
            else:
                own.pending = own.pending | change
            own.show(news)

    def _write_any(self, connection: Connection, trial_id: int, change: Changes) -> None:
        self.check_trial_is_updatable(trial_id, tables.lock_trial(connection, trial_id))
        change.write(connection, trial_id)

    def _store(self, own: _Own, changes: Changes) -> None:
        def work(connection: Connection) -> None:
            changes.write(connection, own.trial._trial_id)

        self._while_owned(own, work)
        own.pending = Changes()

    def _while_owned(
        self, own: _Own, work: Callable[[Connection], datetime | None], end: TrialState | None = None
    ) -> datetime | None:
        """Run `work` in a transaction in which the trial is still ours; `end` is the state that it sets."""
        trial_id = own.trial._trial_id
        token_after = None if end == TrialState.WAITING else own.token

        def checked(connection: Connection, again: bool) -> datetime | None:
            state, token = tables.lock_owned(connection, trial_id)
            if again and state == end and token == token_after:
                return tables.read_header(connection, trial_id).complete  # an earlier try was committed
            if token == own.token:
                self.check_trial_is_updatable(trial_id, state)
            if token != own.token or state != TrialState.RUNNING:
                raise _taken(own)
            return work(connection)

        if own.lost:
            raise _taken(own)
        try:
            return self._database.write(checked)
        except TrialTakenError:
            own.lost = True
            raise
        except (UpdateFinishedTrialError, KeyError):  # told, or deleted, by somebody else
            del self._own[trial_id]
            raise

    def check_trial_is_updatable(self, trial_id: int, trial_state: TrialState) -> None:
        """As Optuna's, but without reading the trial for the message: it is called within transactions."""
        if trial_state.is_finished():
            raise UpdateFinishedTrialError(
                f"The trial with the id {trial_id} has finished; it cannot change."
            )

    def _updatable(self, trial_id: int) -> _Own | None:
        """The trial if it is our own, None if it is not and may be written."""
        own = self._own.get(trial_id)
        if own is not None and own.lost:
            raise _taken(own)
        if own is None:
            known = any(trial_id in study.finished for study in self._studies.values())
            state = TrialState.COMPLETE if known else self._row(trial_id).state
            self.check_trial_is_updatable(trial_id, state)
        return own

    # ---- reading ----

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            self.flush(trial_id)
            return self._view(trial_id)

    def get_trial_user_attrs(self, trial_id: int) -> dict[str, Any]:
        with self._lock:
            return self._view(trial_id).user_attrs

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        with self._lock:
            return self._view(trial_id).system_attrs

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._lock:
            self.flush()
            study = self._study(study_id)
            found = self._read_news(study, states)
            own = [self._own[key].trial for key, row in study.rows.items() if self._runs_here(row)]
            found += [trial for trial in own if states is None or trial.state in states]
            found += study.finished_in(states)
            found.sort(key=lambda trial: trial.number)
        return copy.deepcopy(found) if deepcopy else found

    def delete_study(self, study_id: int) -> None:
        with self._lock:
            super().delete_study(study_id)
            self._own = {key: own for key, own in self._own.items() if own.study_id != study_id}
            self._studies.pop(study_id, None)

    def _view(self, trial_id: int) -> FrozenTrial:
        """A trial, with what is not flushed yet."""
        own = self._own.get(trial_id)
        if own is not None and not own.lost:
            own.show({"params": {}, "distributions": {}, "user_attrs": {}, "system_attrs": {}})
            return own.trial
        for study in self._studies.values():
            if trial_id in study.finished:
                return study.finished[trial_id]
        return self._database.read(lambda connection: _read(connection, trial_id))

    def _read_news(self, study: KnownStudy, states: Container[TrialState] | None) -> list[FrozenTrial]:
        return study.read_news(self._database, states, skip=self._runs_here)

    def _runs_here(self, row: Header) -> bool:
        """Whether it is the row of an own trial, of which memory knows all."""
        return row.state == TrialState.RUNNING and self.owns(row.trial_id)

    def _row(self, trial_id: int) -> Header:
        return self._database.read(lambda connection: tables.read_header(connection, trial_id))

    def _study(self, study_id: int) -> KnownStudy:
        return self._studies.setdefault(study_id, KnownStudy(study_id))


def _read(connection: Connection, trial_id: int) -> FrozenTrial:
    return tables.read_trials(connection, [tables.read_header(connection, trial_id)])[0]


def _copy_trial(connection: Connection, again: bool, study_id: int, template: FrozenTrial, key: str) -> int:
    tables.lock_study(connection, study_id)
    if again and (found := tables.find_attempt(connection, "created_by", key)):
        return found[0]
    times = {
        "datetime_start": tables.to_utc(template.datetime_start),
        "datetime_complete": tables.to_utc(template.datetime_complete),
    }
    row = tables.insert_trial(connection, study_id, template.state, **times)
    tables.template_changes(template).write(connection, row.trial_id)
    if template.values is not None:
        tables.write_values(connection, row.trial_id, template.values)
    tables.record_attempt(connection, row.trial_id, created_by=key, token=None, n_attempts=0)
    return row.trial_id


def _taken(own: _Own) -> TrialTakenError:
    return TrialTakenError(
        f"Trial {own.trial.number} was taken over by another attempt: this process (pid {os.getpid()}) gave "
        "no sign of life for longer than its lease, or the trial was queued again. Nothing was written; give "
        "it up and take another trial."
    )


def _checked(key: str) -> str:
    if len(key) > _MAX_KEY:
        raise ValueError(
            f"The name {key[:40]!r}... has {len(key)} characters; Optuna stores {_MAX_KEY} at most."
        )
    return key
