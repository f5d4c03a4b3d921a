"""Whether the owner of a trial still runs it: processes, leases, and the thread that renews them."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

PROC = Path("/proc")

BUSY_LEASES = 20
"""How many leases a process that lives on this machine, and is not stopped, may let pass before others take
its trial: C code may keep Python's threads, and so the renewal, from running."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Process:
    """One process of one machine, distinguished from a later one with the same pid.

    `machine` is the boot and the pid namespace (a container has its own): if it is the same, `pid` can be
    looked up.
    """

    machine: str
    host: str
    pid: int
    started: str

    @staticmethod
    def this() -> Process:
        return _this(os.getpid())

    def is_dead(self) -> bool:
        """True only if it ran on this machine and certainly runs no more."""
        if self.machine != Process.this().machine:
            return False
        started = start_time(self.pid)
        return started != self.started and not (started == "?" or self.started == "?")

    def is_at_work(self) -> bool:
        """True only if it certainly runs on this machine and is not stopped, by SIGSTOP or a debugger."""
        if self.machine != Process.this().machine or start_time(self.pid) != self.started:
            return False
        try:
            return _stat(self.pid)[0] not in "Tt"
        except OSError:  # there is no /proc, so it is not known
            return False


class Loss(Enum):
    """Why a RUNNING trial is stale.

    Examples:
        >>> [loss.name for loss in optnas.storage.Loss]
        ['DEAD', 'EXPIRED']
    """

    DEAD = "its process is gone"
    EXPIRED = "its lease was not renewed"


@dataclass(frozen=True)
class StaleTrial:
    """A RUNNING trial that no process seems to run.

    `n_attempts`: how often it was taken; `process`: the last that had it.

    Examples:
        >>> storage = optnas.storage.storage_of(study)
        >>> storage.stale_trials(study._study_id)
        []
    """

    trial_id: int
    number: int
    loss: Loss
    n_attempts: int
    process: Process
    token: str


def stale(row: Any, lease: float, *, one_machine: bool) -> StaleTrial | None:
    """Judge a row of `owners.running` for a trial with a lease.

    `one_machine`: the database is a local file, so an owner from before the last boot is dead.
    """
    process = Process(row.machine, row.host, row.pid, row.started)
    rebooted = one_machine and _boot(process.machine) != _boot(Process.this().machine)
    if rebooted or process.is_dead():
        loss = Loss.DEAD
    elif row.now <= row.expires or (row.now <= row.expires + BUSY_LEASES * lease and process.is_at_work()):
        return None
    else:
        loss = Loss.EXPIRED
    return StaleTrial(row.trial_id, row.number, loss, row.n_attempts, process, row.token)


def start_time(pid: int) -> str:
    """When the process began, in whatever form this system tells it; "" if it has ended, "?" if unknown."""
    if os.name != "posix":  # where the next line would end it
        return "?"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:  # another user's
        pass
    try:
        if (PROC / "self" / "stat").exists():
            fields = _stat(pid)
            return "" if fields[0] in "ZX" else fields[19]
        words = ["ps", "-o", "lstart=", "-p", str(pid)]
        alike = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}  # whoever asks, and after the clocks change
        told = subprocess.run(words, capture_output=True, text=True, check=False, env=alike).stdout
    except OSError:  # hidden from us, no `ps`, too many open files; or it ended just now
        return "?"
    return told.strip() or "?"


def _stat(pid: int) -> list[str]:
    """What Linux tells of a process, after its command, which may hold anything: state, ..., start (20th)."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


@lru_cache(maxsize=2)
def _this(pid: int) -> Process:
    host = socket.gethostname()
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        machine = host
    return Process(machine, host, pid, start_time(pid))


def _boot(machine: str) -> str:
    return machine.split(" ")[0]


class Heart(threading.Thread):
    """Calls `beat` of an object every `interval` seconds as long as the object lives.

    It is a thread, so that leases are renewed under ask-and-tell too, and while the objective computes; and a
    daemon, so that it keeps no process alive.
    """

    def __init__(self, beat: Callable[[], None], interval: float) -> None:
        super().__init__(name="optnas-lease", daemon=True)
        self._beat = weakref.WeakMethod(beat)
        self._interval = interval
        self._stop_event = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._stop_event.wait(self._interval):
            beat = self._beat()
            if beat is None:
                return
            try:
                beat()
            except Exception:  # out of memory, say: as long as the process lives, its trials are its own
                logger.warning("Leases could not be renewed; trying again.", exc_info=True)
            del beat

    def stop(self) -> None:
        self._stop_event.set()
