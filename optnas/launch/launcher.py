"""Where workers run: a launcher starts, polls and stops them.

Budget, recovery and progress are not its business. A worker calls `optnas.search.workers.serve` in a process
of its own.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod

import torch

from optnas.launch.process import Farewell, Job, LocalProcess
from optnas.storage.base import Storage


class Launcher(ABC):
    """Starts, polls and stops the workers of one search, which are numbered from 0.

    Args:
        n_workers: number of workers.

    Raises:
        ValueError: fewer than one.

    Examples:
        >>> optnas.launch.LocalProcesses(2).n_workers
        2
    """

    def __init__(self, n_workers: int) -> None:
        if n_workers < 1:
            raise ValueError(f"n_workers={n_workers} must be at least 1.")
        self.n_workers = n_workers

    def prepare(self, storage: Storage) -> None:
        """Called once before the first worker starts.

        Raises:
            ValueError: workers could not work on the studies of this storage.
        """
        if not storage.shared:
            raise ValueError(
                f"n_workers={self.n_workers}: workers are processes of their own (trial_timeout makes even a "
                "single one that), and need a storage that processes can share; for example "
                "optnas.create_study(objective, storage='sqlite:///nas.db')."
            )

    @abstractmethod
    def start(self, place: int, job: Job) -> None:
        """Start the worker `place`, or another one instead of the one that ended there."""

    @abstractmethod
    def poll(self, place: int) -> Farewell | None:
        """How the worker ended; None while it runs."""

    @abstractmethod
    def halt(self) -> None:
        """Ask all to begin no new trial; those that have not begun to work need not begin."""

    @abstractmethod
    def stop(self, grace: float) -> None:
        """Ask running workers to save their state and end; after `grace` seconds, end them.

        Afterwards everything that a worker held is free, and the launcher may be used again.
        """


class LocalProcesses(Launcher):
    """Processes of this machine. What they write appears on our standard error, each line with its place.

    Raises:
        OSError: a process cannot be started.

    Examples:
        >>> workers = optnas.launch.LocalProcesses(2)  # what n_workers=2 means
    """

    def __init__(self, n_workers: int) -> None:
        super().__init__(n_workers)
        self._workers: dict[int, LocalProcess] = {}

    def start(self, place: int, job: Job) -> None:
        if place in self._workers:
            self._workers.pop(place).close()
        self._workers[place] = LocalProcess(place, job, worker_environment(place, self.n_workers))

    def poll(self, place: int) -> Farewell | None:
        return self._workers[place].farewell()

    def halt(self) -> None:
        for worker in self._workers.values():
            worker.halt()

    def stop(self, grace: float) -> None:
        running = [worker for worker in self._workers.values() if worker.process.poll() is None]
        for worker in running:
            worker.process.terminate()
        end = time.monotonic() + grace
        for worker in running:
            worker.wait(max(0.1, end - time.monotonic()))
        for worker in self._workers.values():
            worker.close()
        self._workers = {}


def worker_environment(index: int, size: int) -> dict[str, str]:
    """The environment of the worker `index` of `size`: a share of our CPU threads, one of our accelerators.

    If there are more workers than accelerators, several workers share one.
    """
    # knows of OMP_NUM_THREADS and of our share of the cores
    threads = str(max(1, torch.get_num_threads() // size))
    own = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if (n_devices := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(n_devices)))).split(",")
        own["CUDA_VISIBLE_DEVICES"] = visible[index % n_devices]
    return {**os.environ, **own}
