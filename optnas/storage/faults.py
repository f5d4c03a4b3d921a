"""Faults of databases: which pass by themselves, and what to do about the others."""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

# SQLSTATE of what passes: too many connections, serialization failure, deadlock, shutdown, start-up; sessions
# and transactions that the server ends because they were idle, as they are while a trial trains or is paused.
_PASSING = frozenset({"53300", "40001", "40P01", "57P01", "57P02", "57P03", "57P05", "25P03"})

ADVICE = {
    "disk is full": "Free some space and run the same search again; what was acknowledged is stored.",
    "No space left": "Free some space and run the same search again; what was acknowledged is stored.",
    "readonly database": "Check the permissions of the file and its folder, or choose another path.",
    "unable to open database file": "Check that the folder exists and can be written.",
    "not a database": "It is not a SQLite file; choose another path.",
    "malformed": "The file is damaged; restore a copy, or save what is left with `sqlite3 FILE .recover`.",
    "authentication failed": "Check user and password in the URL, or PGPASSWORD and ~/.pgpass.",
    "no password supplied": "Give it in the URL, or in PGPASSWORD or ~/.pgpass.",
    "does not exist": "Create it first (createdb), or check the name in the URL.",
    "Connection refused": "Is the server running, and the host and port right?",
    "No such file or directory": "Is the server running, and the path right?",
    "resolve host": "Check the host in the URL.",
}


def database_error(error: BaseException) -> DBAPIError | FileNotFoundError | None:
    """The database's own error, which Optuna's ORM code wraps; None for what is none."""
    if isinstance(error, DBAPIError | FileNotFoundError):
        return error
    return database_error(error.__cause__) if error.__cause__ is not None else None


def without_parameters(error: Exception) -> BaseException:
    """The driver's error instead of SQLAlchemy's, whose message repeats statement and values."""
    return getattr(error, "orig", None) or error


def passes(error: DBAPIError | FileNotFoundError) -> bool:
    """Whether the same may work in a while, though nobody does anything about it."""
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
