"""Attributes of studies that several processes write."""

from __future__ import annotations

import threading
from typing import Any

import optuna
import pytest

from optnas.errors import StudyGoneError, is_infrastructure
from optnas.storage.open import claim, open_storage
from optnas.storage.shared import SharedStorage

COUNTS = "optnas:counts"


def test_one_decides_for_all(url: str, new_study: Any) -> None:
    study, _ = new_study(url)
    together = threading.Barrier(4)
    told = []

    def settle(i: int) -> None:
        storage = open_storage(url)
        assert isinstance(storage, SharedStorage)
        together.wait()
        told.append(storage.settle_study_user_attr(study._study_id, "folder", f"runs-{i}"))

    threads = [threading.Thread(target=settle, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [study.user_attrs["folder"]] * 4
    plain = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    assert optuna.load_study(study_name="s", storage=plain).user_attrs == study.user_attrs
    plain.engine.dispose()


@pytest.mark.parametrize("how", ["deleted", "renamed"])
def test_a_study_that_goes_in_the_middle_of_a_search_is_named(url: str, new_study: Any, how: str) -> None:
    study, storage = new_study(url)
    trial = study.ask()
    plain = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    if how == "renamed":
        with plain.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE studies SET study_name = 'other'")
        study.tell(trial, 1.0)  # who has it open knows it by its id
        assert claim(study, None, COUNTS).trial_id is not None
    else:
        optuna.delete_study(study_name="s", storage=plain)
        for call in (
            lambda: trial.report(1.0, 0),
            lambda: claim(study, None, COUNTS),
            lambda: study.ask(),
            lambda: study.get_trials(),
            lambda: study.user_attrs,
            lambda: study.set_user_attr("a", 1),
            lambda: storage.settle_study_user_attr(study._study_id, "a", 1),
        ):
            with pytest.raises(StudyGoneError, match="'s'") as caught:
                call()
            assert is_infrastructure(caught.value)
            assert isinstance(caught.value, KeyError)  # as Optuna's callers expect
            assert not str(caught.value).startswith(("'", '"'))
    with pytest.raises(StudyGoneError, match=r"no study 's' in storage=.* been deleted or renamed"):
        optuna.load_study(study_name="s", storage=storage)
    plain.engine.dispose()
