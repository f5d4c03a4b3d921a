"""Lightning inside a search: silent, and interrupted in a way that a search can act on."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

_LOGGERS = ("pytorch_lightning", "lightning_fabric")


@contextmanager
def quiet(verbose: bool = False) -> Iterator[None]:
    """No device lines, tips or advice (number of workers, few batches) from Lightning, for a while.

    With `verbose`, only what nobody can act on is left out.
    """
    loggers = [] if verbose else [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 against a newer torch.
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
            # LightningDataModule.from_datasets sets it always.
            warnings.filterwarnings(
                "ignore", message="'pin_memory' argument is set as true but no accelerator"
            )
            if not verbose:
                warnings.simplefilter("ignore", PossibleUserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C leaves as KeyboardInterrupt and SIGTERM as `SystemExit(143)`; signal handlers are restored.

    Lightning leaves with `sys.exit(1)` or without an exit status, and may leave SIGINT ignored; or its
    cleaning up fails, with an error of which the interruption is but the context.
    """
    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    handled = sys.exception()  # a search that begins where another was interrupted
    try:
        yield
    except (Exception, SystemExit) as error:
        for cause in _behind(error, handled):
            if isinstance(cause, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            if isinstance(cause, SIGTERMException):
                raise SystemExit(128 + signal.SIGTERM) from error
            if isinstance(cause, SystemExit) and cause is not error:
                raise SystemExit(cause.code) from error
        raise
    finally:
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def _behind(error: BaseException | None, before: BaseException | None) -> Iterator[BaseException]:
    """The error, and what was being handled when it was raised, but nothing from `before`."""
    while error is not None and error is not before:
        yield error
        error = error.__context__


@contextmanager
def untouched_loaders(data: pl.LightningDataModule) -> Iterator[None]:
    """Put back the generators of loaders that `data` makes meanwhile; a user's own may outlive a training."""
    states: list[tuple[torch.Generator, Any]] = []

    def watched(make: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            loaders = make()
            for loader in tree_leaves(loaders):
                if isinstance(loader, DataLoader):
                    holders = (loader, loader.sampler, loader.batch_sampler)
                    found = [vars(holder).get("generator") for holder in holders if holder is not None]
                    states.extend((g, g.get_state()) for g in found if isinstance(g, torch.Generator))
            return loaders

        return call

    for name in ("train_dataloader", "val_dataloader"):
        setattr(data, name, watched(getattr(data, name)))
    try:
        yield
    finally:
        for generator, state in reversed(states):
            generator.set_state(state)
