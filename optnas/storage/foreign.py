"""Any storage of Optuna's, in memory or already open, behind the same interface as ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas.private import (
    BaseHeartbeat,
    FrozenStudy,
    database_url,
    journal_file,
    kind,
    reopen_in_memory,
    trial_id,
)
from optnas.storage.base import HELD, Claim, Place, Seen, Storage, counted, is_held

_LACKS = (
    "storage={} does not know who runs a trial: one whose process is killed stays RUNNING for ever, and "
    "processes cannot share a budget. Give optnas the URL or the path instead, such as "
    "storage='sqlite:///nas.db' or 'postgresql://user@host/database'."
)

_REFUSES = (
    "storage={} passes on Optuna's own calls only, so that optnas does not see which process runs a "
    "trial: it stays RUNNING when that process dies, and processes exceed the budget. Give optnas the "
    "URL of the database behind it, such as storage='postgresql://user@host/database'; if that allows "
    "too few connections, give the URL of a pooler in front of it, such as PgBouncer."
)

_claiming = threading.Lock()


class ForeignStorage(Storage, BaseHeartbeat):
    """Passes everything on to a storage without owners, including its heartbeat.

    RUNNING trials do not count against a budget, since it is not known whether they still run.
    """

    def __init__(self, storage: BaseStorage, name: str = "") -> None:
        self._storage = storage
        self._heartbeat = storage if isinstance(storage, BaseHeartbeat) else None
        self._name = name or f"{kind(storage)}(...)"
        url, file = database_url(storage), journal_file(storage)
        if url is not None:
            self.place = Place.of(url)
        elif file is not None:
            self.place = Place(file=file)
        elif not isinstance(storage, InMemoryStorage):
            self.place = Place(server=kind(storage))
        self.refuses = _REFUSES.format(self._name) if kind(storage) == "GrpcStorageProxy" else ""
        # A study in memory ends with its process, so no trial of it is left RUNNING.
        self.lacks = "" if isinstance(storage, InMemoryStorage) else _LACKS.format(self._name)

    def __repr__(self) -> str:
        return f"ForeignStorage({self._name})"

    def claim(
        self,
        study_id: int,
        n_trials: int | None,
        counts: str,
        wanted: int | None = None,
        seen: Seen | None = None,
    ) -> Claim:
        with _claiming:
            trials = self.get_all_trials(study_id, deepcopy=False)
            running = sum(trial.state == TrialState.RUNNING for trial in trials)
            waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
            n_held = sum(map(is_held, waiting))
            n_counted = sum(counted(trial, counts) for trial in trials)
            budget = n_counted, running, n_held
            refused = seen is not None and Seen.of(trials) != seen
            if wanted is not None:
                if refused:
                    return Claim(None, *budget, refused=True)
                if any(trial_id(trial) == wanted for trial in waiting) and self._start(wanted):
                    self.set_trial_system_attr(wanted, HELD, False)
                    return Claim(wanted, *budget)
                return Claim(None, *budget)
            if n_trials is not None and n_counted + n_held >= n_trials:
                return Claim(None, *budget)
            for trial in waiting:
                if not is_held(trial) and self._start(trial_id(trial)):
                    return Claim(trial_id(trial), *budget)
            if refused:
                return Claim(None, *budget, refused=True)
            return Claim(self.create_new_trial(study_id), *budget)

    def _start(self, trial_id: int) -> bool:
        return self.set_trial_state_values(trial_id, TrialState.RUNNING)

    def reopen(self, trial_id: int) -> bool:
        with _claiming:
            return is_held(self.get_trial(trial_id)) and reopen_in_memory(self._storage, trial_id)

    # ---- handed on ----

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._storage.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._storage.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._storage.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._storage.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._storage.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._storage.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._storage.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._storage.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._storage.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._storage.get_all_studies()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self._storage.create_new_trial(study_id, template_trial)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._storage.set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        return self._storage.set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._storage.set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._storage.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._storage.set_trial_system_attr(trial_id, key, value)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._storage.get_trial(trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._storage.get_all_trials(study_id, deepcopy, states)

    def get_n_trials(self, study_id: int, state: tuple[TrialState, ...] | TrialState | None = None) -> int:
        return self._storage.get_n_trials(study_id, state)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return self._storage.get_best_trial(study_id)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, trial_number)

    def get_trial_number_from_id(self, trial_id: int) -> int:
        return self._storage.get_trial_number_from_id(trial_id)

    def get_trial_param(self, trial_id: int, param_name: str) -> float:
        return self._storage.get_trial_param(trial_id, param_name)

    def remove_session(self) -> None:
        self._storage.remove_session()

    # ---- Optuna's heartbeat, where the storage has one ----

    def record_heartbeat(self, trial_id: int) -> None:
        if self._heartbeat is not None:
            self._heartbeat.record_heartbeat(trial_id)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        return [] if self._heartbeat is None else self._heartbeat._get_stale_trial_ids(study_id)

    def get_heartbeat_interval(self) -> int | None:
        return None if self._heartbeat is None else self._heartbeat.get_heartbeat_interval()

    def get_heartbeat_stale_trial_callback(self) -> Callable[[optuna.Study, FrozenTrial], None] | None:
        return None if self._heartbeat is None else self._heartbeat.get_heartbeat_stale_trial_callback()
