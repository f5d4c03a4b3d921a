"""Which faults pass by themselves; the errors are those of real databases."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import DBAPIError

from optnas.storage.faults import advice, database_error, passes, without_parameters


def error_of(url: str | sa.URL, statement: str) -> DBAPIError:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with pytest.raises(DBAPIError) as caught, engine.connect() as connection:
        connection.execute(sa.text(statement))
    return caught.value


def test_a_locked_file_passes(tmp_path: Path) -> None:
    holder = sqlite3.connect(tmp_path / "nas.db")
    holder.execute("BEGIN EXCLUSIVE")
    assert passes(error_of(f"sqlite:///{tmp_path}/nas.db?timeout=0", "CREATE TABLE a (b TEXT)"))
    holder.close()


def test_a_file_that_cannot_be_opened_passes(tmp_path: Path) -> None:
    assert passes(error_of(f"sqlite:///{tmp_path}/none/nas.db", "SELECT 1"))
    assert passes(FileNotFoundError("nas.db is gone"))


def test_what_is_wrong_with_a_file_or_in_it_does_not_pass(tmp_path: Path) -> None:
    assert not passes(error_of(f"sqlite:///{tmp_path}/empty.db", "SELECT * FROM trials"))
    (tmp_path / "notes.txt").write_text("Something else entirely" * 100)
    assert not passes(error_of(f"sqlite:///{tmp_path}/notes.txt", "SELECT * FROM sqlite_master"))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("57P01", True),  # terminated by an administrator, as when the server stops
        ("57P05", True),  # the session was idle for too long
        ("25P03", True),  # and so was a transaction
        ("53300", True),  # too many connections
        ("08006", True),  # connection failure
        ("40001", True),  # serialization failure
        ("53100", False),  # disk full
        ("28P01", False),  # wrong password
        ("3D000", False),  # no such database
        ("25006", False),  # read only
        ("42P01", False),  # no such table
    ],
)
def test_what_a_server_says_with_a_code(postgres: Any, state: str, expected: bool) -> None:
    statement = f"DO $$ BEGIN RAISE EXCEPTION 'as told' USING ERRCODE = '{state}'; END $$"
    assert (
        passes(error_of(sa.make_url(postgres.url).set(drivername="postgresql+psycopg"), statement))
        == expected
    )


def test_a_server_that_is_not_there_passes_and_a_database_that_is_not_there_does_not(postgres: Any) -> None:
    assert passes(error_of("postgresql+psycopg://me@127.0.0.1:1/nas", "SELECT 1"))
    url = sa.make_url(postgres.url).set(drivername="postgresql+psycopg", database="none")
    error = error_of(url, "SELECT 1")
    assert not passes(error)
    assert "createdb" in advice(str(error.orig))


def test_the_error_of_the_database_is_found_below_that_of_optuna(tmp_path: Path) -> None:
    rdb = RDBStorage(f"sqlite:///{tmp_path}/nas.db")
    with rdb.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE study_user_attributes")
    with pytest.raises(StorageInternalError) as caught:
        rdb.set_study_user_attr(rdb.create_new_study([]), "secret", 1)
    cause = database_error(caught.value)
    assert isinstance(cause, DBAPIError)
    assert "secret" in str(cause)
    assert "secret" not in str(without_parameters(cause))
    assert "no such table" in str(without_parameters(cause))
    assert database_error(ValueError("of a user")) is None
    rdb.engine.dispose()
