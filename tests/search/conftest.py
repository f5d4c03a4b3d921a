"""Studies on both engines, as optnas and as plain Optuna see them, and other processes that work on them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial

from optnas.search.storage import SharedStorage, open_storage

PROCESSES = Path(__file__).with_name("storage_processes.py")


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    return new_url()


@pytest.fixture
def new_study() -> Any:
    """Makes a study `s` with its storage."""

    def make(url: str | Path, **options: float) -> tuple[optuna.Study, SharedStorage]:
        storage = open_storage(url, **options)
        assert isinstance(storage, SharedStorage)
        sampler = optuna.samplers.RandomSampler(seed=0)
        return optuna.create_study(study_name="s", storage=storage, sampler=sampler), storage

    return make


@pytest.fixture
def seen_by_optuna() -> Any:
    """The trials of the study at a URL as plain Optuna reads them."""

    def read(url: str) -> list[FrozenTrial]:
        plain = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
        trials = optuna.load_study(study_name="s", storage=plain).trials
        plain.engine.dispose()
        return trials

    return read


@pytest.fixture
def processes() -> Any:
    """Runs a command of storage_processes.py, which must succeed; gives the words that it prints."""

    def run(command: str, *arguments: object) -> list[str]:
        words = [sys.executable, str(PROCESSES), command, *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return run


@pytest.fixture
def hanging() -> Iterator[Callable[[str, float], subprocess.Popen[str]]]:
    """Starts processes that have begun a trial and acknowledged some of it."""
    started: list[subprocess.Popen[str]] = []

    def start(url: str, lease: float) -> subprocess.Popen[str]:
        words = [sys.executable, str(PROCESSES), "hang", url, str(lease)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
