"""The part of the storage interface that concerns studies, not trials.

Most of it is rare and left to Optuna's code; user attributes (seed, folder) are read several times a trial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy
from optuna.study._study_direction import StudyDirection
from sqlalchemy.engine import Connection

from optnas.storage import tables, transitions
from optnas.storage.database import Database

T = TypeVar("T")


class StudyStorage(BaseStorage):
    """Optuna's RDBStorage for studies, with the patience of a `Database`; abstract in all about trials."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rdb = database.rdb

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._patiently(self._rdb.create_new_study, directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._database.write(lambda connection, again: transitions.forget_study(connection, study_id))
        self._patiently(self._rdb.delete_study, study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._patiently(self._rdb.set_study_user_attr, study_id, key, value)

    def settle_study_user_attr(self, study_id: int, key: str, value: Any) -> Any:
        """Set an attribute unless it is set; of processes that do so at one moment, one decides for all.

        Returns what it is.
        """

        def work(connection: Connection, again: bool) -> Any:
            tables.lock_study(connection, study_id)
            known = tables.read_study_user_attrs(connection, study_id)
            if key not in known:
                tables.insert_study_user_attr(connection, study_id, key, value)
            return known.get(key, value)

        return self._database.write(work)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._patiently(self._rdb.set_study_system_attr, study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._patiently(self._rdb.get_study_id_from_name, study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._patiently(self._rdb.get_study_name_from_id, study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._patiently(self._rdb.get_study_directions, study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._database.read(lambda connection: tables.read_study_user_attrs(connection, study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._patiently(self._rdb.get_study_system_attrs, study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._patiently(self._rdb.get_all_studies)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self._patiently(self._rdb.get_trial_id_from_study_id_trial_number, study_id, trial_number)

    def remove_session(self) -> None:
        self._rdb.remove_session()

    def _patiently(self, method: Callable[..., T], *arguments: Any) -> T:
        return self._database.patiently(lambda again: method(*arguments))
