"""One measurement at a time on a machine, however many workers run there."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

_log = logging.getLogger(__name__)


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Wait until no other process of this user, or thread, is within for the same `what`.

    The lock of a process that dies is free. Where no lock can be had, that is said and nothing waits.
    """
    user = getattr(os, "getuid", int)()
    lock = FileLock(Path(tempfile.gettempdir(), f"optnas-{what}-{user}.lock"))
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # somebody else's file, or no locks here
        _log.warning(
            "Cannot lock %s (%s): several measurements may disturb one another.", lock.lock_file, error
        )
        yield
        return
    try:
        yield
    finally:
        lock.release()
