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
    (while the database cannot be reached all leases end; live owners renew theirs once it is reachable
    again). From then on the former owner's writes raise TrialTakenError and change nothing: token and data
    are compared and written in one transaction. A process that never owned the trial may write to it as in
    Optuna (a person who tells its result, say). The owner reads its trial from memory, so it does not see
    attributes that others give to it.
Patient. A lock, a restarted server or a vanished file is waited for, `patience` seconds at most.

One study. A study that was deleted and begun anew, and a database that was put back to an older copy, are
    noticed by what a process knows of them: StudyGoneError, instead of trials that exist no more.

A process that lives on the same machine and is not stopped does not lose its trial before its lease has ended
20 times over: C code may keep Python's threads from running. A trial that something other than optnas runs is
never taken over; it holds up the end of a search only as long as it shows signs of life. A forked child of a
process that runs trials owns nothing and writes nothing.

All that a storage can do stands in base.py, and `open_storage` and `storage_of` give such a storage for every
storage of Optuna's. A database whose schema is unknown here is left to Optuna's own, with a warning.
"""

from __future__ import annotations

import os
import warnings

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, get_storage
from sqlalchemy.exc import SQLAlchemyError

from optnas import private
from optnas.errors import StorageUnavailableError
from optnas.passwords import without_password, without_secrets
from optnas.storage import schema
from optnas.storage.base import Claim, Seen, Storage
from optnas.storage.database import Database
from optnas.storage.foreign import ForeignStorage
from optnas.storage.location import parse_url
from optnas.storage.shared import SharedStorage


def open_storage(
    storage: str | os.PathLike[str] | BaseStorage | None,
    *,
    lease: float = 60.0,
    patience: float = 60.0,
    full_sync: bool = False,
    read_only: bool = False,
) -> Storage:
    """A storage for studies that several processes share and that outlives each of them.

    Args:
        storage: a URL (`sqlite:///nas.db`, `postgresql://user@host/database`), the path of a SQLite file, a
            storage of Optuna's that is open already, or None (in memory). Other URLs go to Optuna.
        lease: seconds after which a trial is taken from a process that gives no sign of life, and half as
            many for the others to notice. A process renews its lease four times in that period. Use the same
            number in all processes.
        patience: seconds to wait for a database that is locked or cannot be reached.
        full_sync: SQLite only: wait for the disk at every commit, so that power loss loses nothing either.
        read_only: only read: no table is made and nothing is written, not even beside a SQLite file (unless
            its log must be read). For the same databases as `lease` and `patience`.

    Raises:
        StorageUnavailableError: it cannot be reached or written; the message says why.
        RuntimeError: the database was made by another Optuna version; the message says what to do.
        ImportError: the driver of the database is not installed.
        ValueError: the URL cannot be read.

    Examples:
        >>> storage = optnas.open_storage("sqlite:///nas.db")
        >>> shared = optnas.create_study(objective, study_name="shared", storage=storage)
    """
    if isinstance(storage, BaseStorage):
        return _with_abilities(storage)
    if storage is None:
        return ForeignStorage(InMemoryStorage())
    url = parse_url(os.fspath(storage))
    in_memory = url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")
    if in_memory or url.get_backend_name() not in ("sqlite", "postgresql"):
        text = url.render_as_string(hide_password=False)
        try:
            return ForeignStorage(get_storage(text), without_password(url))
        except (SQLAlchemyError, ImportError, ValueError) as error:
            reason = without_secrets(str(error), text)
            raise StorageUnavailableError(f"storage={without_password(url)}: {reason}") from None
    database = Database(url, patience=patience, full_sync=full_sync, read_only=read_only)
    if database.version != schema.SCHEMA:
        warnings.warn(
            f"storage={database} has schema {database.version}, which this optnas does not know. Optuna's "
            "own storage is used: slower, and a trial may be taken twice. Update optnas.",
            stacklevel=2,
        )
        return ForeignStorage(get_storage(database.rdb), str(database))
    return SharedStorage(database, lease)


def storage_of(study: optuna.Study) -> Storage:
    """The storage of any study, behind the interface `Storage`: one of optnas as it is, another one wrapped.

    Examples:
        >>> isinstance(optnas.storage.storage_of(optuna.create_study()), optnas.storage.Storage)
        True
    """
    return _with_abilities(private.storage(study))


def claim(
    study: optuna.Study,
    n_trials: int | None,
    counts: str,
    wanted: int | None = None,
    seen: Seen | None = None,
) -> Claim:
    """Take a WAITING trial or create one, unless `n_trials` of the study count, run or are held already.

    A trial counts if it is COMPLETE or PRUNED, unless its user attribute `counts` is false. Atomic between
    processes for storages that they can share, between threads for others. `optuna.Trial(study, trial_id)`
    runs it. With `wanted`, take the trial of that id, which was held, if it still waits. With `seen`, create
    no trial and take none that is `wanted` unless the study still stands as it was seen.

    Examples:
        >>> fresh = optnas.create_study(objective)
        >>> claimed = optnas.storage.claim(fresh, n_trials=1, counts="counts")
        >>> optuna.Trial(fresh, claimed.trial_id).number
        0
    """
    private.forget_trials(study)
    return storage_of(study).claim(private.study_id(study), n_trials, counts, wanted, seen)


def _with_abilities(storage: BaseStorage) -> Storage:
    return storage if isinstance(storage, Storage) else ForeignStorage(get_storage(storage))
