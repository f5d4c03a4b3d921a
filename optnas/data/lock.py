"""One process of this user at a time prepares a data set on this machine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytorch_lightning as pl

from optnas import locks
from optnas.estimation.settings import digest

SECONDS_UNTIL_GIVEN_UP = 1800.0


def one_at_a_time(data: pl.LightningDataModule) -> AbstractContextManager[None]:
    """Wait until no other process prepares the same data: eight that download into one folder spoil files.

    Raises:
        TimeoutError: another process holds the lock for half an hour.
    """
    name = type(data).__name__
    return locks.one_at_a_time(
        f"data-{locks.user()}-{digest(_place(data))}",
        f"is in {name}.prepare_data()",
        f"processes that begin together may prepare {name} at the same time",
        SECONDS_UNTIL_GIVEN_UP,
    )


def _place(data: pl.LightningDataModule) -> object:
    """What decides where data is put: code, paths and names, but not the size of batches and the like."""
    held = {**data.hparams, **vars(data)}
    places = {name: part for name, part in held.items() if isinstance(part, str | Path) or callable(part)}
    return [type(data), places]
