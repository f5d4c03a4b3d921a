"""Who runs a trial, when several processes and studies share a storage."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from optnas.search.storage import SharedStorage, open_storage


@pytest.fixture
def beside_a_deleted_study(tmp_path: Path) -> tuple[optuna.Study, SharedStorage]:
    """A study with a running trial, in a process of which another study was deleted in the middle of one."""
    url = f"sqlite:///{tmp_path}/nas.db"
    storage = open_storage(url, lease=0.4)
    assert isinstance(storage, SharedStorage)
    kept = optuna.create_study(study_name="kept", storage=storage)
    kept.ask()
    optuna.create_study(study_name="deleted", storage=storage).ask().set_user_attr("unflushed", True)
    optuna.delete_study(study_name="deleted", storage=url)  # by plain Optuna, as its dashboard does
    return kept, storage


def test_a_deleted_study_does_not_hide_the_trials_of_another(
    beside_a_deleted_study: tuple[optuna.Study, SharedStorage],
) -> None:
    study, _ = beside_a_deleted_study
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]


def test_a_deleted_study_does_not_end_the_leases_of_another(
    beside_a_deleted_study: tuple[optuna.Study, SharedStorage],
) -> None:
    study, storage = beside_a_deleted_study
    time.sleep(1.0)
    assert storage.stale_trials(study._study_id) == []
