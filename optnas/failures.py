"""Why a trial failed, in words; and whether it is the trial that failed, or what it runs on."""

from __future__ import annotations

import errno
import os
import traceback
from pathlib import Path

import torch
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from torch import nn

_INSTALLED = tuple(
    str(folder)
    for folder in (
        Path(torch.__file__).parents[1],
        Path(os.__file__).parent,
        Path(__file__).parent,
        "<frozen",
    )
)


class SpaceError(RuntimeError):
    """The sampled model does not run; the message has the place in the user's code and the parameters."""


class CheckpointError(OSError):
    """Files of a training cannot be written: the disk is full, or the folder may not be written to."""


class UntestableError(RuntimeError):
    """There is no test: the data has no test split, or the task no `test_step`."""


def is_infrastructure(error: BaseException) -> bool:
    """Whether an attempt ended by no fault of its trial, which goes on later or elsewhere.

    The storage or the disk failed, or another process has taken the trial over.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return isinstance(error, StorageInternalError | UpdateFinishedTrialError | CheckpointError)


def describe_error(error: BaseException) -> str:
    """`Type at file:line in function: message`, with the last place that is the user's own code."""
    message = next(iter(str(error).strip().splitlines()), "no message")
    if isinstance(error, SpaceError):
        return message
    own = [f for f in traceback.extract_tb(error.__traceback__) if is_users_code(f.filename)]
    place = f" at {Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else ""
    return f"{type(error).__name__}{place}: {message}"


def is_users_code(filename: str) -> bool:
    """Whether a source file belongs neither to Python, nor to an installed package, nor to optnas."""
    return not filename.startswith(_INSTALLED)


def failing_layer(model: nn.Module | None, error: BaseException) -> str:
    """The innermost layer of the model whose code raised the error, by its path in the model."""
    layers = {id(module): name for name, module in model.named_modules()} if model is not None else {}
    selves = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    inner = [m for m in selves if layers.get(id(m))]
    return f"layer {layers[id(inner[-1])]!r} ({type(inner[-1]).__name__})" if inner else ""


def error_kind(reason: str) -> str:
    """The part of a reason that is the same for the same error in other trials: its type and place."""
    return reason.split(": ", 1)[0]
