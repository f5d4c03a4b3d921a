"""Attributes of studies that several processes write."""

from __future__ import annotations

import threading
from typing import Any

import optuna

from optnas.storage.open import open_storage
from optnas.storage.shared import SharedStorage


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
