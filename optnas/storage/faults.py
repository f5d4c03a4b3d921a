"""Faults of databases: which ones pass by themselves, and what to do about the others."""

from __future__ import annotations

import re
import sqlite3

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

# SQLSTATE of what passes: too many connections, serialization failure, deadlock, shutdown, start-up; sessions
# and transactions that the server ends because they were idle, as they are while a trial trains or is paused;
# locks and statements that took longer than the server or we allow for one wait.
_PASSING = frozenset(
    {"53300", "40001", "40P01", "57P01", "57P02", "57P03", "57P05", "25P03", "55P03", "57014"}
)

_ADVICE = {
    r"too many (connections|clients)|connection slots": "Every process of a search needs one connection, "
    "now and then two: run fewer workers, raise the limit (max_connections, ALTER ROLE ... CONNECTION "
    "LIMIT), or put PgBouncer in between.",
    "lock timeout|statement timeout": "Another session holds a lock, perhaps one whose program is gone: see "
    "`SELECT pid, state, query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'`; "
    "`SELECT pg_terminate_backend(pid)` ends it.",
    "database is locked": "Another program writes to the file, or keeps it locked.",
    "disk is full": "Free some space and run the same search again; what was acknowledged is stored.",
    "No space left": "Free some space and run the same search again; what was acknowledged is stored.",
    "readonly database": "Check the permissions of the file and its folder, or choose another path.",
    "unable to open database file": "Check that the folder exists and can be written.",
    "not a database": "It is not a SQLite file; choose another path.",
    "malformed": "The file is damaged; restore a copy, or save what is left with `sqlite3 FILE .recover`.",
    "authentication failed": "Check user and password in the URL, or PGPASSWORD and ~/.pgpass.",
    "no password supplied": "Give it in the URL, or in PGPASSWORD or ~/.pgpass.",
    'database ".*" does not exist': "Create it first (createdb), or check the name in the URL.",
    'role ".*" does not exist': "Check the user in the URL.",
    "relation .* does not exist|no such table": "Tables are missing; restore a copy of the database.",
    "unsupported startup parameter": "The connection goes through a pooler that refuses an option of the "
    "URL; take the option away, or name it in the pooler's ignore_startup_parameters.",
    "Connection refused": "Is the server running, and the host and port right?",
    "No such file or directory": "Is the server running, and the path right?",
    "resolve host": "Check the host in the URL.",
}


def advice(text: str) -> str:
    """What to do about a fault, judged by the driver's words; "" if nothing is known."""
    return next((words for part, words in _ADVICE.items() if re.search(part, text)), "")


def is_answer(error: DBAPIError | FileNotFoundError) -> bool:
    """Whether a server answered with a refusal, rather than not at all."""
    driver = getattr(error, "orig", None)
    return getattr(driver, "sqlstate", None) is not None or "FATAL" in str(driver)


def database_error(error: BaseException) -> DBAPIError | FileNotFoundError | None:
    """The database's own error, which Optuna's ORM code wraps; None if it is no database error."""
    if isinstance(error, DBAPIError | FileNotFoundError):
        return error
    return database_error(error.__cause__) if error.__cause__ is not None else None


def without_parameters(error: Exception) -> BaseException:
    """The driver's error instead of SQLAlchemy's, whose message repeats statement and values."""
    return getattr(error, "orig", None) or error


def passes(error: DBAPIError | FileNotFoundError) -> bool:
    """Whether the same statement may work later without anybody's help."""
    if isinstance(error, FileNotFoundError):
        return True
    driver = error.orig
    if isinstance(driver, sqlite3.Error):
        name = getattr(driver, "sqlite_errorname", "")
        return name.startswith(
            ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_PROTOCOL", "SQLITE_IOERR")
        )
    state = getattr(driver, "sqlstate", None)
    if state is not None:
        return state in _PASSING or state.startswith("08")
    final = ("authentication failed", "no password supplied", "does not exist", "invalid connection option")
    return error.connection_invalidated or (
        isinstance(error, sa.exc.OperationalError) and not any(part in str(driver) for part in final)
    )
