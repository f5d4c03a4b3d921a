"""One process of this user at a time on this machine, whatever for."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

SECONDS_UNTIL_SAID = 10.0

_log = logging.getLogger(__name__)


@contextmanager
def one_at_a_time(name: str, doing: str, otherwise: str, given_up: float | None = None) -> Iterator[None]:
    """Wait until no other process of this user, or thread, is within for the same name; say so after a while.

    The lock of a process that dies is free. Where no lock can be had, that is said and nothing waits.

    Args:
        name: of the lock's file.
        doing: what whoever is within does, in words: `measures a latency`.
        otherwise: what may happen where no lock can be had, in words.
        given_up: seconds of waiting after which whoever is within is taken to hang; None waits for ever.

    Raises:
        TimeoutError: another process holds the lock for so long.
    """
    path = Path(tempfile.gettempdir(), f"optnas-{name}.lock")
    lock = FileLock(path)
    try:
        _acquire(lock, doing, given_up)
    except TimeoutError:
        raise
    except (OSError, NotImplementedError) as error:  # somebody else's file or folder, or no locks here
        _log.warning("Cannot lock %s (%s), so %s.", path, error, otherwise)
        yield
        return
    try:
        yield
    finally:
        lock.release()


def user() -> int:
    """Of whom a lock is: two users cannot share one file. 0 where the system has no numbers of users."""
    return os.getuid() if os.name == "posix" else 0


def _acquire(lock: FileLock, doing: str, given_up: float | None) -> None:
    try:
        lock.acquire(timeout=SECONDS_UNTIL_SAID)
        return
    except Timeout:
        _log.warning("Waiting for another process that %s; it holds %s.", doing, lock.lock_file)
    try:
        lock.acquire(timeout=-1 if given_up is None else given_up)
    except Timeout:
        raise TimeoutError(
            f"For {(given_up or 0) / 60:.0f} minutes there has been another process that {doing}. If it "
            f"hangs, end it: `fuser {lock.lock_file}` shows which one."
        ) from None
