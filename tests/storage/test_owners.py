"""Our tables beside Optuna's: made once, brought up to date, and whose rows are whose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError

from optnas.errors import StorageUnavailableError
from optnas.storage.leases import Loss, Process
from optnas.storage.open import claim, open_storage
from optnas.storage.owners import FORMAT, owners

COUNTS = "optnas:counts"

OLD_TABLE = """
    CREATE TABLE optnas_attempts (
        trial_id INTEGER NOT NULL PRIMARY KEY, created_by VARCHAR(32) UNIQUE, token VARCHAR(32) UNIQUE,
        n_attempts INTEGER NOT NULL, machine TEXT, host TEXT, pid INTEGER, started TEXT, expires FLOAT
    )
"""


def engine_of(url: str) -> sa.Engine:
    return sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)


def make_old(url: str, machine: str) -> None:
    """A database as optnas of format 1 left it: a trial that runs, one that waits for its second attempt."""
    plain = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    study = optuna.create_study(study_name="s", storage=plain)
    study.ask()
    study.ask()
    with plain.engine.begin() as connection:
        connection.execute(sa.text(OLD_TABLE))
        insert = "INSERT INTO optnas_attempts VALUES (:id, :key, :token, 2, :machine, 'h', 1, 'then', 1e15)"
        for trial, token in zip(study.trials, ("a" * 32, None), strict=True):
            row = {"id": trial._trial_id, "key": f"k{trial.number}", "token": token, "machine": machine}
            connection.execute(sa.text(insert), row)
        connection.execute(sa.text("UPDATE trials SET state = 'WAITING' WHERE number = 1"))
        connection.execute(sa.text(insert), {"id": 999, "key": "z", "token": None, "machine": machine})
    plain.engine.dispose()


def test_a_database_of_an_older_optnas_is_brought_up_to_date(url: str) -> None:
    make_old(url, Process.this().machine)
    storage = open_storage(url)
    study = optuna.load_study(study_name="s", storage=storage)
    (stale,) = storage.stale_trials(study._study_id)
    assert (stale.number, stale.loss, stale.n_attempts, stale.token) == (0, Loss.DEAD, 2, "a" * 32)
    assert storage.requeue(stale)
    assert claim(study, None, COUNTS).trial_id == study.trials[0]._trial_id
    assert claim(study, None, COUNTS).trial_id == study.trials[1]._trial_id
    with engine_of(url).connect() as connection:
        found = connection.execute(sa.select(owners.c.trial_id, owners.c.n_attempts)).all()
        assert sorted(tuple(row) for row in found) == [(t._trial_id, 3) for t in study.trials]
    again = open_storage(url)  # and is left alone from then on
    assert optuna.load_study(study_name="s", storage=again).trials == study.trials


def test_eight_processes_bring_it_up_to_date_at_one_moment(
    url: str, processes: Any, seen_by_optuna: Any
) -> None:
    make_old(url, "elsewhere")
    processes("start", url, 8)
    assert [trial.number for trial in seen_by_optuna(url)] == list(range(9))  # one of them took number 1
    with engine_of(url).connect() as connection:
        assert connection.execute(sa.text("SELECT format FROM optnas_format")).scalars().all() == [FORMAT]


def test_an_older_optnas_stops_at_its_first_statement(url: str) -> None:
    open_storage(url)
    with engine_of(url).connect() as connection, pytest.raises(DBAPIError, match="token"):
        connection.execute(sa.text("SELECT token FROM optnas_attempts"))


def test_a_database_of_a_later_optnas_is_refused(url: str, new_study: Any) -> None:
    _, storage = new_study(url)
    storage.close()
    with engine_of(url).begin() as connection:
        connection.execute(sa.text(f"INSERT INTO optnas_format VALUES ({FORMAT + 1})"))
    for read_only in (False, True):
        with pytest.raises(
            StorageUnavailableError, match=rf"format {FORMAT + 1}, and this optnas knows {FORMAT}. Update opt"
        ):
            open_storage(url, read_only=read_only)


def test_a_row_outlives_a_study_and_is_of_no_other_trial(tmp_path: Path) -> None:
    """SQLite gives the ids of a deleted study again."""
    url = f"sqlite:///{tmp_path}/nas.db"
    script = """if True:
        import optuna, os, sys
        from optnas.storage.open import open_storage
        optuna.create_study(study_name="old", storage=open_storage(sys.argv[1])).ask()
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", script, url], check=True)
    optuna.delete_study(study_name="old", storage=url)
    plain = optuna.create_study(study_name="new", storage=url)
    running = plain.ask()
    storage = open_storage(url)
    study = optuna.load_study(study_name="new", storage=storage)
    with engine_of(url).connect() as connection:
        assert connection.execute(sa.select(owners.c.trial_id)).scalars().all() == [running._trial_id]
    assert storage.stale_trials(study._study_id) == []
    plain.tell(running, 1.0)
    assert study.trials[0].value == 1.0


def test_a_trial_that_plain_optuna_took_from_the_queue_has_no_owner(url: str, new_study: Any) -> None:
    study, storage = new_study(url)
    trial = study.ask()
    storage.requeue(trial._trial_id)
    plain = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    taken = optuna.load_study(study_name="s", storage=plain).ask()
    assert taken._trial_id == trial._trial_id
    with storage._database.engine.begin() as connection:  # as if the old row had kept its token
        connection.exec_driver_sql("UPDATE optnas_owners SET token = 'old', started = 'before'")
    assert storage.stale_trials(study._study_id) == []
    assert study.trials[0].state == TrialState.RUNNING
    plain.engine.dispose()


def test_numbers_are_unique_though_trials_were_deleted(url: str, new_study: Any) -> None:
    study, storage = new_study(url)
    for _ in range(3):
        study.tell(study.ask(), 1.0)
    with storage._database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM trial_values WHERE trial_id = 1")
        connection.exec_driver_sql("DELETE FROM trials WHERE number = 0")
    fresh = optuna.load_study(study_name="s", storage=open_storage(url))
    fresh.ask()
    assert [trial.number for trial in fresh.trials] == [1, 2, 3]
