"""One database of trials: its URL, connections, schema, and transactions that outlast locks and restarts."""

from __future__ import annotations

import os
import random
import sqlite3
import time
import weakref
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError

from optnas.errors import StorageUnavailableError
from optnas.storage.faults import ADVICE, database_error, passes, without_parameters
from optnas.storage.location import check_file, file_id
from optnas.storage.tables import attempts

T = TypeVar("T")

_SCHEMA_LOCK = 0x6F70746E6173  # "optnas"

# Passwords are left out when a storage is pickled; a copy in the same process finds them again here.
_passwords: dict[str, str] = {}


class Database:
    """Connections to a SQLite file or a Postgres database, and transactions on it.

    `read` and `write` run a function on a connection. What passes by itself (a lock that another program
    holds, a server that restarts, a file that is moved and comes back) is waited for with growing pauses,
    `patience` seconds at most; then, and at once for what does not pass, StorageUnavailableError says why.
    A function given to `write` may therefore run again although its transaction did happen, the answer
    having been lost; it is told so, and must be idempotent.
    """

    def __init__(self, url: URL, *, patience: float, full_sync: bool) -> None:
        self.url = url
        self.patience = patience
        self.full_sync = full_sync
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._file = Path(url.database or "") if self.is_sqlite else None
        self._file_id: tuple[int, int] | None = None
        if self._file is not None:
            check_file(self._file)
        try:
            self.rdb = self._open()
        except ImportError as error:
            raise ImportError(
                f"storage={self} needs the psycopg driver. Install it with: pip install 'optnas[postgres]'"
            ) from error
        self.engine = self.rdb.engine
        self._file_id = file_id(self._file)
        weakref.finalize(self, self.engine.dispose)
        _forget_connections_in_children(self.engine)

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def __repr__(self) -> str:
        return f"Database({str(self)!r})"

    def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` finds, outside any transaction."""

        def once(again: bool) -> T:
            with self.engine.connect() as connection:
                if not self.is_sqlite:  # sqlite3 begins a transaction only before a write
                    connection = connection.execution_options(isolation_level="AUTOCOMMIT")
                return work(connection)

        return self.patiently(once)

    def write(self, work: Callable[[Connection, bool], T], patience: float | None = None) -> T:
        """What `work(connection, again)` returns, once its transaction is committed.

        `again`: an earlier try may have been committed.
        """

        def once(again: bool) -> T:
            with self.engine.connect() as connection:
                if self.is_sqlite:  # the write lock first: what is read before a write stays true
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                result = work(connection, again)
                connection.commit()
                return result

        return self.patiently(once, patience)

    def patiently(self, once: Callable[[bool], T], patience: float | None = None) -> T:
        """Call `once(again)` until it does not fail by something that passes."""
        patience = self.patience if patience is None else patience
        deadline = time.monotonic() + patience
        pause, again = 0.02, False
        while True:
            try:
                self._check_still_there()
                return once(again)
            except (DBAPIError, StorageInternalError, FileNotFoundError) as error:
                cause = database_error(error)
                if cause is None:
                    raise
                if not passes(cause) or time.monotonic() > deadline:
                    raise self._explained(cause, patience) from without_parameters(cause)
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause, again = min(2 * pause, 1.0), True

    def now(self) -> sa.ColumnElement[float]:
        """The time in seconds by a clock that all processes on this database share, to compare leases.

        A SQLite file is used by one machine: its monotonic clock, which nobody sets and which stands still
        while the machine sleeps. Postgres: the server's clock.
        """
        if self.is_sqlite:
            return sa.literal(time.monotonic(), sa.Float)
        return sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()), sa.Float(53))

    def __getstate__(self) -> dict[str, Any]:
        if self.url.password is not None:
            _passwords[str(self)] = str(self.url.password)
        return {
            "url": self.url._replace(password=None).render_as_string(hide_password=False),
            "key": str(self),
            "patience": self.patience,
            "full_sync": self.full_sync,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        url = make_url(state["url"])
        if state["key"] in _passwords:  # elsewhere libpq looks into PGPASSWORD and ~/.pgpass
            url = url.set(password=_passwords[state["key"]])
        self.__init__(url, patience=state["patience"], full_sync=state["full_sync"])  # type: ignore[misc]  # opens anew

    # ---- opening ----

    def _open(self) -> RDBStorage:
        engine = sa.create_engine(self.url, **self._engine_options())
        try:
            make = self._make_sqlite_schema if self.is_sqlite else self._make_postgres_schema
            # A server that is not there is reported soon; one that is just starting is waited for.
            self.patiently(lambda again: make(engine), min(self.patience, 60.0 if self.is_sqlite else 5.0))
        finally:
            engine.dispose()
        return self.patiently(lambda again: self._rdb(skip_table_creation=True))

    def _rdb(self, **options: Any) -> RDBStorage:
        url = self.url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        return RDBStorage(url, engine_kwargs=self._engine_options(), **options)

    def _engine_options(self) -> dict[str, Any]:
        if not self.is_sqlite:
            alive = {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 30_000}
            # Whatever the server's default is: who waited for a lock must see what was written meanwhile.
            return {"connect_args": alive, "pool_use_lifo": True, "isolation_level": "READ COMMITTED"}
        synchronous = "FULL" if self.full_sync else "NORMAL"

        def connected(connection: sqlite3.Connection, record: object) -> None:
            connection.isolation_level = (
                "IMMEDIATE"  # Optuna's own writes take the lock before they write, too
            )
            connection.execute(f"PRAGMA synchronous={synchronous}")

        return {"connect_args": {"timeout": self.patience}, "pool_events": [(connected, "connect")]}

    def _make_sqlite_schema(self, engine: sa.Engine) -> None:
        """All tables in one transaction: processes that start at one moment see none or all of them."""
        with engine.connect() as connection:
            if connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            if {"alembic_version", attempts.name} <= set(sa.inspect(connection).get_table_names()):
                return
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            found = set(sa.inspect(connection).get_table_names())
            if found and "studies" not in found:
                raise StorageUnavailableError(
                    f"storage={self} is a database of another program, with the tables "
                    f"{', '.join(sorted(found)[:5])}. Choose another file."
                )
            if not found:
                for statement in _optuna_schema():
                    connection.exec_driver_sql(statement)
            attempts.create(connection, checkfirst=True)
            connection.commit()

    def _make_postgres_schema(self, engine: sa.Engine) -> None:
        """Under an advisory lock, which processes that start at the same moment wait for."""
        with engine.connect() as connection:
            if {"alembic_version", attempts.name} <= set(sa.inspect(connection).get_table_names()):
                return
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
            self._rdb().engine.dispose()
            attempts.create(connection, checkfirst=True)
            connection.commit()

    # ---- faults ----

    def _check_still_there(self) -> None:
        """Writes to a SQLite file that was deleted or replaced would succeed and be lost."""
        if self._file_id is None or self._file is None:
            return
        found = file_id(self._file)
        if found is None:
            raise FileNotFoundError(f"{self._file} is gone")
        if found != self._file_id:
            raise StorageUnavailableError(
                f"storage={self} was replaced by another file while it was open. Stop the search, put the "
                "right file in its place, and run the same search again."
            )

    def _explained(self, error: DBAPIError | FileNotFoundError, patience: float) -> StorageUnavailableError:
        text = " ".join(str(getattr(error, "orig", error)).split()).rstrip(".?")
        if self.url.password:
            text = text.replace(str(self.url.password), "***")
        advice = next((advice for part, advice in ADVICE.items() if part in text), None)
        if advice is None and passes(error):
            advice = (
                f"Waited {patience:.0f} s for it. Stored trials are kept; run the same search again later."
            )
        return StorageUnavailableError(f"storage={self}: {text}. {advice or ''}".rstrip())


@lru_cache(maxsize=1)
def _optuna_schema() -> list[str]:
    """The statements that make an empty database of the installed Optuna."""
    memory = RDBStorage("sqlite://")
    try:
        with memory.engine.connect() as connection:
            dump = connection.connection.driver_connection.iterdump()  # type: ignore[union-attr]  # sqlite3's
            return [line for line in dump if line not in ("BEGIN TRANSACTION;", "COMMIT;")]
    finally:
        memory.engine.dispose()


def _forget_connections_in_children(engine: sa.Engine) -> None:
    """A forked child must not use, nor close, its parent's connections."""
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(engine)

    def forget() -> None:
        if (alive := reference()) is not None:
            alive.dispose(close=False)

    os.register_at_fork(after_in_child=forget)
