"""Optuna's own conformance suite, on both engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase

from optnas.storage.open import open_storage
from optnas.storage.shared import SharedStorage


@pytest.fixture(scope="module")
def url(new_url: Callable[[], str]) -> str:
    return new_url()


class TestConformance(StorageTestCase):
    @pytest.fixture
    def storage(self, url: str) -> Iterator[BaseStorage]:
        storage = open_storage(url)
        assert isinstance(storage, SharedStorage)
        yield storage
        for study in storage.get_all_studies():
            storage.delete_study(study._study_id)
        storage.close()
