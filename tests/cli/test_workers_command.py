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

from optnas import record
from optnas.record import counts
from optnas.storage.open import open_storage

URL = "sqlite:///nas.db"
WAIT = """import os, time
    from pathlib import Path
    Path(f"came-{os.getpid()}").touch()
    while len(list(Path().glob("came-*"))) < 2:
        time.sleep(0.05)
    while Path("hold").exists():
        time.sleep(0.05)
    return {"score\""""


@pytest.fixture
def slow(toy: Path) -> Path:
    """The study file; its trials do not end before two processes have come, nor while there is a file `hold`.

    A process that has come leaves a file `came-` and its pid.
    """
    toy.write_text(toy.read_text().replace('return {"score"', WAIT).replace("step=4", "step=1"))
    return toy


def wait_for(*came: subprocess.Popen[str]) -> None:
    """Until each of these has a trial."""
    deadline = time.monotonic() + 600
    while not all(Path(f"came-{process.pid}").exists() for process in came):
        assert time.monotonic() < deadline
        assert [process.returncode for process in came if process.poll() is not None] == []
        time.sleep(0.05)


def load() -> optuna.Study:
    return optuna.load_study(study_name="toy", storage=open_storage(URL))


def pids(study: optuna.Study) -> set[int]:
    return {attempt["pid"] for trial in study.trials for attempt in record.ATTEMPTS.of(trial)}


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
    Path("hold").touch()
    first, second = worker(), worker()
    wait_for(first, second)
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate()
    assert first.returncode == 143, errors
    assert "To go on: optnas resume toy.py" in errors
    assert "Traceback" not in errors

    late = worker()
    wait_for(late)
    Path("hold").unlink()
    for process in (second, late):
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    study = load()
    assert sum(map(counts, study.trials)) == 8
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    assert pids(study) == {process.pid for process in (first, second, late)}


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
    assert [t.params for t in one.trials] != [t.params for t in two.trials]
