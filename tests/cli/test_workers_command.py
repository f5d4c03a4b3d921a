"""Several processes on one search from the shell: together, or one after the other by a scheduler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from typer.testing import Result

from optnas.search import counts
from optnas.search.storage import open_storage

URL = "sqlite:///nas.db"
PAUSE = 'import time; time.sleep(0.3)\n    return {"score"'


@pytest.fixture
def slow(toy: Path) -> Path:
    """The study file, with trials that take long enough for every process to get some."""
    toy.write_text(toy.read_text().replace('return {"score"', PAUSE).replace("step=4", "step=1"))
    return toy


def load() -> optuna.Study:
    return optuna.load_study(study_name="toy", storage=open_storage(URL))


def pids(study: optuna.Study) -> set[int]:
    return {attempt["pid"] for trial in study.trials for attempt in trial.user_attrs["attempts"]}


@pytest.fixture
def worker(slow: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a worker that finds the storage in its environment."""
    code = "from optnas.cli import main; main()"
    command = [sys.executable, "-c", code, "worker", str(slow), "--study-name", "toy", "--trials", "8"]
    environment = {**os.environ, "OPTNAS_STORAGE": URL}
    started = []

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_run_and_resume_share_the_budget_between_workers(
    slow: Path, optnas_cli: Callable[..., Result]
) -> None:
    first = optnas_cli("run", slow, "--workers", 2, "--trials", 8)
    assert first.exit_code == 0, first.output
    assert f"Best: trial {load().best_trial.number}" in first.stdout
    assert sum(map(counts, load().trials)) == 8
    assert len(pids(load())) == 2
    assert os.getpid() not in pids(load())

    more = optnas_cli("resume", slow, "--workers", 2, "--trials", 10)
    assert more.exit_code == 0, more.output
    assert sum(map(counts, load().trials)) == 10


def test_workers_begin_join_leave_and_finish_one_search(worker: Callable[[], subprocess.Popen[str]]) -> None:
    """Two begin it at one moment, one is preempted in a trial, another comes later."""
    both = [worker() for _ in range(2)]
    deadline = time.monotonic() + 120
    while "toy" not in optuna.get_all_study_names(open_storage(URL)) or len(load().trials) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    both[0].send_signal(signal.SIGTERM)
    _, errors = both[0].communicate(timeout=60)
    assert both[0].returncode == 143, errors
    assert "To go on: optnas resume toy.py" in errors
    assert "Traceback" not in errors

    late = worker()
    for process in (both[1], late):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    study = load()
    assert sum(map(counts, study.trials)) == 8
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    assert both[1].pid in pids(study)
    assert pids(study) <= {process.pid for process in (*both, late)}


def test_a_samplers_own_generator_differs_between_workers(
    toy: Path, optnas_cli: Callable[..., Result]
) -> None:
    """Each worker runs the study file, and with it `RandomSampler(seed=0)`."""
    toy.write_text(
        toy.read_text().replace('"width", 4, 16, step=4', '"width", 1, 10000')
        + "import optuna\nsampler = optuna.samplers.RandomSampler(seed=0)\n"
    )
    for name in ("one", "two"):
        assert optnas_cli("worker", toy, "--study-name", name, "--storage", URL).exit_code == 0
    one, two = (optuna.load_study(study_name=name, storage=URL) for name in ("one", "two"))
    assert {tuple(t.params.values()) for t in one.trials}.isdisjoint(
        tuple(t.params.values()) for t in two.trials
    )
