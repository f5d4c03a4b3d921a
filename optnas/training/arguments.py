"""Arguments that a training hands on to Lightning: which are refused, what of them trials share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy, deepcopy
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.plugins.io import AsyncCheckpointIO
from torch.optim.lr_scheduler import ReduceLROnPlateau

_LOW_IS_GOOD = {"loss", "error", "mae", "mse", "rmse", "nll", "perplexity"}
_HIGH_IS_GOOD = {"acc", "accuracy", "f1", "auc", "auroc", "dice", "iou", "map", "precision", "recall", "r2"}


class Monitored:
    """A task of which only its own metric says which epoch is to be kept."""

    monitor: ClassVar[str]
    mode: ClassVar[Literal["max", "min"]]


def check_monitor(task: Any, monitor: str, mode: str) -> None:
    """Raises ValueError for a mode that there is not, or a metric by which the task must not be judged.

    Warns where the name of the metric says the contrary of the mode.
    """
    if mode not in ("max", "min"):
        raise ValueError(f"mode={mode!r}: is a high or a low {monitor} good? Give 'max' or 'min'.")
    if _contradicts(monitor, mode):
        warnings.warn(_doubtful("Training", monitor, mode), stacklevel=3)
    if isinstance(task, Monitored) and (monitor, mode) != (task.monitor, task.mode):
        raise ValueError(
            f"Training(monitor={monitor!r}, mode={mode!r}) may keep any epoch of {type(task).__name__}, and "
            f"what it learned last would be lost: give monitor={task.monitor!r}, mode={task.mode!r}."
        )


def _contradicts(monitor: str, mode: str) -> bool:
    names = set(monitor.lower().replace("/", "_").split("_"))
    return bool(names & (_LOW_IS_GOOD if mode == "max" else _HIGH_IS_GOOD))


def _doubtful(who: str, monitor: str, mode: str) -> str:
    return (
        f"{who}(monitor={monitor!r}, mode={mode!r}) takes a {'high' if mode == 'max' else 'low'} "
        f"{monitor} for good. If that is a mistake, say mode={'min' if mode == 'max' else 'max'!r}."
    )


def check_trainer(trainer: Mapping[str, Any], max_epochs: int | None, can_stop: bool) -> None:
    """Raises ValueError for arguments of the Trainer that no trial can be trained with."""
    devices = trainer.get("devices", 1)
    one = devices in (1, "1") or (isinstance(devices, list | tuple) and len(devices) == 1)
    if not one or trainer.get("num_nodes", 1) != 1:
        raise ValueError(
            f"Training(devices={devices!r}): a trial trains on one device. Leave devices out, or name one "
            "such as devices=[0]; several workers use several devices."
        )
    if trainer.get("barebones"):
        raise ValueError("Training(barebones=True): Lightning logs no metric then, so no trial has a value.")
    plugins = trainer.get("plugins")
    for plugin in plugins if isinstance(plugins, list | tuple) else [plugins]:
        if isinstance(plugin, AsyncCheckpointIO):
            raise ValueError(
                "Training(plugins=AsyncCheckpointIO): a trial could not go on from a state that is still "
                "being written when its epoch is over; leave the plugin out."
            )
    if max_epochs is not None and max_epochs != -1 and max_epochs < 1:
        raise ValueError(
            f"Training(max_epochs={max_epochs}): give at least 1; None where something else ends a trial."
        )
    limits = (trainer.get("max_steps", -1) != -1, trainer.get("max_time"), trainer.get("fast_dev_run"))
    if max_epochs in (None, -1) and not (any(limits) or can_stop):
        raise ValueError(
            f"Training(max_epochs={max_epochs}): a trial would never end. Give max_epochs, max_steps, "
            "max_time, time_limit, or a callback that stops it."
        )


def check_callbacks(callbacks: Any, monitor: str, mode: str) -> set[str]:
    """Raises TypeError for what is neither a list of callbacks nor a function that makes them.

    Warns of one that would stop a training while it gets better. Returned is what was said.
    """
    if callable(callbacks):
        return set()
    if isinstance(callbacks, pl.Callback):
        raise TypeError(
            f"callbacks={type(callbacks).__name__}(...): give a list, [{type(callbacks).__name__}(...)]."
        )
    for callback in callbacks:
        if not isinstance(callback, pl.Callback):
            raise TypeError(
                f"callbacks holds {callback!r}, which is no Lightning callback; give objects such as "
                "EarlyStopping(...), or a function of the trial that makes them all."
            )
    doubts = set(_doubts(callbacks, [], monitor, mode))
    for words in sorted(doubts):
        warnings.warn(words, stacklevel=3)
    return doubts


class Doubts(pl.Callback):
    """Warns of what works against a training that gets better, whoever made it: a function, or the task.

    Args:
        monitor: the metric of the training.
        mode: whether a high one is good ("max") or a low one ("min").
        told: what was said before; it is not said again.
    """

    def __init__(self, monitor: str, mode: str, told: set[str]) -> None:
        self.monitor = monitor
        self.mode = mode
        self.told = told

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it without saying so
        for words in _doubts(callbacks, trainer.lr_scheduler_configs, self.monitor, self.mode):
            if words not in self.told:
                self.told.add(words)
                warnings.warn(words, stacklevel=2)


def _doubts(callbacks: Iterable[Any], schedules: Iterable[Any], monitor: str, mode: str) -> Iterator[str]:
    """What stops a training, or slows it down, for a metric that gets better in the other direction."""
    watching: list[tuple[Any, str, str]] = [
        (c, c.monitor, c.mode) for c in callbacks if isinstance(c, EarlyStopping)
    ]
    for config in schedules:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            watching.append((config.scheduler, config.monitor or "", config.scheduler.mode))
    for who, metric, good in watching:
        if _contradicts(metric, good) or (metric == monitor and good != mode):
            yield _doubtful(type(who).__name__, metric, good)


def copies(thing: Any) -> Any:
    """A deep copy, in which only what cannot be copied (a lock, an open file) is shared."""
    if isinstance(thing, list | tuple):
        return type(thing)(map(copies, thing))
    try:
        return deepcopy(thing)
    except Exception:  # whatever the copying of an object of the user's raises
        other = copy(thing)
        for name, value in vars(thing).items():
            try:
                vars(other)[name] = deepcopy(value)
            except Exception:  # as above
                vars(other)[name] = value
        return other


def expected_reports(
    trainer: Mapping[str, Any], max_epochs: int | None, n_batches: Callable[[], float | None]
) -> int:
    """How many values a training reports at most; 0: not known.

    Args:
        trainer: arguments of the Trainer.
        n_batches: batches of an epoch, asked for only where the answer depends on it.
    """
    if trainer.get("fast_dev_run"):
        return 1
    interval, every = trainer.get("val_check_interval"), trainer.get("check_val_every_n_epoch", 1)
    max_steps = trainer.get("max_steps", -1)
    epochs = math.inf if max_epochs in (None, -1) else max_epochs
    within = validates_within_epochs(1.0 if interval is None else interval, every)
    if within and not isinstance(interval, int | float | None):
        return 0  # by time
    if not within and max_steps == -1:
        return 0 if epochs == math.inf else int(epochs)
    batches = _limited(n_batches(), trainer)
    if batches is None and isinstance(interval, float) and max_steps == -1 and epochs < math.inf:
        return int(epochs * round(1 / interval))
    if batches is None or not batches:
        return 0 if epochs == math.inf else int(epochs)
    if max_steps != -1:
        epochs = min(epochs, max_steps / math.ceil(batches / trainer.get("accumulate_grad_batches", 1)))
    if epochs == math.inf:
        return 0
    if not within:
        return max(1, int(epochs))
    step = (
        interval
        if isinstance(interval, int)
        else max(1, int(batches * (1.0 if interval is None else interval)))
    )
    if every is None:
        return max(1, int(epochs * batches // step))
    whole, part = divmod(epochs, 1)
    return max(1, int(whole * (batches // step) + part * batches // step))


def check_that_it_validates(trainer: Mapping[str, Any], n_batches: Callable[[], float | None]) -> None:
    """Check that `max_steps` leaves room for a validation.

    Raises:
        ValueError: a training ends within its first epoch, and validates at the end of epochs only.
    """
    max_steps, every = trainer.get("max_steps", -1), trainer.get("check_val_every_n_epoch", 1)
    if max_steps == -1 or validates_within_epochs(trainer.get("val_check_interval", 1.0) or 1.0, every):
        return
    batches = _limited(n_batches(), trainer)
    steps = every * math.ceil((batches or 0) / trainer.get("accumulate_grad_batches", 1))
    if max_steps < steps:
        raise ValueError(
            f"Training(max_steps={max_steps}) ends before its first validation, which comes after {steps} "
            f"steps. Give max_steps={steps} or more, or a val_check_interval."
        )


def validates_within_epochs(interval: Any, every: int | None) -> bool:
    """Whether `val_check_interval` and `check_val_every_n_epoch` ask for validations before an epoch ends."""
    return interval != 1.0 or isinstance(interval, int) or every is None


def _limited(n: float | None, trainer: Mapping[str, Any]) -> int | None:
    limit = trainer.get("overfit_batches") or trainer.get("limit_train_batches")
    if isinstance(limit, int) and limit > 0:
        return limit if n is None else int(min(n, limit))
    if n is None:
        return None
    return int(n) if limit is None else int(n * limit)
