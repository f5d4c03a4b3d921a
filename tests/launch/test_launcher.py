import threading

import pytest
import torch
from torch import nn

from optnas.estimation.estimator import Estimator
from optnas.launch.launcher import Launcher, worker_environment
from optnas.objective import Objective
from optnas.record import counts
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.search.workers import serve


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


class Threads(Launcher):
    """Somebody's own launcher: a worker is a thread."""

    def __init__(self, n_workers):
        super().__init__(n_workers)
        self.halting, self.threads, self.farewells = threading.Event(), {}, {}

    def start(self, place, job):
        job.body.seek(0)
        body = job.body.read()

        def run():
            self.farewells[place] = serve(job.secret, body, job.deadline, self.halting, leave_now=None)

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
    launcher = Threads(2)
    optimize(study, objective, n_trials=6, workers=launcher)
    assert sum(map(counts, study.trials)) == 6
    assert {farewell.way for farewell in launcher.farewells.values()} == {"done"}
    assert {t.user_attrs["thread"] for t in study.trials} <= {t.name for t in launcher.threads.values()}
