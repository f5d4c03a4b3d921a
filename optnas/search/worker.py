"""The life of a process that a launcher starts: read the job, work, say how it ended."""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import threading
from typing import NoReturn

from optnas.launch.process import Farewell
from optnas.search.workers import serve


def main() -> NoReturn:
    """Called by `process.LocalProcess`; last come the file of the job's body and the deadline."""
    farewells = os.dup(1)
    os.dup2(2, 1)  # what the user's code prints goes where its errors go
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a text file
    secret = _read(int.from_bytes(_read(8), "big"))
    file, deadline = map(json.loads, sys.argv[-2:])
    body = mmap.mmap(file, 0, access=mmap.ACCESS_READ)  # all workers read it at once
    halt = threading.Event()
    threading.Thread(target=_listen, args=(halt,), daemon=True).start()

    def leave_now(farewell: Farewell) -> None:
        os.write(farewells, farewell.dump())
        os._exit(1)

    farewell = serve(secret, body, deadline, halt, leave_now)
    os.write(farewells, farewell.dump())
    sys.exit(0 if farewell.way in ("done", "stopped") else 1)


def _read(size: int) -> bytes:
    # Not through sys.stdin: a thread that waits inside a buffered reader crashes Python when it exits.
    data = bytearray()
    while len(data) < size:
        data += os.read(0, size - len(data)) or sys.exit("The search that started this worker is gone.")
    return bytes(data)


def _listen(halt: threading.Event) -> None:
    while os.read(0, 1):  # returns nothing when the pipe's other end is closed: the parent is gone
        halt.set()
    os.kill(os.getpid(), signal.SIGTERM)
