"""Data modules made once and set up once per process, not once per trial."""

from __future__ import annotations

import copy
import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytorch_lightning as pl
from filelock import FileLock

_KEPT = 2  # data modules at a time, of those that a function makes

# Between all processes of this user on this machine.
_ONE_AT_A_TIME = Path(tempfile.gettempdir(), f"optnas-data-{getattr(os, 'getuid', int)()}.lock")

Data: TypeAlias = pl.LightningDataModule | Callable[[Any], pl.LightningDataModule]
_Question: TypeAlias = tuple[str, tuple[Any, ...], dict[str, Any]]


class DataCache:
    """Gives the data module for a trial.

    A function of the trial is called again only when the trial answers its questions in another way than the
    last trials did. To find out, the trial is asked what the function would ask, and nothing else.
    """

    def __init__(self, data: Data) -> None:
        if not isinstance(data, pl.LightningDataModule) and not callable(data):
            raise TypeError(
                f"data is a {type(data).__module__}.{type(data).__name__}, not a "
                "pytorch_lightning.LightningDataModule nor a function of the trial that makes one. "
                "Tensors go into optnas.TensorData((x, y)), and torch datasets into "
                "LightningDataModule.from_datasets(train, val, test, batch_size=128)."
            )
        self.data = data
        self._made: list[tuple[list[tuple[_Question, Any]], pl.LightningDataModule]] = []

    def __call__(self, trial: Any) -> pl.LightningDataModule:
        for made in self._made:
            questions, module = made
            if all(_ask(trial, question) == answer for question, answer in questions):
                self._made.remove(made)
                self._made.append(made)
                return module
        recorder = _Recorder(trial)
        module = _set_up(self.data if isinstance(self.data, pl.LightningDataModule) else self.data(recorder))
        self._made = [*self._made, (recorder.answers, module)][-_KEPT:]
        return module

    def __getstate__(self) -> dict[str, Any]:
        # Another process loads data by itself.
        return {**self.__dict__, "_made": []}


class _Recorder:
    """Passes questions on to a trial and remembers them with their answers."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial
        self.answers: list[tuple[_Question, Any]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("suggest_"):
            return getattr(self._trial, name)

        def suggest(*args: Any, **kwargs: Any) -> Any:
            question = (name, args, kwargs)
            answer = _ask(self._trial, question)
            self.answers.append((question, answer))
            return answer

        return suggest


def _ask(trial: Any, question: _Question) -> Any:
    name, args, kwargs = question
    return getattr(trial, name)(*args, **kwargs)


def _set_up(module: pl.LightningDataModule) -> pl.LightningDataModule:
    """A copy, prepared for training, in which every Trainer finds that done; the original stays as it is."""
    module = copy.copy(module)
    for name in ("prepare_data", "setup", "teardown"):
        # On the object itself, so that Lightning still sees which hooks its class defines.
        setattr(module, name, _once(getattr(module, name), run=name != "teardown"))
    with FileLock(_ONE_AT_A_TIME):  # eight workers that download into one folder spoil each other's files
        module.prepare_data()
    module.setup(stage="fit")
    return module


def _once(hook: Callable[..., None], run: bool) -> Callable[..., None]:
    done: set[Any] = set()

    @functools.wraps(hook)
    def call(*args: Any, **kwargs: Any) -> None:
        stage = (*args, *kwargs.values())
        if run and stage not in done:
            hook(*args, **kwargs)
            done.add(stage)

    return call
