"""Storage that keeps up: Optuna's databases, faster, shared by workers that may die at any moment.

`open_storage("sqlite:///nas.db")` gives a storage for any Optuna study; the database stays a plain Optuna
database, which Optuna, its dashboard and every other program open as before. What it guarantees, and how:

Acknowledged means stored. What `flush`, a report or a change of state has returned from survives the death
    of the process. (Under power loss SQLite may lose the last moments, in order, unless `full_sync=True`;
    Postgres does as its server is set.) Parameters and attributes of a trial that runs here are kept in
    memory and written in one transaction by the first of: `flush`, a report, a change of state, a read of
    trials through this storage, the next renewal of the lease. Finished trials never change, so they are
    read once.
Once. A trial is created, or taken from the queue, under a key stored in the same transaction. When the
    answer to a COMMIT is lost, the request is repeated and finds what it did. All other writes overwrite.
Atomic. Taking a WAITING trial, and `claim` with its budget, are one transaction that holds the write lock of
    the file (SQLite) or the row of the study, which Optuna locks too (Postgres).
Owned. Who runs a trial is stored beside it, with a lease that a thread renews. A trial may be taken over
    at once when its process is dead, or when its lease has ended and is not renewed for half as long again
    (all end where the database is away, and who lives renews them when it is back). From then on the
    former owner's writes raise TrialTakenError and change nothing: token and data are compared and written
    in one transaction. A process that never owned the trial may write to it as in Optuna (a person who tells
    its result, say). The owner reads its trial from memory, so it does not see attributes that others give
    to it.
Patient. A lock, a restarted server or a vanished file is waited for, `patience` seconds at most.

A database whose schema is unknown here is left to Optuna's own storage, with a warning.
"""

from __future__ import annotations

import os
import threading
import warnings

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, get_storage
from optuna.trial import TrialState

from optnas.errors import StorageUnavailableError, TrialTakenError
from optnas.storage import tables
from optnas.storage.database import Database
from optnas.storage.lease import Loss, StaleTrial
from optnas.storage.location import parse_url
from optnas.storage.ownership import Claim
from optnas.storage.shared_storage import SharedStorage
from optnas.storage.transitions import NOT_COUNTED

__all__ = [
    "Claim",
    "Loss",
    "SharedStorage",
    "StaleTrial",
    "StorageUnavailableError",
    "TrialTakenError",
    "claim",
    "open_storage",
]

_claiming = threading.Lock()


def open_storage(
    storage: str | os.PathLike[str] | BaseStorage | None,
    *,
    lease: float = 60.0,
    patience: float = 60.0,
    full_sync: bool = False,
) -> BaseStorage:
    """A storage for studies that several processes share and that outlives each of them.

    Args:
        storage: a URL (`sqlite:///nas.db`, `postgresql://user@host/database`), the path of a SQLite file, a
            storage that is open already (returned as it is), or None (in memory). Other URLs go to Optuna.
        lease: seconds that a trial stays with a process that gives no sign of life, and half as many for
            others to see it; a process gives four in that time. The same for all processes.
        patience: seconds to wait for a database that is locked or cannot be reached.
        full_sync: SQLite only: wait for the disk at every commit, so that power loss loses nothing either.

    Raises:
        StorageUnavailableError: it cannot be reached or written; the message says why.
        RuntimeError: the database was made by another Optuna version; the message says what to do.
        ImportError: the driver of the database is not installed.
        ValueError: the URL cannot be read.
    """
    if isinstance(storage, BaseStorage):
        return storage
    if storage is None:
        return InMemoryStorage()
    url = parse_url(os.fspath(storage))
    in_memory = url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")
    if in_memory or url.get_backend_name() not in ("sqlite", "postgresql"):
        return get_storage(url.render_as_string(hide_password=False))
    database = Database(url, patience=patience, full_sync=full_sync)
    version = database.patiently(lambda again: database.rdb.get_current_version())
    if version not in tables.SCHEMAS:
        warnings.warn(
            f"storage={database} has schema {version}, which this optnas does not know. Optuna's own storage "
            "is used: slower, and a trial may be taken twice. Update optnas.",
            stacklevel=2,
        )
        return get_storage(database.rdb)
    return SharedStorage(database, lease)


def claim(study: optuna.Study, n_trials: int | None) -> Claim:
    """Take a WAITING trial or create one, unless `n_trials` of the study count or run already.

    A trial counts if it is COMPLETE or PRUNED and neither a twin nor infeasible. Atomic between processes for
    storages of `open_storage`, between threads for others. `optuna.Trial(study, trial_id)` runs it.
    """
    study._thread_local.cached_all_trials = None  # as study.ask does: once a trial
    if isinstance(study._storage, SharedStorage):
        return study._storage.claim(study._study_id, n_trials)
    with _claiming:
        trials = study.get_trials(deepcopy=False)
        running = sum(trial.state == TrialState.RUNNING for trial in trials)
        counted = sum(
            trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            and not any(name in trial.user_attrs for name in NOT_COUNTED)
            for trial in trials
        )
        if n_trials is not None and counted + running >= n_trials:
            return Claim(None, counted, running)
        trial_id = study._pop_waiting_trial_id()
        if trial_id is None:
            trial_id = study._storage.create_new_trial(study._study_id)
        return Claim(trial_id, counted, running)
