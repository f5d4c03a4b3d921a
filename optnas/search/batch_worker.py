"""The life of a worker that a scheduler starts: read the job from a shared folder, work, say how it ended."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from optnas.launch.process import Farewell
from optnas.launch.slurm_workers import SECRET
from optnas.search.workers import serve

_EVERY = 5.0  # seconds between two looks for the file that says to begin no new trial


def main(shared: str) -> NoReturn:
    """Called by the script of `SlurmWorkers`; `shared` is its folder."""
    folder, place = Path(shared), os.environ["SLURM_ARRAY_TASK_ID"]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a text file
    # Some sites send this instead of SIGTERM, which the loop over trials turns into an exception.
    signal.signal(signal.SIGUSR1, lambda number, frame: signal.raise_signal(signal.SIGTERM))
    secret = base64.b64decode(os.environ.pop(SECRET))  # user code does not need it
    ends = json.loads((folder / "deadline").read_text())
    deadline = None if ends is None else time.monotonic() + ends - time.time()
    halt = threading.Event()
    threading.Thread(target=_watch, args=(folder / "halt", halt), daemon=True).start()

    def say(farewell: Farewell) -> None:
        aside = folder / f".farewell-{place}-{os.getpid()}"
        aside.write_bytes(farewell.dump())
        os.replace(aside, folder / f"farewell-{place}")

    def leave_now(farewell: Farewell) -> None:
        say(farewell)
        os._exit(1)

    farewell = serve(secret, (folder / "job").read_bytes(), deadline, halt, leave_now)
    say(farewell)
    sys.exit(0 if farewell.way in ("done", "stopped") else 1)


def _watch(file: Path, halt: threading.Event) -> None:
    while not file.exists():
        time.sleep(_EVERY)
    halt.set()
