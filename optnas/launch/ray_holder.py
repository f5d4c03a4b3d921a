"""The Ray actor that `RayWorkers` starts on a node, which holds the process of one worker."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time

from optnas.launch.process import Farewell, Job, LocalProcess


class Holder:
    """The actor."""

    def __init__(self, place: int, n_threads: int) -> None:
        self._place = place
        threads = {"OMP_NUM_THREADS": str(n_threads), "MKL_NUM_THREADS": str(n_threads)}
        self._environment = {**os.environ, **threads}
        self._lock = threading.Lock()
        self._worker: LocalProcess | None = None
        self._halted = False

    def where(self) -> str:
        """The name of the node's machine; the answer comes when the actor has a place."""
        return socket.gethostname()

    def run(self, secret: bytes, body: bytes, left: float | None, path: list[str]) -> Farewell:
        """Run the worker to its end; trials may begin for `left` seconds."""
        with tempfile.TemporaryFile() as file:
            file.write(body)
            file.flush()
            deadline = None if left is None else time.monotonic() + left
            with self._lock:
                self._worker = LocalProcess(self._place, Job(secret, file, deadline), self._environment, path)
                if self._halted:
                    self._worker.halt()
            while (farewell := self._worker.farewell()) is None:
                time.sleep(0.1)
            self._worker.close()
        return farewell

    def halt(self) -> None:
        with self._lock:
            self._halted = True
            if self._worker is not None:
                self._worker.halt()

    def stop(self, grace: float) -> None:
        with self._lock:
            self._halted = True
            if self._worker is not None:
                self._worker.process.terminate()
                self._worker.wait(grace)
