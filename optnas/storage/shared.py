"""The storage that processes share: studies and trials in a database, and a ledger of who runs what."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from optnas.errors import StorageUnavailableError, StudyGoneError
from optnas.private import FrozenStudy
from optnas.private import trial_id as id_of
from optnas.storage import owners, schema
from optnas.storage.base import Claim, Outline, Place, Seen, Storage, is_held
from optnas.storage.database import Database
from optnas.storage.known import KnownStudy, Rewound
from optnas.storage.leases import StaleTrial
from optnas.storage.ledger import Ledger, OtherStudy, Own, check_updatable
from optnas.storage.schema import Changes, Header

T = TypeVar("T")

_MAX_KEY = 512  # of names of parameters and attributes, in Optuna's tables


class SharedStorage(Storage):
    """Optuna's storage interface and ours on a `Database`; made by `open_storage`."""

    shared = True
    recovers = True

    def __init__(self, database: Database, lease: float) -> None:
        self._database = database
        self._rdb = database.rdb
        self._ledger = Ledger(database, lease, self._beat)
        self.place = Place.of(database.url)
        self._studies: dict[int, KnownStudy] = {}

    @property
    def lease(self) -> float:
        return self._ledger.lease

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
            "read_only": database.read_only,
        }

    def close(self) -> None:
        """Flush, fold the log in, stop renewing leases, and close all connections."""
        with self._ledger.lock:
            self.flush()
            self._ledger.stop()
            self.fold_log()
            self._database.engine.dispose()

    def fold_log(self) -> None:
        with suppress(StorageUnavailableError):  # it stays beside the file, and nothing is lost
            self._database.patiently(lambda again: self._database.fold_log(), patience=0)

    # ---- studies: Optuna's code for what is rare ----

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        self._check_writable()
        study_id = self._patiently(self._rdb.create_new_study, directions, study_name)
        self._studies[study_id] = KnownStudy(study_id, study_name)
        return study_id

    def delete_study(self, study_id: int) -> None:
        with self._ledger.lock, self._naming(study_id):
            self._write(lambda connection, again: owners.forget_study(connection, study_id))
            self._patiently(self._rdb.delete_study, study_id)
            self._ledger.forget(study_id)
            self._studies.pop(study_id, None)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._write_study_attr(schema.study_user_attrs, study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._write_study_attr(schema.study_system_attrs, study_id, key, value)

    def _write_study_attr(self, table: sa.Table, study_id: int, key: str, value: Any) -> None:
        with self._naming(study_id):
            self._write(lambda c, again: schema.write_study_attr(c, table, study_id, _checked(key), value))

    def settle_study_user_attr(self, study_id: int, key: str, value: Any) -> Any:
        def work(connection: Connection, again: bool) -> Any:
            schema.lock_study(connection, study_id)
            known = schema.read_study_attrs(connection, schema.study_user_attrs, study_id)
            if key not in known:
                schema.write_study_attr(connection, schema.study_user_attrs, study_id, _checked(key), value)
            return known.get(key, value)

        with self._naming(study_id):
            return self._write(work)

    def get_study_id_from_name(self, study_name: str) -> int:
        try:
            study_id = self._patiently(self._rdb.get_study_id_from_name, study_name)
        except KeyError:
            raise StudyGoneError(
                f"There is no study {study_name!r} in storage={self._database}. If it was there, it has been "
                "deleted or renamed."
            ) from None
        self._study(study_id).name = study_name
        return study_id

    def get_study_name_from_id(self, study_id: int) -> str:
        with self._naming(study_id):
            return self._patiently(self._rdb.get_study_name_from_id, study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        with self._naming(study_id):
            return self._patiently(self._rdb.get_study_directions, study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._read_study_attrs(schema.study_user_attrs, study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._read_study_attrs(schema.study_system_attrs, study_id)

    def _read_study_attrs(self, table: sa.Table, study_id: int) -> dict[str, Any]:
        with self._naming(study_id):
            return self._database.read(lambda c: schema.read_study_attrs(c, table, study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._patiently(self._rdb.get_all_studies)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self._patiently(self._rdb.get_trial_id_from_study_id_trial_number, study_id, trial_number)

    def remove_session(self) -> None:
        self._rdb.remove_session()

    def _patiently(self, method: Callable[..., T], *arguments: Any) -> T:
        return self._database.patiently(lambda again: method(*arguments))

    @contextmanager
    def _naming(self, study_id: int) -> Iterator[None]:
        """Say which study it is that is there no more, if this process has worked on it."""
        try:
            yield
        except (KeyError, OtherStudy, Rewound) as error:
            name = self._study(study_id).name
            if isinstance(error, StudyGoneError) or (isinstance(error, KeyError) and name is None):
                raise
            self._ledger.forget(study_id)
            self._studies[study_id] = KnownStudy(study_id, name)
            there = f"Study {study_id if name is None else repr(name)} in storage={self._database}"
            if isinstance(error, KeyError):
                raise StudyGoneError(f"{there} is gone: somebody deleted it while it was open.") from None
            raise StudyGoneError(
                f"{there} is not what it was: somebody deleted it and began it anew, or put the database "
                "back to an older copy, while this process had it open. Nothing was written. Start the "
                "search again: it goes on with what is stored now."
            ) from None

    # ---- who runs what: the ledger ----

    def claim(
        self,
        study_id: int,
        n_trials: int | None,
        counts: str,
        wanted: int | None = None,
        seen: Seen | None = None,
    ) -> Claim:
        self._check_writable()
        with self._naming(study_id):
            return self._ledger.claim(study_id, n_trials, counts, wanted, seen)

    def reopen(self, trial_id: int) -> bool:
        def work(connection: Connection, again: bool) -> bool:
            if schema.lock_trial(connection, trial_id) != TrialState.PRUNED:
                return again and schema.read_header(connection, trial_id).state == TrialState.WAITING
            if not is_held(schema.read_trial(connection, trial_id)):
                return False
            schema.reopen(connection, trial_id)
            owners.release(connection, trial_id)
            return True

        with self._ledger.lock:
            done = self._write(work)
            for study in self._studies.values():
                study.forget(trial_id)
            return done

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        self._check_writable()
        with self._naming(study_id):
            if template_trial is not None:
                return self._ledger.copy(study_id, template_trial)
            return self._ledger.create(study_id)

    def owns(self, trial_id: int) -> bool:
        return self._ledger.owns(trial_id)

    def stale_trials(self, study_id: int) -> list[StaleTrial]:
        with self._naming(study_id):
            return self._ledger.stale_trials(study_id)

    def take_over(self, trial: StaleTrial) -> bool:
        self._check_writable()
        return self._ledger.take_over(trial)

    def requeue_abandoned(self) -> None:
        with self._ledger.lock:
            for trial_id in [key for key, own in self._ledger.own.items() if own.abandoned and not own.lost]:
                with suppress(UpdateFinishedTrialError, KeyError):
                    self.set_trial_state_values(trial_id, TrialState.WAITING)

    def flush(self, trial_id: int | None = None) -> None:
        with self._ledger.lock:
            if trial_id is None:
                for key in list(self._ledger.own):
                    # Taken over, or deleted: its objective is told at its own next write.
                    with suppress(UpdateFinishedTrialError, KeyError):
                        self.flush(key)
                return
            self._ledger.check_not_forked()
            own = self._ledger.own.get(trial_id)
            if own is not None and own.pending:
                self._store(own, own.pending)

    def _beat(self) -> None:
        """Renew the leases, write what waits to be flushed, and bring the file up to what is stored."""
        with self._ledger.lock:
            if self._ledger.renew():
                with suppress(StorageUnavailableError):
                    self.requeue_abandoned()
                    self.flush()
                    self._database.patiently(lambda again: self._database.fold_log("PASSIVE"), patience=0)

    # ---- what trials hold ----

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        with self._ledger.lock:
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
        with self._ledger.lock:
            own = self._updatable(trial_id)
            if state == TrialState.RUNNING:
                return own is None and self._ledger.take(trial_id, self._row(trial_id).study_id)
            if own is not None:
                self._end(own, state, values)
                return True

            def work(connection: Connection, again: bool) -> None:
                check_updatable(trial_id, schema.lock_trial(connection, trial_id))
                _end_trial(connection, trial_id, state, values)

            self._write(work)
            return True

    def _end(self, own: Own, state: TrialState, values: Sequence[float] | None) -> None:
        trial_id = id_of(own.trial)

        def work(connection: Connection) -> datetime | None:
            own.pending.write(connection, trial_id)
            return _end_trial(connection, trial_id, state, values)

        own.abandoned = state == TrialState.WAITING
        with self._naming_of(own):
            complete = self._ledger.while_owned(own, work, state)
        del self._ledger.own[trial_id]
        if state.is_finished():
            own.show({})
            own.trial.state = state
            own.trial.values = own.trial.values if values is None else list(values)
            own.trial.datetime_complete = schema.to_local(complete)
            self._study(own.study_id).add(own.trial)

    def _change(
        self, trial_id: int, change: Changes, news: Mapping[str, Mapping[Any, Any]], at_once: bool = False
    ) -> None:
        """Change a trial; an own one in memory until it is flushed, unless it is to be stored `at_once`."""
        with self._ledger.lock:
            own = self._updatable(trial_id)
            if own is None:
                self._write(lambda c, again: _write_any(c, trial_id, change))
                return
            if at_once:
                self._store(own, own.pending | change)
            else:
                own.pending = own.pending | change
            own.show(news)

    def _store(self, own: Own, changes: Changes) -> None:
        def work(connection: Connection) -> None:
            changes.write(connection, id_of(own.trial))

        with self._naming_of(own):
            self._ledger.while_owned(own, work)
        own.pending = Changes()

    @contextmanager
    def _naming_of(self, own: Own) -> Iterator[None]:
        """Say which trial it is that is there no more."""
        try:
            yield
        except KeyError:
            name = self._study(own.study_id).name
            raise StudyGoneError(
                f"Trial {own.trial.number} of study {name!r} is not in storage={self._database} any more: "
                "somebody has deleted the study, or put the database back to an older copy."
            ) from None

    def _write(self, work: Callable[[Connection, bool], T]) -> T:
        self._check_writable()
        return self._database.write(work)

    def _check_writable(self) -> None:
        self._database.check_writable()
        self._ledger.check_not_forked()

    def check_trial_is_updatable(self, trial_id: int, trial_state: TrialState) -> None:
        check_updatable(trial_id, trial_state)

    def _updatable(self, trial_id: int) -> Own | None:
        """The trial if it is our own, None if it is not and may be written."""
        self._check_writable()
        own = self._ledger.own.get(trial_id)
        if own is not None and own.lost:
            raise own.taken()
        if own is None:
            known = any(trial_id in study.finished for study in self._studies.values())
            check_updatable(trial_id, TrialState.COMPLETE if known else self._row(trial_id).state)
        return own

    # ---- reading ----

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._ledger.lock:
            if self.owns(trial_id):
                with suppress(UpdateFinishedTrialError):  # taken over: a read tells nobody
                    self.flush(trial_id)
            return self._view(trial_id)

    def get_trial_user_attrs(self, trial_id: int) -> dict[str, Any]:
        with self._ledger.lock:
            return self._view(trial_id).user_attrs

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        with self._ledger.lock:
            return self._view(trial_id).system_attrs

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._ledger.lock:
            self.flush()
            study = self._study(study_id)
            found = self._read_news(study, states)
            own = [self._ledger.own[key].trial for key, row in study.rows.items() if self._runs_here(row)]
            found += [trial for trial in own if states is None or trial.state in states]
            found += study.finished_in(states)
            found.sort(key=lambda trial: trial.number)
        return copy.deepcopy(found) if deepcopy else found

    def get_n_trials(self, study_id: int, state: tuple[TrialState, ...] | TrialState | None = None) -> int:
        states = tuple(TrialState) if state is None else state if isinstance(state, tuple) else (state,)
        with self._naming(study_id):
            found = self._database.read(lambda c: schema.count_trials(c, study_id, states))
        if not found:
            self.get_study_name_from_id(study_id)  # KeyError where there is no such study
        return found

    def outlines(self, study_id: int, counts: str) -> list[Outline]:
        def work(connection: Connection) -> list[Outline]:
            values = schema.read_values(connection, study_id)
            excused = schema.read_false(connection, study_id, counts)
            ended = (TrialState.COMPLETE, TrialState.PRUNED)
            return [
                Outline(key, number, state, values.get(key), state in ended and key not in excused)
                for key, number, state in schema.read_states(connection, study_id)
            ]

        with self._naming(study_id):
            return self._database.read(work)

    def last_start(self, study_id: int) -> datetime | None:
        with self._naming(study_id):
            return self._database.read(lambda c: schema.read_last_start(c, study_id))

    def trials_of(self, study_id: int, trial_ids: Collection[int]) -> list[FrozenTrial]:
        with self._naming(study_id):
            return self._database.read(lambda c: schema.read_some(c, study_id, trial_ids))

    def _view(self, trial_id: int) -> FrozenTrial:
        """A trial, with what is not flushed yet."""
        own = self._ledger.own.get(trial_id)
        if own is not None and own.lost:
            with self._naming_of(own):
                return self._database.read(lambda connection: schema.read_trial(connection, trial_id))
        if own is not None:
            own.show({"params": {}, "distributions": {}, "user_attrs": {}, "system_attrs": {}})
            return own.trial
        for study in self._studies.values():
            if trial_id in study.finished:
                return study.finished[trial_id]
        return self._database.read(lambda connection: schema.read_trial(connection, trial_id))

    def _read_news(self, study: KnownStudy, states: Container[TrialState] | None) -> list[FrozenTrial]:
        with self._naming(study.study_id):
            return study.read_news(self._database, states, skip=self._runs_here)

    def _runs_here(self, row: Header) -> bool:
        """Whether it is the row of an own trial, of which memory knows all."""
        return row.state == TrialState.RUNNING and self.owns(row.trial_id)

    def _row(self, trial_id: int) -> Header:
        return self._database.read(lambda connection: schema.read_header(connection, trial_id))

    def _study(self, study_id: int) -> KnownStudy:
        return self._studies.setdefault(study_id, KnownStudy(study_id))


def _end_trial(
    connection: Connection, trial_id: int, state: TrialState, values: Sequence[float] | None
) -> datetime | None:
    if state == TrialState.WAITING:
        owners.release(connection, trial_id)
    return schema.end_trial(connection, trial_id, state, values)


def _write_any(connection: Connection, trial_id: int, change: Changes) -> None:
    check_updatable(trial_id, schema.lock_trial(connection, trial_id))
    change.write(connection, trial_id)


def _checked(key: str) -> str:
    if len(key) > _MAX_KEY:
        raise ValueError(
            f"The name {key[:40]!r}... has {len(key)} characters; Optuna stores {_MAX_KEY} at most."
        )
    return key
