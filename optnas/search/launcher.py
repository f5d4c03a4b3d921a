"""Where workers run: a launcher starts, polls and stops them.

Budget, recovery and progress are not its business. A worker calls `optnas.search.workers.serve` in a process
of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO, Literal

import torch

_LINE = 2_000
"""Characters of a line of a worker's output that are passed on."""

_LAST_LINES = 12

Way = Literal["done", "stopped", "failed", "overdue", "died"]


@dataclass(frozen=True)
class Farewell:
    """How a worker ended.

    Attributes:
        way: "done": nothing is left for it to do. "stopped": `study.stop()` was called. "failed": the search
            shall end, for the reason in `words`. "overdue": its trial took too long. "died": it said nothing,
            whatever its exit status; `words` say how it ended.
        output: the last lines that it wrote.
    """

    way: Way
    words: str = ""
    output: str = ""

    def dump(self) -> bytes:
        """As one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def load(cls, told: bytes, died: str, output: str) -> Farewell:
        """From what a worker said last; where it did not, it has `died`, as these words say."""
        try:
            said = json.loads(told.splitlines()[-1])
            return cls(said["way"], said["words"], output)
        except (IndexError, KeyError, TypeError, ValueError):
            return cls("died", died, output)


@dataclass(frozen=True)
class Job:
    """What workers need to know.

    Attributes:
        secret: the storage's arguments, with its password: not for print, a file or a command line.
        body: a file that has the rest, pickled; its position is of no account.
    """

    secret: bytes
    body: IO[bytes]


class Launcher(ABC):
    """Starts, polls and stops the workers of one search, which are known by their places, from 0."""

    @abstractmethod
    def start(self, place: int, size: int, job: Job) -> None:
        """Start the worker `place` of `size`, or another one instead of the one that ended there."""

    @abstractmethod
    def poll(self, place: int) -> Farewell | None:
        """How the worker ended; None while it runs."""

    @abstractmethod
    def halt(self) -> None:
        """Ask all to begin no new trial."""

    @abstractmethod
    def stop(self, grace: float) -> None:
        """Ask those that run to save their state and leave; after `grace` seconds, make them.

        Whatever a worker held is free afterwards, and the launcher may be used again.
        """


class LocalProcesses(Launcher):
    """Processes of this machine. What they write appears on our standard error, each line with its place.

    Raises:
        OSError: a process cannot be started.
    """

    def __init__(self) -> None:
        self._workers: dict[int, _Local] = {}

    def start(self, place: int, size: int, job: Job) -> None:
        if place in self._workers:
            self._workers.pop(place).close()
        self._workers[place] = _Local(place, job, worker_environment(place, size))

    def poll(self, place: int) -> Farewell | None:
        return self._workers[place].farewell()

    def halt(self) -> None:
        for worker in self._workers.values():
            worker.halt()

    def stop(self, grace: float) -> None:
        running = [worker.process for worker in self._workers.values() if worker.process.poll() is None]
        for process in running:
            process.terminate()
        end = time.monotonic() + grace
        for process in running:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for worker in self._workers.values():
            worker.close()
        self._workers = {}


# Only what this process imports from may a worker import from: not its working directory, which `-m` and `-c`
# would put first. The path comes by the command line, since a folder with a colon has no place in PYTHONPATH.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from optnas.search.worker import main; main()"
)


class _Local:
    def __init__(self, place: int, job: Job, environment: dict[str, str]) -> None:
        path = [
            os.path.abspath(entry) for entry in sys.path
        ]  # "": this process was started to import from here
        body, (read, write) = job.body.fileno(), os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, json.dumps(path), str(body)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,  # only for its farewell
                stderr=write,
                # It holds the other end of its output too: a print is no error in its trial once we are gone.
                pass_fds=(body, read),
                bufsize=0,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the parent, which tells its workers
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        self._output = _Output(place, read)
        self._ended: Farewell | None = None
        # So little that the pipe takes it at once. It stays open: its end tells the worker that we are gone.
        self._tell(len(job.secret).to_bytes(8, "big") + job.secret)

    def halt(self) -> None:
        self._tell(b"h")

    def _tell(self, data: bytes) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError, ValueError):  # it has ended
            self.process.stdin.write(data)

    def farewell(self) -> Farewell | None:
        status = self.process.poll()
        if status is None or self._ended is not None:
            return self._ended
        assert self.process.stdout is not None
        os.set_blocking(
            self.process.stdout.fileno(), False
        )  # a process that it left behind may hold the pipe
        died = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        self._ended = Farewell.load(self.process.stdout.read() or b"", died, self._output.last_lines())
        return self._ended

    def close(self) -> None:
        """Once it has ended."""
        self._output.join(timeout=1.0)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class _Output(threading.Thread):
    """Passes on what a worker writes, line by line, and keeps the last lines."""

    def __init__(self, place: int, pipe: int) -> None:
        super().__init__(name=f"optnas-output-{place}", daemon=True)
        self._place, self._pipe = place, pipe
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self.start()

    def run(self) -> None:
        with open(self._pipe, "rb") as pipe:
            for line in short_lines(pipe):
                self._lines.append(line)
                with suppress(OSError, ValueError):  # nobody reads ours any more
                    sys.stderr.write(f"worker {self._place}: {line}\n")

    def last_lines(self) -> str:
        """Of a worker that has ended."""
        self.join(timeout=1.0)  # not for ever: a process that it left behind may hold the pipe
        return "\n".join(self._lines)


def short_lines(pipe: IO[bytes]) -> Iterator[str]:
    """The lines of a stream, without their ends; of long ones the start, of redrawn ones the last state."""
    while start := pipe.readline(_LINE):
        dropped, end = 0, start
        while not end.endswith(b"\n") and (end := pipe.readline(_LINE)):
            dropped += len(end.rstrip(b"\n"))
        line = start.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2]
        if line:
            yield line + (f" ... ({dropped:,} more bytes)" if dropped else "")


def worker_environment(index: int, size: int) -> dict[str, str]:
    """The environment of the worker `index` of `size`: a share of our CPU threads, one of our accelerators.

    Where there are more workers than accelerators, they take turns; where there is one, they share it.
    """
    # knows of OMP_NUM_THREADS and of our share of the cores
    threads = str(max(1, torch.get_num_threads() // size))
    own = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if (n_devices := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(n_devices)))).split(",")
        own["CUDA_VISIBLE_DEVICES"] = visible[index % n_devices]
    return {**os.environ, **own}
