"""Watches the first batches of a training: what data lack, a loss that is none, and how long it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.utils._pytree import tree_leaves

NO_BATCH = (
    "The training data have no batch: train_dataloader() is empty. A batch_size above the number of samples, "
    "with drop_last=True, leaves none; make batch_size smaller."
)

_SECONDS = 1.0
"""That measuring how long batches take may last, about."""


class Watch(pl.Callback):
    """A Lightning callback for a training of at most `most` batches.

    Attributes:
        n_batches: of a whole epoch of training; None where the loader does not tell.
        n_val_batches: of a whole validation; None where the loaders do not tell.
        batch_size: samples of the first batch, where they can be counted.
        metrics: the names of what was logged.
        saw_all: whether the task logs nothing else later.
    """

    def __init__(self, most: int = 1) -> None:
        self.most = most
        self.n_batches: int | None = None
        self.n_val_batches: int | None = None
        self.batch_size: int | None = None
        self.metrics: list[str] = []
        self.saw_all = False
        self._train: list[float] = []  # when each batch was done, after when the first began to be loaded
        self._val: list[float] = []
        self._loss = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.n_batches = _length([trainer.train_dataloader])
        self._train = [time.perf_counter()]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        tensors = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim]
        if self.batch_size is None and tensors:
            self.batch_size = len(tensors[0])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if batch_idx == 0 and isinstance(loss, Tensor):
            self._loss = float(loss)  # waits for the device, too
        self._train.append(time.perf_counter())

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loaders = trainer.val_dataloaders
        self.n_val_batches = _length(loaders if isinstance(loaders, list | tuple) else [loaders])
        self._val = [time.perf_counter()]

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._val.append(time.perf_counter())

    def check(self) -> None:
        """Check what came of it.

        Raises:
            ValueError: there was no batch to train on, or none to validate on.
            FloatingPointError: the loss of the first step is infinite or no number.
        """
        if len(self._train) < 2:
            raise ValueError(NO_BATCH)
        if not math.isfinite(self._loss):
            raise FloatingPointError(
                f"The loss of the very first step is {self._loss}, before anything was learned. Look for "
                "inputs or targets that are nan, a logarithm or a root of what may be 0 or below, and "
                "targets that are not standardized."
            )
        if len(self._val) < 2:
            raise ValueError(
                "Nothing was validated, so no architecture has a value: the validation data have no batch "
                "(val_dataloader() is missing or empty), limit_val_batches is 0, or the task has no "
                "validation_step()."
            )

    def more_batches(self) -> int:
        """How many batches to watch in order to know how long one takes."""
        return min(20, self.n_batches or 1, int(_SECONDS / max(1e-9, self._train[1] - self._train[0])))

    def seconds_per_epoch(self, trainer: Mapping[str, Any], every: int) -> float:
        """Seconds of a whole epoch, with a validation after each `every`; `trainer` may limit the batches."""
        train = _limited(self.n_batches, trainer.get("limit_train_batches")) * _usual(self._train)
        val = _limited(self.n_val_batches, trainer.get("limit_val_batches")) * _usual(self._val)
        return train + val / every


def _usual(ends: list[float]) -> float:
    """Seconds of a batch; the first, which warms up, is left out where there are others."""
    took = [after - before for before, after in pairwise(ends)]
    rest = took[1:] or took
    return sum(rest) / len(rest)


def _limited(n: int | None, limit: Any) -> int:
    if isinstance(limit, int):
        return limit if n is None else min(n, limit)
    return int((n or 0) * (1.0 if limit is None else limit))


def _length(loaders: Iterable[Any]) -> int | None:
    try:
        return sum(len(loader) for loader in loaders)
    except TypeError:  # a stream
        return None
