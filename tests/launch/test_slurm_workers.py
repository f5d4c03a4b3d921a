"""A search by jobs of SLURM; a few lines of shell stand for the scheduler, which no machine of ours has."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.launch.slurm_workers import SlurmWorkers
from optnas.objective import Objective
from optnas.record import counts
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.storage.open import open_storage

# Two tasks run at once; others wait until somebody cancels them. A file per task has its pid, or nothing.
TOOLS = {
    "sbatch": """
        job=$(ls "$QUEUE" | grep -c script); cat > "$QUEUE/$job.script"; echo "$@" >> "$QUEUE/../calls"
        places=$(printf '%s\\n' "$@" | sed -n 's/--array=//p' | tr , ' ')
        out=$(sed -n 's/^#SBATCH --output=//p' "$QUEUE/$job.script")
        for place in $places; do
            running=0
            for f in "$QUEUE"/*_*; do
                if [ -s "$f" ] && kill -0 "$(cat "$f")" 2>/dev/null; then running=$((running + 1)); fi
            done
            : > "$QUEUE/${job}_$place"
            [ "$running" -ge 2 ] && continue
            file=${out//%A/$job}; file=${file//%a/$place}
            SLURM_ARRAY_TASK_ID=$place setsid bash "$QUEUE/$job.script" > "$file" 2>&1 < /dev/null &
            echo $! > "$QUEUE/${job}_$place"
        done
        echo "$job;cluster"
    """,
    "squeue": """
        for f in "$QUEUE"/*_*; do
            if [ ! -s "$f" ] || kill -0 "$(cat "$f")" 2>/dev/null; then basename "$f"; fi
        done
    """,
    "scancel": """
        for f in "$QUEUE"/*_*; do
            [ -e "$f" ] || continue
            if [ ! -s "$f" ]; then [[ "$*" == *--signal=* ]] || rm "$f"
            elif [[ "$*" != *--state=PENDING* ]]; then kill -TERM "$(cat "$f")" 2>/dev/null; fi
        done
    """,
    "srun": """
        while [[ $1 == --* ]]; do shift; done
        exec "$@"
    """,
}


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stand-in scheduler."""
    queue, tools = tmp_path / "queue", tmp_path / "bin"
    queue.mkdir()
    tools.mkdir()
    for name, text in TOOLS.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("QUEUE", str(queue))
    monkeypatch.setattr("optnas.launch.slurm_workers.EVERY", 0.5)
    return queue


class Slow:
    """Trials that nobody has disturbed yet wait for that."""

    values = {"score": "maximize"}  # noqa: RUF012  # read only

    def __init__(self, disturbed: Path) -> None:
        self.disturbed = disturbed

    def __call__(self, model: nn.Module, trial: Any) -> dict[str, float]:
        while not self.disturbed.exists():
            time.sleep(0.05)
        return {"score": float(trial.params["width"])}


def linear(trial: Any) -> nn.Module:
    return nn.Linear(4, trial.suggest_int("width", 1, 10_000))


def test_a_preempted_job_queues_its_trial_and_those_that_wait_keep_nobody_waiting(
    queue: Path, tmp_path: Path, postgres: Any
) -> None:
    disturbed, url = tmp_path / "disturbed", postgres.new_database()
    objective = Objective(linear, Slow(disturbed), example=(2, 4), reuse_twins=False)
    study = create_study(objective, study_name="s", storage=url, seed=0)
    preempted = []

    def preempt() -> None:
        watching = optuna.load_study(study_name="s", storage=open_storage(url))
        while (
            len(pids := [record.ATTEMPTS.of(t)[-1]["pid"] for t in watching.trials if record.attempts(t)]) < 2
        ):
            time.sleep(0.1)
        os.kill(pids[0], signal.SIGUSR1)
        preempted.append(pids[0])
        while len(list(queue.glob("*.script"))) < 2:  # another job is submitted instead
            time.sleep(0.1)
        disturbed.touch()

    thread = threading.Thread(target=preempt, daemon=True)
    thread.start()
    workers = SlurmWorkers(3, tmp_path / "shared", partition="gpu", cpus_per_task=2)
    optimize(study, objective, n_trials=4, workers=workers)
    thread.join(timeout=60)
    assert [t.state for t in study.trials if counts(t)] == [TrialState.COMPLETE] * 4
    ends = {(a["pid"], a["how"]) for t in study.trials for a in record.attempts(t) if "how" in a}
    assert ends == {(preempted[0], "interrupted")}
    script = (queue / "0.script").read_text()
    assert {"#SBATCH --partition=gpu", "#SBATCH --cpus-per-task=2", "#SBATCH --requeue"} < {
        *script.splitlines()
    }
    told = (tmp_path / "calls").read_text() + script
    assert "postgres" not in told  # neither a command line nor a script names the storage and its password
    [shared] = (tmp_path / "shared").iterdir()
    assert not (shared / "job").exists()
    assert "143" not in "".join(file.read_text() for file in shared.glob("farewell-*"))


def test_a_file_is_no_storage_for_jobs(queue: Path, tmp_path: Path) -> None:
    objective = Objective(linear, Slow(tmp_path), example=(2, 4))
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/s.db")
    with pytest.raises(ValueError, match=r"s.db is a file, .* Use Postgres"):
        optimize(study, objective, n_trials=1, workers=SlurmWorkers(1, tmp_path / "shared"))


def test_where_no_jobs_are_submitted_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no sbatch on this machine"):
        SlurmWorkers(2)
