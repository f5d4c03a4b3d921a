"""One database of trials: its URL, its connections, and transactions that outlast locks and restarts."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError

from optnas.errors import StorageUnavailableError
from optnas.passwords import without_password, without_secrets
from optnas.storage import owners, schema
from optnas.storage.faults import advice, database_error, is_answer, passes, without_parameters
from optnas.storage.location import check_file, file_id, has_wal_format

T = TypeVar("T")

logger = logging.getLogger(__name__)

SILENCE = 5.0
"""Seconds of waiting for a database after which a process says what it waits for."""

_SCHEMA_LOCK = 0x6F70746E6173  # "optnas"

# A wait for a lock ends so soon and begins anew, for a process in it hears no signal (seconds).
_ONE_WAIT = 1.0

# A client that vanishes in the middle of a transaction (power, network) must not keep the study's row locked
# for hours. The limits hold for the session; but a pooler such as PgBouncer gives the session to other
# programs as well, so behind one they are set again with each transaction.
_PREPARED_AFTER = 5  # executions, psycopg's default
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
_LIMITS = {"lock_timeout": f"{_ONE_WAIT:.0f}s", "idle_in_transaction_session_timeout": "30s"}
_BEGIN_POOLED = "; ".join([_BEGIN, *(f"SET LOCAL {name} = '{value}'" for name, value in _LIMITS.items())])

# Passwords are left out when a storage is pickled; a copy in the same process finds them again here.
_passwords: dict[str, str] = {}

_Pausing = Callable[[], AbstractContextManager[None]]
_pausing: ContextVar[_Pausing] = ContextVar("pausing", default=nullcontext)


@contextmanager
def waits_in(pausing: _Pausing) -> Iterator[None]:
    """Let waits for a database happen in contexts of `pausing`, in which signals may end them."""
    token = _pausing.set(pausing)
    try:
        yield
    finally:
        _pausing.reset(token)


class Database:
    """Connections to a SQLite file or a Postgres database, and transactions on it.

    `read` and `write` run a function on a connection. What passes by itself (a lock that another program
    holds, a server that restarts or has no connection left, a file that is moved and comes back) is waited
    for with growing pauses, `patience` seconds at most, and said; then, and at once for what does not pass,
    StorageUnavailableError says why. A function given to `write` may therefore run again although its
    transaction did happen, the answer having been lost; it is told so, and must be idempotent.
    """

    def __init__(self, url: URL, *, patience: float, full_sync: bool, read_only: bool = False) -> None:
        self.url = url
        self.patience = patience
        self.full_sync = full_sync
        self.read_only = read_only
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._file = Path(url.database or "") if self.is_sqlite else None
        self._file_id: tuple[int, int] | None = None
        cut_off = False
        if self._file is not None:
            check_file(self._file, must_exist=read_only)
            cut_off = not Path(f"{self._file}-wal").exists() and has_wal_format(self._file)
        try:
            self.rdb = self._open()
        except ImportError as error:
            if self.is_sqlite:
                raise
            raise ImportError(
                f"storage={self} needs the psycopg driver. Install it with: pip install 'optnas[postgres]'"
            ) from error
        self.engine = self.rdb.engine
        self._file_id = file_id(self._file)
        weakref.finalize(self, self.engine.dispose)
        _forget_connections_in_children(self.engine)
        if cut_off and not self.read(schema.count_studies):
            logger.warning(
                "storage=%s holds no study. If it is a copy of a file that was in use, its studies are in "
                "the log beside that file (%s-wal): copy both, or copy when the search has ended.",
                self,
                self._file and self._file.name,
            )

    def __str__(self) -> str:
        return without_password(self.url)

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
        self.check_writable()

        def once(again: bool) -> T:
            with self._begin(self.engine) as connection:
                result = work(connection, again)
                connection.commit()
                return result

        return self.patiently(once, patience)

    def patiently(
        self, once: Callable[[bool], T], patience: float | None = None, *, opening: bool = False
    ) -> T:
        """Call `once(again)` until it does not fail by something that passes.

        `opening`: a server that does not answer at all is reported soon.
        """
        patience = self.patience if patience is None else patience
        began, told = time.monotonic(), False
        pause, again = 0.02, False
        while True:
            try:
                self._check_still_there()
                return once(again)
            except (DBAPIError, StorageInternalError, FileNotFoundError) as error:
                cause = database_error(error)
                if cause is None:
                    raise
                waited = time.monotonic() - began
                nobody = opening and not self.is_sqlite and not is_answer(cause)
                limit = min(patience, 5.0) if nobody else patience
                if not passes(cause) or waited >= limit:
                    raise self._explained(cause, limit) from self._harmless(cause)
                if waited >= SILENCE and not told:
                    told = True
                    logger.warning("Waiting for storage=%s: %s.", self, self._text(cause))
            with _pausing.get()():
                time.sleep(pause * random.uniform(0.5, 1.0))
            pause, again = min(2 * pause, 1.0), True

    def check_writable(self) -> None:
        if self.read_only:
            raise StorageUnavailableError(
                f"storage={self} was opened with read_only=True, to look at it; open it without, to write."
            )

    def now(self) -> sa.ColumnElement[float]:
        """The time in seconds by a clock that all processes on this database share, to compare leases.

        A SQLite file is used by one machine: its monotonic clock, which nobody sets and which stands still
        while the machine sleeps. Postgres: the server's clock.
        """
        if self.is_sqlite:
            return sa.literal(time.monotonic(), sa.Float)
        return sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()), sa.Float(53))

    def fold_log(self, how: str = "TRUNCATE") -> None:
        """Write the log of a SQLite file into it, as far as nobody reads or writes just now."""
        if self.is_sqlite and not self.read_only:
            with self.engine.connect() as connection:
                connection.exec_driver_sql(f"PRAGMA wal_checkpoint({how})")

    def __getstate__(self) -> dict[str, Any]:
        url = self.url._replace(password=None).render_as_string(hide_password=False)
        if self.url.password is not None:
            _passwords[url] = str(self.url.password)
        return {
            "url": url,
            "patience": self.patience,
            "full_sync": self.full_sync,
            "read_only": self.read_only,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        url = make_url(state["url"])
        if state["url"] in _passwords:  # elsewhere libpq looks into PGPASSWORD and ~/.pgpass
            url = url.set(password=_passwords[state["url"]])
        self.__init__(**state | {"url": url})  # type: ignore[misc]  # opens anew

    # ---- opening ----

    def _open(self) -> RDBStorage:
        engine = sa.create_engine(self.url, **self._engine_options())
        try:
            self.patiently(lambda again: self._prepare(engine), opening=True)
        finally:
            engine.dispose()
        url = self.url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        options: dict[str, Any] = {"engine_kwargs": self._engine_options(), "skip_table_creation": True}
        # Its own check takes a second connection, which a server may not have.
        rdb = self.patiently(lambda again: RDBStorage(url, skip_compatibility_check=True, **options))
        self.version = self.patiently(lambda again: rdb.get_current_version())
        if self.version != schema.SCHEMA:
            self.patiently(lambda again: RDBStorage(url, **options))  # raises RuntimeError, with advice
        return rdb

    def _engine_options(self) -> dict[str, Any]:
        if not self.is_sqlite:
            alive = {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 30_000}
            arguments = {**alive, "prepare_threshold": None}  # until it is known that no pooler is between
            # Of the few connections that a server has, a process keeps one. Whatever the server's default is:
            # who waited for a lock must see what was written meanwhile.
            pool = {"pool_size": 1, "max_overflow": 20, "pool_use_lifo": True}
            return {
                "connect_args": arguments,
                "isolation_level": "READ COMMITTED",
                "pool_events": [(_settle_session, "connect")],
                **pool,
            }
        if self.read_only:
            return {"creator": self._look, "poolclass": sa.QueuePool}
        synchronous = "FULL" if self.full_sync else "NORMAL"

        def connected(connection: sqlite3.Connection, record: object) -> None:
            connection.isolation_level = (
                "IMMEDIATE"  # Optuna's own writes take the lock before they write, too
            )
            connection.execute(f"PRAGMA synchronous={synchronous}")

        return {"connect_args": {"timeout": _ONE_WAIT}, "pool_events": [(connected, "connect")]}

    def _look(self) -> sqlite3.Connection:
        """A connection that changes nothing, not even the files beside a SQLite file."""
        assert self._file is not None

        def connect(how: str) -> sqlite3.Connection:
            assert self._file is not None
            uri = f"{self._file.as_uri()}?{how}"
            return sqlite3.connect(uri, uri=True, timeout=_ONE_WAIT, check_same_thread=False)

        log, index = (Path(f"{self._file}{end}") for end in ("-wal", "-shm"))
        nobody_writes = not log.exists() or (log.stat().st_size == 0 and not index.exists())
        if nobody_writes and has_wal_format(self._file):
            return connect("mode=ro&immutable=1")  # or SQLite would make both files
        return connect("mode=ro")

    def _prepare(self, engine: sa.Engine) -> None:
        """Make what is missing of the tables, in one transaction: others see none or all of it."""
        with engine.connect() as connection:
            if self.is_sqlite and not self.read_only and _journal_mode(connection) != "wal":
                self._check_kind(set(sa.inspect(connection).get_table_names()))
                connection.rollback()
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            found = set(sa.inspect(connection).get_table_names())
            self._check_kind(found)
            ours = owners.are_made(connection, found, str(self))
            if (schema.are_made(found) and ours) or self.read_only:
                return
        with self._begin(engine) as connection:
            if not self.is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
            found = set(sa.inspect(connection).get_table_names())
            self._check_kind(found)
            if not schema.are_made(found):
                schema.make(connection)
            if not owners.are_made(connection, found, str(self)):
                owners.make(connection, found)
            connection.commit()

    def _check_kind(self, found: set[str]) -> None:
        if self.is_sqlite and found and schema.studies.name not in found:
            raise StorageUnavailableError(
                f"storage={self} is a database of another program, with the tables "
                f"{', '.join(sorted(found)[:5])}. Choose another file."
            )
        if self.read_only and not schema.are_made(found):
            raise StorageUnavailableError(
                f"storage={self} holds no studies: nothing has been stored in it yet."
            )

    @contextmanager
    def _begin(self, engine: sa.Engine) -> Iterator[Connection]:
        """A connection in a transaction that writes, and that is rolled back unless it is committed."""
        with engine.connect() as connection:
            if self.is_sqlite:  # the write lock first: what is read before a write stays true
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
                # Either way one message there and back.
                connection.exec_driver_sql(_BEGIN_POOLED if connection.info["pooled"] else _BEGIN)
            yield connection

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

    def _explained(self, error: DBAPIError | FileNotFoundError, waited: float) -> StorageUnavailableError:
        text = self._text(error)
        help = advice(text)
        if passes(error):
            help += f" Waited {waited:.0f} s for it. Stored trials are kept; run the same search again later."
        return StorageUnavailableError(f"storage={self}: {text}. {help.strip()}".rstrip())

    def _text(self, error: DBAPIError | FileNotFoundError) -> str:
        """What the driver says, without what nobody may see."""
        text = " ".join(str(getattr(error, "orig", error)).split()).rstrip(".?")
        return without_secrets(text, self.url)

    def _harmless(self, error: DBAPIError | FileNotFoundError) -> BaseException | None:
        """The driver's error as a cause; SQLAlchemy's repeats statement and values in its message."""
        cause = without_parameters(error)
        return None if without_secrets(str(cause), self.url) != str(cause) else cause


def _settle_session(connection: Any, record: Any) -> None:
    """Make a new connection to Postgres faster where its session is ours alone, and set its limits.

    Behind a pooler, the next transaction may go to another session, which knows neither what was prepared nor
    what was set. A pooler invents the process id that it tells its clients; the server's own answer differs.
    """
    with connection.cursor() as cursor:
        (pid,) = cursor.execute("SELECT pg_backend_pid()").fetchone()
        record.info["pooled"] = pid != connection.info.backend_pid
        if not record.info["pooled"]:
            connection.prepare_threshold = _PREPARED_AFTER
            for name, value in _LIMITS.items():
                cursor.execute(f"SET SESSION {name} = '{value}'")
    connection.commit()


def _journal_mode(connection: Connection) -> str:
    return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar())


def _forget_connections_in_children(engine: sa.Engine) -> None:
    """A forked child must not use, nor close, its parent's connections."""
    reference = weakref.ref(engine)

    def forget() -> None:
        if (alive := reference()) is not None:
            alive.dispose(close=False)

    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=forget)
