"""One process of this user at a time prepares a data set on this machine."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
from filelock import FileLock, Timeout

from optnas.estimation.settings import digest

SECONDS_UNTIL_SAID = 10.0
SECONDS_UNTIL_GIVEN_UP = 1800.0

_log = logging.getLogger(__name__)


@contextmanager
def one_at_a_time(data: pl.LightningDataModule) -> Iterator[None]:
    """Wait until no other process prepares the same data: eight that download into one folder spoil files.

    Raises:
        TimeoutError: another process holds the lock for half an hour.
    """
    user = getattr(os, "getuid", int)()
    path = Path(tempfile.gettempdir(), f"optnas-data-{user}-{digest(_place(data))}.lock")
    lock = FileLock(path)
    try:
        _acquire(lock, type(data).__name__)
    except TimeoutError:
        raise
    except (OSError, NotImplementedError) as error:  # somebody else's file or folder, or no locks here
        _log.warning(
            "Cannot lock %s (%s), so processes that begin together may prepare %s at the same time.",
            path,
            error,
            type(data).__name__,
        )
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, name: str) -> None:
    try:
        lock.acquire(timeout=SECONDS_UNTIL_SAID)
        return
    except Timeout:
        _log.warning(
            "Waiting for another process that is in %s.prepare_data(); it holds %s.", name, lock.lock_file
        )
    try:
        lock.acquire(timeout=SECONDS_UNTIL_GIVEN_UP)
    except Timeout:
        raise TimeoutError(
            f"Another process has been in {name}.prepare_data() for {SECONDS_UNTIL_GIVEN_UP / 60:.0f} "
            f"minutes. If it hangs, end it: `fuser {lock.lock_file}` shows which one."
        ) from None


def _place(data: pl.LightningDataModule) -> object:
    """What decides where data is put: code, paths and names, but not the size of batches and the like."""
    held = {**data.hparams, **vars(data)}
    places = {name: part for name, part in held.items() if isinstance(part, str | Path) or callable(part)}
    return [type(data), places]
