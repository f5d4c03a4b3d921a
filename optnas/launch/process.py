"""A worker as a process of this machine. This imports nothing heavy, so who only holds one stays small."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO, Literal

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
        """From the last words of a worker; without any it has `died`, and `words` say how."""
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
        deadline: as of `time.monotonic()` of this machine; None: no limit.
    """

    secret: bytes
    body: IO[bytes]
    deadline: float | None


# A worker may import only from where this process does: not from its working directory, which `-m` and `-c`
# would put first. The path comes by the command line, since PYTHONPATH cannot hold a folder with a colon.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from optnas.search.worker import main; main()"
)


class LocalProcess:
    """A worker that is a process of this machine; it ends, and queues its trial again, when ours ends.

    Args:
        path: folders from which it may import, besides those of this process.
    """

    def __init__(self, place: int, job: Job, environment: dict[str, str], path: Sequence[str] = ()) -> None:
        # "": this process was started to import from here
        path = list(dict.fromkeys(os.path.abspath(entry) for entry in (*sys.path, *path)))
        body, (read, write) = job.body.fileno(), os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, json.dumps(path), str(body), json.dumps(job.deadline)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,  # only for its farewell
                stderr=write,
                # It holds both ends of its output, so that a print is no error once this process is gone.
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
        # It fits into the pipe at once. The pipe stays open: its end tells the worker that this one ended.
        self._tell(len(job.secret).to_bytes(8, "big") + job.secret)

    def halt(self) -> None:
        """Tell the worker to begin no new trial."""
        self._tell(b"h")

    def wait(self, seconds: float) -> None:
        """Wait for the end of the worker, and kill it after so many seconds."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _tell(self, data: bytes) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError, ValueError):  # it has ended
            self.process.stdin.write(data)

    def farewell(self) -> Farewell | None:
        """How it ended; None while it runs."""
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
                with suppress(OSError, ValueError):  # nobody reads the output of this process any more
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
