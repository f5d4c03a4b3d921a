"""Storages of Optuna's own behind the interface of ours: they work as before, and say what they cannot do."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import (
    BaseStorage,
    InMemoryStorage,
    JournalStorage,
    RDBStorage,
    fail_stale_trials,
)
from optuna.storages.journal import JournalFileBackend
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from optnas.storage.base import HELD, NEVER, Claim, Seen, Storage
from optnas.storage.open import claim, open_storage, storage_of

COUNTS = "optnas:counts"


def journal(folder: Path) -> BaseStorage:
    return JournalStorage(JournalFileBackend(str(folder / "journal.log")))


def database(folder: Path) -> BaseStorage:
    return RDBStorage(f"sqlite:///{folder}/plain.db")


class TestConformance(StorageTestCase):
    @pytest.fixture
    def storage(self) -> BaseStorage:
        return open_storage(None)


def test_nothing_begins_or_goes_on_in_a_study_that_is_not_as_it_was_seen() -> None:
    study = optuna.create_study(storage=open_storage(None))
    first = claim(study, None, COUNTS, seen=Seen.of(study.trials)).trial_id
    assert first is not None
    storage = storage_of(study)
    storage.set_trial_system_attr(first, HELD, True)
    seen = Seen.of(study.trials)
    assert storage.requeue(first)
    for wanted in (None, first):
        assert claim(study, None, COUNTS, wanted=wanted, seen=seen) == Claim(None, 0, 0, 1, refused=True)
    assert not claim(study, 1, COUNTS, seen=seen).refused  # there is no budget either way
    seen = Seen.of(study.trials)
    assert claim(study, None, COUNTS, wanted=first, seen=seen).trial_id == first
    assert claim(study, None, COUNTS, seen=Seen.of(study.trials)).trial_id is not None
    study.enqueue_trial({"x": 0.5})
    assert claim(study, None, COUNTS, seen=NEVER).trial_id == study.trials[-1]._trial_id


@pytest.mark.parametrize("make", [journal, database, lambda folder: InMemoryStorage()])
def test_every_storage_of_optunas_has_the_abilities_of_one_without_owners(
    tmp_path: Path, make: Callable[[Path], BaseStorage]
) -> None:
    storage = open_storage(make(tmp_path))
    study = optuna.create_study(study_name="s", storage=storage)
    assert isinstance(storage, Storage)
    assert (storage.shared, storage.recovers) == (False, False)
    study.enqueue_trial({"x": 0.5})
    first = claim(study, 1, COUNTS)
    assert first.trial_id is not None
    trial = optuna.Trial(study, first.trial_id)
    assert trial.suggest_float("x", 0, 1) == 0.5
    storage.flush(first.trial_id)
    assert not storage.owns(first.trial_id)
    assert storage.stale_trials(study._study_id) == []
    assert storage.requeue(first.trial_id)
    assert claim(study, 1, COUNTS).trial_id == first.trial_id
    trial.set_user_attr(COUNTS, False)
    study.tell(trial, 1.0)
    study.tell(study.ask(), state=TrialState.PRUNED)
    assert claim(study, 1, COUNTS) == Claim(None, counted=1, running=0)
    assert storage.settle_study_user_attr(study._study_id, "seed", 1) == 1
    assert storage.settle_study_user_attr(study._study_id, "seed", 2) == 1
    with pytest.raises(ValueError, match="cannot be opened by another process"):
        storage.arguments()
    storage.fold_log()
    storage.close()


def test_what_is_missing_is_said_with_the_way_out(tmp_path: Path) -> None:
    assert open_storage(None).lacks == ""  # nothing of it is left when its process dies
    assert open_storage(tmp_path / "nas.db").lacks == ""
    assert storage_of(optuna.create_study()).lacks == ""
    for storage in (open_storage(database(tmp_path)), open_storage(journal(tmp_path))):
        assert "stays RUNNING for ever" in storage.lacks
        assert "storage='sqlite:///nas.db'" in storage.lacks
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/plain.db")
    assert storage_of(study).lacks.startswith("storage=RDBStorage(...) does not know")


def test_the_storage_of_a_study_is_ours_as_it_is_or_behind_our_interface(tmp_path: Path) -> None:
    ours = open_storage(tmp_path / "nas.db")
    assert storage_of(optuna.create_study(storage=ours)) is ours
    assert open_storage(ours) is ours
    plain = optuna.create_study()
    assert claim(plain, 1, COUNTS).trial_id == 0


def test_a_heartbeat_goes_on_beating(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        inner = RDBStorage(f"sqlite:///{tmp_path}/plain.db", heartbeat_interval=60, grace_period=120)
    storage: Any = open_storage(inner)
    assert storage.get_heartbeat_interval() == 60
    study = optuna.create_study(storage=storage)
    study.optimize(lambda trial: 1.0, n_trials=1)
    with inner.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM trial_heartbeats").scalar() == 1
        with pytest.warns(UserWarning, match="Heartbeat"):
            killed = study.ask()
        storage.record_heartbeat(killed._trial_id)
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
        connection.commit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        fail_stale_trials(study)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.FAIL]


def test_a_pickled_copy_is_the_same_storage(tmp_path: Path) -> None:
    storage = open_storage(database(tmp_path))
    optuna.create_study(study_name="s", storage=storage)
    assert optuna.get_all_study_names(pickle.loads(pickle.dumps(storage))) == ["s"]
