"""What trials hold, written and read in a database that processes share; storage.py has the guarantees."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from optnas.storage import tables, transitions
from optnas.storage.known import KnownStudy
from optnas.storage.owned_trials import OwnedTrials, read_trial
from optnas.storage.ownership import Own
from optnas.storage.tables import Changes, Header

_MAX_KEY = 512  # of names of parameters and attributes, in Optuna's tables


class SharedStorage(OwnedTrials):
    """Optuna's storage interface on a `Database`; made by `open_storage`.

    Beyond the interface: `claim`, `flush`, `owns`, `stale_trials`, `take_over`, `requeue`,
    `requeue_abandoned`, `arguments`, `close`.
    """

    def flush(self, trial_id: int | None = None) -> None:
        """Write what is buffered, of one trial or of all that run here; when it returns, it is stored.

        Raises TrialTakenError if that one trial is another's now; nothing was written then.
        """
        with self._lock:
            if trial_id is None:
                for key in list(self._own):
                    # Taken over, or deleted: its objective is told at its own next write.
                    with suppress(UpdateFinishedTrialError, KeyError):
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
                self.check_trial_is_updatable(trial_id, transitions.lock_trial(connection, trial_id))
                transitions.end_trial(connection, trial_id, state, values)

            self._database.write(work)
            return True

    def _end(self, own: Own, state: TrialState, values: Sequence[float] | None) -> None:
        trial_id = own.trial._trial_id

        def work(connection: Connection) -> datetime | None:
            own.pending.write(connection, trial_id)
            return transitions.end_trial(connection, trial_id, state, values)

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
        self.check_trial_is_updatable(trial_id, transitions.lock_trial(connection, trial_id))
        change.write(connection, trial_id)

    def _store(self, own: Own, changes: Changes) -> None:
        def work(connection: Connection) -> None:
            changes.write(connection, own.trial._trial_id)

        self._while_owned(own, work)
        own.pending = Changes()

    def _while_owned(
        self, own: Own, work: Callable[[Connection], datetime | None], end: TrialState | None = None
    ) -> datetime | None:
        """Run `work` in a transaction in which the trial is still ours; `end` is the state that it sets."""
        trial_id = own.trial._trial_id
        token_after = None if end == TrialState.WAITING else own.token

        def checked(connection: Connection, again: bool) -> datetime | None:
            state, token = transitions.lock_owned(connection, trial_id)
            if again and state == end and token == token_after:
                return tables.read_header(connection, trial_id).complete  # an earlier try was committed
            if token == own.token:
                self.check_trial_is_updatable(trial_id, state)
            if token != own.token or state != TrialState.RUNNING:
                raise own.taken()
            return work(connection)

        if own.lost:
            raise own.taken()
        try:
            return self._database.write(checked)
        except (UpdateFinishedTrialError, KeyError):  # taken over, told, or deleted by somebody else
            own.lost = True
            raise

    def check_trial_is_updatable(self, trial_id: int, trial_state: TrialState) -> None:
        """As Optuna's, but without reading the trial for the message: it is called within transactions."""
        if trial_state.is_finished():
            raise UpdateFinishedTrialError(
                f"The trial with the id {trial_id} has finished; it cannot change."
            )

    def _updatable(self, trial_id: int) -> Own | None:
        """The trial if it is our own, None if it is not and may be written."""
        own = self._own.get(trial_id)
        if own is not None and own.lost:
            raise own.taken()
        if own is None:
            known = any(trial_id in study.finished for study in self._studies.values())
            state = TrialState.COMPLETE if known else self._row(trial_id).state
            self.check_trial_is_updatable(trial_id, state)
        return own

    # ---- reading ----

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            with suppress(UpdateFinishedTrialError):  # taken over: a read tells nobody
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

    def _view(self, trial_id: int) -> FrozenTrial:
        """A trial, with what is not flushed yet."""
        own = self._own.get(trial_id)
        if own is not None and not own.lost:
            own.show({"params": {}, "distributions": {}, "user_attrs": {}, "system_attrs": {}})
            return own.trial
        for study in self._studies.values():
            if trial_id in study.finished:
                return study.finished[trial_id]
        return self._database.read(lambda connection: read_trial(connection, trial_id))

    def _read_news(self, study: KnownStudy, states: Container[TrialState] | None) -> list[FrozenTrial]:
        return study.read_news(self._database, states, skip=self._runs_here)

    def _runs_here(self, row: Header) -> bool:
        """Whether it is the row of an own trial, of which memory knows all."""
        return row.state == TrialState.RUNNING and self.owns(row.trial_id)


def _checked(key: str) -> str:
    if len(key) > _MAX_KEY:
        raise ValueError(
            f"The name {key[:40]!r}... has {len(key)} characters; Optuna stores {_MAX_KEY} at most."
        )
    return key
