"""Several processes on this machine that share one study, and one place that watches over them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import cloudpickle
import optuna
import torch
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from optnas.errors import SearchFailedError, is_infrastructure
from optnas.objective import Objective
from optnas.progress.progress import Progress, Show
from optnas.search.optimize import work
from optnas.search.recovery import MAX_KILLS, recover
from optnas.search.signals import signals_raise
from optnas.search.study import counts
from optnas.storage.open import open_storage, storage_of

logger = logging.getLogger(__name__)

GRACE = 30.0
"""Seconds that workers get to save their state when the search is interrupted."""

_FAILED = 3  # exit status of a worker whose trials fail again and again


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    giving: threading.Thread
    missed_by_nobody: bool = False

    def message(self) -> str:
        """The end of what it wrote to its standard error."""
        self.errors.seek(0)
        return "\n".join(self.errors.read().decode(errors="replace").strip().splitlines()[-12:])

    def close(self) -> None:
        """Once it has ended."""
        self.giving.join()
        self.errors.close()
        if self.process.stdin is not None:
            self.process.stdin.close()


def run_workers(
    study: optuna.Study,
    objective: Objective,
    n_trials: int | None,
    deadline: float | None,
    n_workers: int,
    show_progress: Show,
) -> None:
    """Run `n_workers` processes until the budget is spent, replacing those that die. See `optimize`.

    Raises:
        ValueError: the study's storage cannot be shared between processes.
        SearchFailedError: the trials of a worker fail for one reason, its storage or disk fails, or workers
            die as soon as they start.
    """
    if not storage_of(study).shared:
        raise ValueError(
            f"n_workers={n_workers} needs a storage that processes can share; "
            "for example optnas.create_study(objective, storage='sqlite:///nas.db')."
        )
    job = make_job(study, objective, n_trials, deadline)
    shown = {t.number for t in study.get_trials(deepcopy=False) if t.state.is_finished()}
    n_reports = 0
    with signals_raise(), Progress(study, n_trials, show_progress) as progress:
        team = _Team(job, n_workers)
        try:
            team.start()
            while True:
                statuses = team.statuses()  # before the trials, so that all that the ended did is seen
                recover(study)
                trials = study.get_trials(deepcopy=False)
                for trial in trials:
                    if trial.state.is_finished() and trial.number not in shown:
                        shown.add(trial.number)
                        team.progressed()
                        progress.show(trial)
                before, n_reports = n_reports, sum(len(trial.intermediate_values) for trial in trials)
                if n_reports > before:
                    team.progressed()
                spent = n_trials is not None and sum(map(counts, trials)) >= n_trials
                late = deadline is not None and time.monotonic() >= deadline
                if not team.busy(statuses, over=spent or late):
                    break
                time.sleep(0.25)
        finally:
            team.stop()
            with suppress(StorageInternalError):  # which would hide why the search ends
                recover(study)
    if team.deaths:
        died = ", ".join(f"{n} by {how}" for how, n in team.deaths.items())
        states = Counter(t.state for t in study.get_trials(deepcopy=False))
        logger.warning(
            "%s died (%s); their trials went on elsewhere, %d ended as FAIL.",
            "1 worker" if team.deaths.total() == 1 else f"{team.deaths.total()} workers",
            died,
            states[TrialState.FAIL],
        )


def make_job(
    study: optuna.Study, objective: Objective, n_trials: int | None, deadline: float | None
) -> bytes:
    """All that a worker needs to know. It holds the storage's password: not for print or a file."""
    # The storage as arguments: pickled, it would leave the password behind.
    parts = (storage_of(study).arguments(), study.study_name, study.sampler, study.pruner, objective)
    job: bytes = cloudpickle.dumps((*parts, n_trials, deadline))
    return job


class _Team:
    def __init__(self, job: bytes, size: int) -> None:
        self._job = job
        self._environments = [worker_environment(i, size) for i in range(size)]
        self._workers: list[_Worker] = []
        self._in_a_row = 0
        self.deaths: Counter[str] = Counter()

    def start(self) -> None:
        for i in range(len(self._environments)):
            self._workers.append(self._start(i))

    def statuses(self) -> list[int | None]:
        """The exit status of each worker, None while it runs."""
        return [worker.process.poll() for worker in self._workers]

    def busy(self, statuses: list[int | None], over: bool) -> bool:
        """Whether a worker still runs; those that died are replaced, unless all is `over` but their exit."""
        for i, (worker, status) in enumerate(zip(self._workers, statuses, strict=True)):
            if status is None or status == 0 or worker.missed_by_nobody:
                continue
            if status == _FAILED and not over:
                raise SearchFailedError(worker.message())
            self.deaths[signal.Signals(-status).name if status < 0 else f"exit status {status}"] += 1
            self._in_a_row += 1
            # Were it the trials that kill them, one would have been given up by now.
            if self._in_a_row > MAX_KILLS * len(self._workers) and not over:
                raise SearchFailedError(
                    f"{self._in_a_row} workers died one after the other and no trial got any further. "
                    f"The last one wrote:\n{worker.message()}"
                )
            worker.close()
            if over:
                worker.missed_by_nobody = True
            else:
                self._workers[i] = self._start(i)
        left = zip(self._workers, statuses, strict=True)
        return any(status != 0 and not worker.missed_by_nobody for worker, status in left)

    def progressed(self) -> None:
        """A trial finished or reported: replacing workers leads somewhere."""
        self._in_a_row = 0

    def stop(self) -> None:
        """Ask those that still run to save their state and leave; after `GRACE` seconds, make them."""
        running = [worker.process for worker in self._workers if worker.process.poll() is None]
        for process in running:
            process.terminate()
        end = time.monotonic() + GRACE
        for process in running:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for worker in self._workers:
            worker.close()

    def _start(self, i: int) -> _Worker:
        # A file, not a pipe, which would have to be read all the time.
        errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed in stop()
        process = subprocess.Popen(
            [sys.executable, "-m", "optnas.search.worker"],
            stdin=subprocess.PIPE,
            stdout=errors,
            stderr=errors,
            bufsize=0,
            env=self._environments[i],
            start_new_session=True,  # Ctrl-C is for the parent, which tells its workers
        )
        # It reads its job only after its imports, or dies before: neither holds up the others.
        giving = threading.Thread(target=_give, args=(process, self._job), daemon=True)
        giving.start()
        return _Worker(process, errors, giving)


def _give(process: subprocess.Popen[bytes], job: bytes) -> None:
    # Through a pipe: the storage's password belongs into no file. The pipe stays open; its end tells the
    # worker that its parent is gone.
    assert process.stdin is not None
    rest = memoryview(len(job).to_bytes(8, "big") + job)
    with suppress(BrokenPipeError):
        while rest:
            rest = rest[process.stdin.write(rest) :]


def worker_environment(index: int, size: int) -> dict[str, str]:
    """The environment of the worker `index` of `size`: a share of our CPU threads, one of our accelerators.

    Where there are more workers than accelerators, they take turns; where there is one, they share it.
    """
    threads = max(
        1, torch.get_num_threads() // size
    )  # knows of OMP_NUM_THREADS and of our share of the cores
    own = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if (n_devices := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(n_devices)))).split(",")
        own["CUDA_VISIBLE_DEVICES"] = visible[index % n_devices]
    # Modules next to the user's script are importable in a worker too.
    path = os.pathsep.join([p or os.getcwd() for p in sys.path])
    return {**os.environ, **own, "PYTHONPATH": path}


def run_worker() -> int:
    """The life of a worker process: read the job from stdin, work, leave with an exit status."""
    job = _read(int.from_bytes(_read(8), "big"))
    storage, name, sampler, pruner, objective, n_trials, deadline = cloudpickle.loads(job)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    study = optuna.load_study(
        study_name=name, storage=open_storage(**storage), sampler=sampler, pruner=pruner
    )
    study.sampler.reseed_rng()  # where a sampler has a generator of its own, each worker's differs
    try:
        for _ in work(study, objective, n_trials, deadline):
            pass
    except Exception as error:
        if not isinstance(error, SearchFailedError) and not is_infrastructure(error):
            raise
        print(error, file=sys.stderr)
        return _FAILED
    return 0


def _read(size: int) -> bytes:
    # Not through sys.stdin: a thread that waits inside a buffered reader crashes Python when it exits.
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data)) or sys.exit("The search that started this worker is gone.")
    return data


def _leave_with_parent() -> None:
    os.read(0, 1)  # returns when the pipe's other end is closed
    os.kill(os.getpid(), signal.SIGTERM)
