"""Finished trials are read once; those that may change, each time."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from optnas.errors import StudyGoneError
from optnas.storage.known import KnownStudy
from optnas.storage.open import open_storage
from optnas.storage.shared import SharedStorage

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=open_storage(tmp_path / "nas.db"))


def read(known: KnownStudy, study: optuna.Study, states: Any = None, skip: Any = lambda row: False) -> Any:
    """The numbers of the unfinished trials that are returned, and of the finished ones that are known."""
    storage = study._storage
    assert isinstance(storage, SharedStorage)
    open_trials = known.read_news(storage._database, states, skip)
    return [t.number for t in open_trials], sorted(t.number for t in known.finished.values())


def test_each_trial_is_whole_however_it_was_when_it_was_seen_first(study: optuna.Study) -> None:
    known = KnownStudy(study._study_id)
    assert read(known, study) == ([], [])
    study.tell(study.ask(), 0.0)
    running = study.ask()
    study.enqueue_trial({"x": 0.5})
    assert read(known, study) == ([1, 2], [0])
    running.suggest_float("x", 0, 1)
    study.tell(running, 1.0)
    assert read(known, study) == ([2], [0, 1])
    assert sorted(known.finished.values(), key=lambda t: t.number) == study.trials[:2]
    assert known.distributions.keys() == {"x"}


def test_finished_trials_are_read_once(study: optuna.Study) -> None:
    storage = study._storage
    assert isinstance(storage, SharedStorage)
    known = KnownStudy(study._study_id)
    for _ in range(3):
        study.tell(study.ask(), 0.0)
    read(known, study)
    with storage._database.engine.begin() as connection:  # which nobody may do
        connection.execute(sa.text("UPDATE trial_values SET value = 7"))
    read(known, study)
    assert [trial.value for trial in known.finished_in((TrialState.COMPLETE,))] == [0.0, 0.0, 0.0]


def test_only_what_is_asked_for_is_read_now_and_the_rest_when_it_is(study: optuna.Study) -> None:
    known = KnownStudy(study._study_id)
    study.tell(study.ask(), 0.0)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.ask()
    study.enqueue_trial({"x": 0.5})
    assert read(known, study, (TrialState.WAITING,)) == ([3], [])
    assert read(known, study, (TrialState.FAIL, TrialState.RUNNING)) == ([2], [1])
    assert read(known, study, skip=lambda row: row.state == TrialState.RUNNING) == ([3], [0, 1])
    assert {t.number for t in known.finished_in(FINISHED)} == {0, 1}
    assert [t.number for t in known.finished_in((TrialState.FAIL, TrialState.RUNNING))] == [1]
    assert known.finished_in((TrialState.WAITING,)) == []


def test_more_trials_may_wait_than_a_statement_has_variables(study: optuna.Study) -> None:
    storage = study._storage
    assert isinstance(storage, SharedStorage)

    @sa.event.listens_for(storage._database.engine, "checkout")
    def limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 5002)  # often 32,766; Postgres: 65,535

    rows = [{"number": i, "study_id": study._study_id, "state": "WAITING"} for i in range(5100)]
    with storage._database.engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO trials (number, study_id, state) VALUES (:number, :study_id, :state)"), rows
        )
    known = KnownStudy(study._study_id)
    for _ in range(2):
        assert read(known, study) == (list(range(5100)), [])


def test_a_study_that_is_not_there(study: optuna.Study) -> None:
    with pytest.raises(KeyError, match="no such study"):
        read(KnownStudy(99), study)


def test_a_study_that_others_delete_is_forgotten_though_its_ids_come_again(study: optuna.Study) -> None:
    url = f"sqlite:///{study._storage._database.url.database}"  # type: ignore[attr-defined]  # a SharedStorage
    for _ in range(3):
        study.tell(study.ask(), -1.0)
    assert len(study.trials) == 3
    optuna.delete_study(study_name="s", storage=url)  # by plain Optuna, as its dashboard does
    with pytest.raises(StudyGoneError, match=r"^Study 's' in .* is gone: somebody deleted it"):
        study.get_trials()
    again = optuna.create_study(study_name="s", storage=url)
    again.tell(again.ask(), 7.0)
    again.ask()
    assert again._study_id == study._study_id
    assert [(t.number, t.value) for t in study.trials] == [(0, 7.0), (1, None)]
    again.tell(1, 8.0)
    assert [(t.number, t.value) for t in study.trials] == [(0, 7.0), (1, 8.0)]


@pytest.mark.parametrize("ended_last", [True, False])
def test_a_database_that_is_put_back_to_an_older_copy_is_noticed(
    study: optuna.Study, tmp_path: Path, ended_last: bool
) -> None:
    """Also by who knows only unfinished trials beyond the copy, and after others have taken their ids."""
    for _ in range(3):
        study.tell(study.ask(), 1.0)
    file = sqlite3.connect(tmp_path / "nas.db")
    copy = sqlite3.connect(tmp_path / "copy.db")
    file.backup(copy)
    for _ in range(4):
        trial = study.ask()
        if ended_last:
            study.tell(trial, 9.0)
    assert len(study.trials) == 7
    copy.backup(file)
    file.close()
    copy.close()
    url = f"sqlite:///{tmp_path}/nas.db"
    if ended_last:
        plain = optuna.load_study(study_name="s", storage=url)
        for _ in range(6):
            plain.tell(plain.ask(), 2.0)
    with pytest.raises(StudyGoneError, match="or put the database back to an older copy"):
        study.get_trials()
    now = optuna.load_study(study_name="s", storage=url).trials
    assert study.get_trials() == now  # what is stored now, and nothing else
    study.tell(study.ask(), 3.0)
    assert [t.number for t in study.get_trials()] == list(range(len(now) + 1))


def test_an_own_trial_that_a_copy_does_not_hold_is_gone(study: optuna.Study, tmp_path: Path) -> None:
    file = sqlite3.connect(tmp_path / "nas.db")
    copy = sqlite3.connect(tmp_path / "copy.db")
    file.backup(copy)
    trial = study.ask()
    copy.backup(file)
    file.close()
    copy.close()
    with pytest.raises(StudyGoneError, match=r"Trial 0 of study 's' is not in storage=.* any more"):
        trial.report(1.0, 0)
    with pytest.raises(StudyGoneError):
        study.tell(trial, 1.0)
