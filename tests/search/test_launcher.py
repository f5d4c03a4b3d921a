import io
import json
import subprocess
import sys
import textwrap
import threading

import pytest
import torch
from torch import nn

from optnas.estimation.estimator import Estimator
from optnas.objective import Objective
from optnas.record import counts
from optnas.search.launcher import Farewell, Launcher, short_lines, worker_environment
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.search.workers import serve


def test_a_farewell_is_what_was_said_and_anything_else_is_a_death():
    said = Farewell("failed", "no luck: ü\nsecond line")
    assert Farewell.load(said.dump(), "exit status 1", "its lines") == Farewell(
        "failed", "no luck: ü\nsecond line", "its lines"
    )
    for told in (b"", b"\n", b"words of a library", b"[1]", b"null", b'{"way": "done"}'):
        assert Farewell.load(told, "exit status 0", "its lines") == Farewell(
            "died", "exit status 0", "its lines"
        )
    assert Farewell.load(b"words of a library\n" + said.dump(), "", "").way == "failed"


def test_long_lines_are_cut_and_redrawn_ones_are_shown_once():
    written = b"short\n" + b"\xff" * 2_000_000 + b"end\n\n" + b"10 %\r50 %\r100 %\n" + b"x" * 2000 + b"\nlast"
    cut, *rest = [line for line in short_lines(io.BytesIO(written)) if line != "short"]
    assert len(cut) < 2050
    assert cut.endswith("more bytes)")
    assert rest == ["100 %", "x" * 2000, "last"]


@pytest.mark.parametrize(
    ("n_devices", "visible", "expected"),
    [
        (0, None, [None, None, None]),
        (1, None, [None, None, None]),
        (2, None, ["0", "1", "0"]),
        (2, "4,7", ["4", "7", "4"]),
        (3, "GPU-a,GPU-b,GPU-c", ["GPU-a", "GPU-b", "GPU-c"]),
    ],
)
def test_an_accelerator_each_of_those_that_we_may_use(n_devices, visible, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_devices)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [worker_environment(i, 3).get("CUDA_VISIBLE_DEVICES") for i in range(3)] == expected


@pytest.mark.parametrize(("n_threads", "size", "each"), [(8, 2, "4"), (8, 3, "2"), (2, 4, "1")])
def test_cpu_threads_are_divided(n_threads, size, each, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    assert {worker_environment(i, size)["OMP_NUM_THREADS"] for i in range(size)} == {each}


SEARCH = """
    import logging, optnas, os, sys, time
    from torch import nn
    import {helper}

    class Slow:
        values = {{"score": "maximize"}}
        def __call__(self, model, trial):
            print(json.dumps({{"path": sys.path, "pid": os.getpid()}}), flush=True)
            print("w" * 20_000)
            return {{"score": float({helper}.VALUE)}}

    import json
    def space(trial): return nn.Linear(4, trial.suggest_int("width", 1, 99))
    objective = optnas.Objective(space, Slow(), example=(2, 4))
    study = optnas.create_study(objective, study_name="s", storage="sqlite:///" + sys.argv[1], seed=0)
    optnas.optimize(study, objective, n_trials=2, n_workers=2)
    print(json.dumps({{"path": sys.path, "pid": os.getpid()}}))
"""


def test_a_worker_imports_from_where_its_parent_does_and_nowhere_else(tmp_path):
    """And what it prints comes through, in short lines, on the standard error."""
    home, cwd = tmp_path / "home: with a colon", tmp_path / "cwd"
    home.mkdir()
    cwd.mkdir()
    (home / "helper_of_the_study.py").write_text("VALUE = 0.5")
    (home / "search.py").write_text(textwrap.dedent(SEARCH.format(helper="helper_of_the_study")))
    (cwd / "cloudpickle.py").write_text("raise SystemExit('code of the working directory ran')")
    command = [sys.executable, str(home / "search.py"), str(tmp_path / "s.db")]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [parent] = [json.loads(line) for line in done.stdout.splitlines()]
    told = [line.partition(": ")[2] for line in done.stderr.splitlines() if line.startswith("worker ")]
    workers = [json.loads(line) for line in told if line.startswith("{")]
    assert {tuple(worker["path"]) for worker in workers} == {tuple(parent["path"])}
    assert parent["pid"] not in {worker["pid"] for worker in workers}
    assert len(workers) == 2
    long = [line for line in told if line.startswith("www")]
    assert len(long) == 2
    assert all(2000 <= len(line) < 2050 for line in long)


class Threads(Launcher):
    """Somebody's own launcher: a worker is a thread."""

    def __init__(self):
        self.halting, self.threads, self.farewells = threading.Event(), {}, {}

    def start(self, place, size, job):
        job.body.seek(0)
        body = job.body.read()

        def run():
            self.farewells[place] = serve(job.secret, body, self.halting, leave_now=None)

        self.threads[place] = threading.Thread(target=run)
        self.threads[place].start()

    def poll(self, place):
        return self.farewells.get(place)

    def halt(self):
        self.halting.set()

    def stop(self, grace):
        self.halting.set()
        for thread in self.threads.values():
            thread.join()


class Where(Estimator):
    values = {"score": "maximize"}  # noqa: RUF012  # read only

    def __call__(self, model, run):
        run.set_user_attr("thread", threading.current_thread().name)
        return {"score": float(model.out_features)}


def test_workers_may_run_anywhere(tmp_path):
    objective = Objective(
        lambda trial: nn.Linear(4, trial.suggest_int("width", 1, 999)), Where(), example=(2, 4)
    )
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/s.db", seed=0)
    launcher = Threads()
    optimize(study, objective, n_trials=6, n_workers=2, launcher=launcher)
    assert sum(map(counts, study.trials)) == 6
    assert {farewell.way for farewell in launcher.farewells.values()} == {"done"}
    assert {t.user_attrs["thread"] for t in study.trials} <= {t.name for t in launcher.threads.values()}
