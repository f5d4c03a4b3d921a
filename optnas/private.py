"""Every private name of Optuna that we need, under a public one: what an update of Optuna may break."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna._hypervolume import compute_hypervolume
from optuna._hypervolume.box_decomposition import get_non_dominated_box_bounds
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage, _CachedStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages._rdb import models
from optuna.storages._rdb import storage as _rdb
from optuna.storages.journal import JournalFileBackend
from optuna.study._frozen import FrozenStudy
from optuna.study._multi_objective import _fast_non_domination_rank, _is_pareto_front
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import inspect, text
from sqlalchemy.engine import URL, Connection

__all__ = [
    "BaseHeartbeat",
    "FrozenStudy",
    "database_url",
    "forget_trials",
    "hypervolume",
    "is_stopped",
    "journal_file",
    "kind",
    "models",
    "on_front",
    "open_boxes",
    "place",
    "ranks",
    "reopen_in_memory",
    "set_study_system_attr",
    "set_system_attr",
    "stoppable",
    "storage",
    "stored",
    "study_id",
    "study_system_attrs",
    "trial_id",
]


Array = NDArray[np.float64]


class _MigrationContext:
    """Alembic's context, as far as opening a database needs it: to read which version its tables have.

    Alembic takes a third of a second to load, which a command that lists studies would pay each time. It is
    loaded when more is asked of it: for tables that are new, or of another version.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get_current_revision(self) -> str | None:
        if not inspect(self._connection).has_table("alembic_version"):
            return None
        revisions = self._connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
        return str(revisions[0]) if revisions else None

    def __getattr__(self, name: str) -> Any:
        from alembic.migration import MigrationContext

        return getattr(MigrationContext.configure(self._connection), name)


class _Migration:
    """Stands for the module `alembic.migration` in Optuna's storage."""

    class MigrationContext:
        configure = _MigrationContext


setattr(_rdb, "alembic_migration", _Migration)  # noqa: B010  # mypy takes it for the module


def ranks(losses: Array) -> NDArray[np.int64]:
    """Of each row: 0 where none is as good in all columns and better in one, 1 where only such are, ..."""
    return np.asarray(_fast_non_domination_rank(losses))


def on_front(losses: Array) -> NDArray[np.intp]:
    """The rows that none other is as good as in all columns and better in one."""
    return np.flatnonzero(_is_pareto_front(losses, assume_unique_lexsorted=False))


def hypervolume(losses: Array, reference: Array) -> float:
    """The volume that rows below `reference` dominate up to it; lower is better."""
    below = losses[(losses < reference).all(axis=1)]
    return float(compute_hypervolume(below, reference)) if len(below) else 0.0


def open_boxes(losses: Array, reference: Array) -> tuple[Array, Array]:
    """The region up to `reference` that no row dominates, as disjoint boxes: lower and upper corners."""
    below = losses[(losses < reference).all(axis=1)]
    if not len(below):
        return np.full((1, len(reference)), -np.inf), reference[None]
    lower, upper = get_non_dominated_box_bounds(below, reference)
    return lower, upper


def storage(study: optuna.Study) -> BaseStorage:
    """Where the study lives, as Optuna knows it."""
    return study._storage


def study_id(study: optuna.Study) -> int:
    return study._study_id


def trial_id(trial: FrozenTrial | optuna.Trial) -> int:
    return trial._trial_id


def place(study: optuna.Study, trial: FrozenTrial) -> tuple[int, int]:
    """What tells a trial from all others that one process may see in a storage."""
    return study._study_id, trial.number


def set_system_attr(study: optuna.Study, trial: FrozenTrial, name: str, value: Any) -> None:
    """Write a system attribute of a trial that runs; Optuna keeps them apart from the user's."""
    study._storage.set_trial_system_attr(trial._trial_id, name, value)


def study_system_attrs(study: optuna.Study) -> dict[str, Any]:
    """What Optuna and samplers noted of a study."""
    return study._storage.get_study_system_attrs(study._study_id)


def set_study_system_attr(study: optuna.Study, name: str, value: Any) -> None:
    """Note something of a study that people need not see."""
    study._storage.set_study_system_attr(study._study_id, name, value)


def is_stopped(study: optuna.Study) -> bool:
    """Whether `study.stop()` was called since `stoppable` began."""
    return study._stop_flag


@contextmanager
def stoppable(study: optuna.Study) -> Iterator[None]:
    """Let `study.stop()` do no more than note it, as within `study.optimize`."""
    study._stop_flag = False
    study._thread_local.in_optimize_loop = True
    try:
        yield
    finally:
        study._thread_local.in_optimize_loop = False


def stored(trial: optuna.Trial) -> FrozenTrial:
    """A running trial as the storage has it, with the reports of earlier attempts."""
    return trial.storage.get_trial(trial._trial_id)


def forget_trials(study: optuna.Study) -> None:
    """Let a study read its trials again, as `study.ask` does: once a trial."""
    study._thread_local.cached_all_trials = None


def _bare(storage: BaseStorage) -> BaseStorage:
    """The storage that Optuna wrapped into a cache, or the storage itself."""
    return storage._backend if isinstance(storage, _CachedStorage) else storage


def kind(storage: BaseStorage) -> str:
    """The class of a storage as people write it."""
    return type(_bare(storage)).__name__


def reopen_in_memory(storage: BaseStorage, trial_id: int) -> bool:
    """Let a PRUNED trial wait again; False in any storage but Optuna's in memory, where it cannot."""
    if not isinstance(storage, InMemoryStorage):
        return False
    with storage._lock:
        trial = copy.copy(storage._get_trial(trial_id))
        if trial.state != TrialState.PRUNED:
            return False
        trial.state, trial.values, trial.datetime_complete = TrialState.WAITING, None, None
        storage._set_trial(trial_id, trial)
    return True


def database_url(storage: BaseStorage) -> URL | None:
    """The URL of the database of Optuna's RDBStorage; None of any other storage."""
    bare = _bare(storage)
    return bare.engine.url if isinstance(bare, RDBStorage) else None


def journal_file(storage: BaseStorage) -> Path | None:
    """The file of Optuna's journal; None of any other storage, and of a journal on a server."""
    bare = _bare(storage)
    if not isinstance(bare, JournalStorage) or not isinstance(bare._backend, JournalFileBackend):
        return None
    return Path(os.path.realpath(bare._backend._file_path))
