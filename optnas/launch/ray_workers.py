"""Workers on the nodes of a Ray cluster: Ray places them, and everything else is as with local ones."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from optnas.launch.launcher import Launcher
from optnas.launch.process import Farewell, Job
from optnas.launch.ray_holder import Holder
from optnas.storage.base import Storage

logger = logging.getLogger(__name__)

SILENCE = 30.0
"""Seconds of waiting for a place in the cluster after which a search says so."""


class RayWorkers(Launcher):
    """Workers that an existing Ray cluster places, or Ray on this machine alone where there is no cluster.

    Each worker is a Ray actor that holds one process. A worker that is lost, alone or with its node, is
    requested again; another worker continues its trial from the last epoch, if both see the study's
    checkpoint folder. Workers for which there is no room wait: nodes may come and go. optnas must be
    installed on every node, and every node must reach the storage under the URL that this machine uses. A
    SQLite file works on a cluster of one node only.

    Args:
        n_workers: number of workers.
        resources: what each worker needs, by the names of Ray: `{"GPU": 0.5}`, `{"CPU": 4, "own": 1}`; CPU is
            1 if not given. A worker gets as many threads as whole CPUs, and no accelerator unless it asks for
            one.
        address: address of the cluster; None: the cluster that this process is connected to, or that
            `ray.init()` finds.
        options: further options of a Ray actor: `scheduling_strategy`, `runtime_env`, `label_selector`.

    Raises:
        ImportError: Ray is not installed.
        ValueError: fewer than one worker.

    Examples:
        >>> workers = optnas.RayWorkers(
        ...     8, {"CPU": 2}
        ... )  # optnas.optimize(study, objective, 100, workers=workers)
    """

    def __init__(
        self,
        n_workers: int,
        resources: Mapping[str, float] | None = None,
        *,
        address: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(n_workers)
        try:
            import ray
        except ImportError as error:
            raise ImportError("RayWorkers needs Ray. Install it with: pip install 'optnas[ray]'") from error
        self._ray: Any = ray
        self._resources = {"CPU": 1.0, **(resources or {})}
        self._address = address
        self._options = options
        self._connected = False  # by us
        self._here: dict[str, Any] = {}
        self._workers: dict[int, _Remote] = {}
        self._put: tuple[Job, Any] | None = None
        self._halted = False
        self._waits_since: float | None = None

    def prepare(self, storage: Storage) -> None:
        """As of any launcher; connects to the cluster.

        Raises:
            ValueError: the storage is a file, which other nodes of the cluster cannot share.
            ConnectionError: there is no cluster at that address.
        """
        super().prepare(storage)
        self._halted = False
        if not self._ray.is_initialized():
            terminate = signal.getsignal(signal.SIGTERM)
            self._ray.init(self._address)
            self._connected = True
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, terminate)  # Ray sets its own
        self._here = {}
        if storage.place.file is not None:
            nodes = [node for node in self._ray.nodes() if node["Alive"]]
            if len(nodes) > 1 or self._ray.util.client.ray.is_connected():
                self._leave()
                raise ValueError(
                    f"storage={storage.place.file} is a file, which SQLite shares between the processes of "
                    f"one machine only, and this Ray cluster has {len(nodes)} nodes. Use Postgres: "
                    "create_study(..., storage='postgresql://user@host/database')."
                )
            # Nodes that join later must not get a worker: to them it would be another file, or none.
            strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
            here = self._ray.get_runtime_context().get_node_id()
            self._here = {"scheduling_strategy": strategy(here, soft=False)}

    def start(self, place: int, job: Job) -> None:
        if place in self._workers:
            self._workers.pop(place).kill()
        if self._put is None or self._put[0] is not job:
            job.body.seek(0)
            self._put = job, self._ray.put(job.body.read())  # each node fetches it once
        needs = dict(self._resources)
        cpus = needs.pop("CPU")
        options = {
            "name": None,
            "num_cpus": cpus,
            "num_gpus": needs.pop("GPU", 0),
            "resources": needs,
            **self._options,
            **self._here,
            "max_restarts": 0,
            "max_concurrency": 4,  # it is told to stop while it runs
        }
        actor = self._ray.remote(Holder).options(**options).remote(place, max(1, int(cpus)))
        self._workers[place] = _Remote(self._ray, actor, job, self._put[1])
        self._waits_since = self._waits_since or time.monotonic()

    def poll(self, place: int) -> Farewell | None:
        self._tell_who_waits()
        worker = self._workers[place]
        farewell = worker.farewell()
        if farewell is None and not worker.is_placed and self._is_over():
            worker.kill()
            worker.ended = farewell = Farewell("done")
        return farewell

    def _is_over(self) -> bool:
        """Whether a worker has found nothing left to do, so that no other worker will find anything."""
        ended = [worker.ended for worker in self._workers.values() if worker.ended is not None]
        return self._halted or any(farewell.way in ("done", "stopped") for farewell in ended)

    def _tell_who_waits(self) -> None:
        since = self._waits_since
        if since is None or time.monotonic() - since < SILENCE:
            return
        self._waits_since = None
        waiting = [w for w in self._workers.values() if not w.is_placed and w.ended is None]
        if waiting:
            free, whole = self._ray.available_resources(), self._ray.cluster_resources()
            each = [f"{amount:g} {name}" for name, amount in self._resources.items()]
            has = [f"{free.get(name, 0):g} of {whole.get(name, 0):g} {name}" for name in self._resources]
            logger.warning(
                "%d of %d workers wait for a place in the Ray cluster: each needs %s, and %s are free. They "
                "begin as soon as there is room.",
                len(waiting),
                self.n_workers,
                ", ".join(each),
                ", ".join(has),
            )

    def halt(self) -> None:
        self._halted = True
        for worker in self._workers.values():
            worker.call("halt")

    def stop(self, grace: float) -> None:
        workers = self._workers.values()
        with suppress(self._ray.exceptions.RayError):  # the cluster is gone, and all workers with it
            stopping = [call for worker in workers if (call := worker.call("stop", grace)) is not None]
            if stopping:
                self._ray.wait(stopping, num_returns=len(stopping), timeout=grace + 5.0)
            for worker in workers:
                worker.kill()
        self._workers, self._put, self._waits_since = {}, None, None
        self._leave()

    def _leave(self) -> None:
        if self._connected:
            self._connected = False
            self._ray.shutdown()


class _Remote:
    """A worker on a node, as this process sees it."""

    def __init__(self, ray: Any, actor: Any, job: Job, body: Any) -> None:
        self._ray, self._actor, self._job, self._body = ray, actor, job, body
        self._where = actor.where.remote()
        self._run: Any = None
        self._host = ""
        self.ended: Farewell | None = None

    @property
    def is_placed(self) -> bool:
        return self._run is not None

    def farewell(self) -> Farewell | None:
        if self.ended is None:
            try:
                self.ended = self._ask()
            except self._ray.exceptions.RayError as error:
                self.kill()  # it may only be out of reach
                where = f" on {self._host}" if self._host else ""
                self.ended = Farewell("died", f"its Ray actor{where} is gone", output=str(error).strip())
        return self.ended

    def _ask(self) -> Farewell | None:
        if self._run is None:
            if not self._is_ready(self._where):
                return None
            self._host = self._ray.get(self._where)
            end = self._job.deadline  # of this machine's clock
            left = None if end is None else end - time.monotonic()
            # Not to its constructor: what that is given, the cluster keeps.
            self._run = self._actor.run.remote(self._job.secret, self._body, left, sys.path)
        if not self._is_ready(self._run):
            return None
        farewell = self._ray.get(self._run)
        assert isinstance(farewell, Farewell)
        return farewell

    def _is_ready(self, reference: Any) -> bool:
        ready, _ = self._ray.wait([reference], timeout=0)
        return bool(ready)

    def call(self, method: str, *arguments: Any) -> Any:
        """Begin a call of a running worker; None if it does not run."""
        if not self.is_placed or self.ended is not None:
            return None
        return getattr(self._actor, method).remote(*arguments)

    def kill(self) -> None:
        """End the actor at once; the process that it holds notices, and ends by itself."""
        self._ray.kill(self._actor)
