"""Data modules made once and set up once per process, not once per trial, the same in every process."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.model_helpers import is_overridden

from optnas.data.lock import one_at_a_time
from optnas.estimation.settings import digest
from optnas.seeds import derive_seed, random_state, seeded
from optnas.trial import Draw, ask

_KEPT = 2  # data modules at a time

Data: TypeAlias = pl.LightningDataModule | Callable[[Any], pl.LightningDataModule]


@dataclass(frozen=True)
class _Made:
    """A data module that is set up.

    Attributes:
        answers: what was asked to make it: name, distribution, answer.
        origin: of the study whose data it is; None where nothing random was drawn, so that it is any study's.
    """

    answers: tuple[tuple[str, Any, Any], ...]
    origin: str | None
    module: pl.LightningDataModule

    def is_for(self, trial: Any, origin: str | None) -> bool:
        """Whether making it anew would give the same. The trial is asked what the making would ask."""
        if None not in (self.origin, origin) and self.origin != origin:
            return False
        for name, distribution, answer in self.answers:
            given = ask(trial, name, distribution)
            if type(given) is not type(answer) or given != answer:  # True is not 1
                return False
        return True


class DataCache:
    """Gives the data module for a trial.

    A function of the trial is called again only when the trial answers its questions in another way than the
    last trials did. To find out, the trial is asked what the function would ask, and nothing else.

    What is random in making and setting up is seeded from the study, so that a random split is the same in
    every process; the process's own random state stays as it is.

    Attributes:
        origin: of the study (`record.origin`) whose data those get who do not say which.
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
        self.origin: str | None = None
        self._made: list[_Made] = []

    def __call__(self, trial: Any, origin: int | str | None = None) -> pl.LightningDataModule:
        """The data of the trial, set up; `origin` is that of its study, where it is known."""
        wanted = self.origin if origin is None else str(origin)
        for made in reversed(self._made):
            if made.is_for(trial, wanted):
                self._made.remove(made)
                self._made.append(made)
                return made.module
        made = self._make(trial, wanted or "")
        self._made = [*self._made, made][-_KEPT:]
        return made.module

    def forget(self) -> None:
        """Keep no data any more."""
        self._made = []

    def ask(self, trial: Any) -> None:
        """Ask the trial what making its data would ask."""
        if not isinstance(self.data, pl.LightningDataModule):
            self(trial)

    def _make(self, trial: Any, origin: str) -> _Made:
        seed = derive_seed(origin, "data")
        answers = Draw(lambda name, distribution: ask(trial, name, distribution))
        drawn: list[bool] = []
        with on_real_device():
            if isinstance(self.data, pl.LightningDataModule):
                module = self.data
            else:
                with _noting_draws(seed, drawn):
                    module = self.data(answers)
                if not isinstance(module, pl.LightningDataModule):
                    raise TypeError(
                        f"The function data= returned a {type(module).__name__}, not a LightningDataModule."
                    )
            module = _set_up(module, seed, drawn)
        asked = tuple((name, answers.distributions[name], given) for name, given in answers.params.items())
        return _Made(asked, origin if any(drawn) else None, module)

    def __getstate__(self) -> dict[str, Any]:
        # Another process loads data by itself.
        return {**self.__dict__, "_made": []}


def on_real_device() -> AbstractContextManager[Any]:
    """Out of `torch.device("meta")`, in which spaces are walked: data keeps its values."""
    return torch.device("cpu") if torch.get_default_device().type == "meta" else nullcontext()


def _set_up(module: pl.LightningDataModule, seed: int, drawn: list[bool]) -> pl.LightningDataModule:
    """A copy, prepared for training, in which every Trainer finds that done; the original stays as it is."""
    prepares = is_overridden("prepare_data", module, pl.LightningDataModule)
    lock = one_at_a_time(module) if prepares else nullcontext()
    module = copy.copy(module)
    for name in ("prepare_data", "setup", "teardown"):
        # On the object itself, so that Lightning still sees which hooks its class defines.
        setattr(module, name, _once(getattr(module, name), seed, drawn, run=name != "teardown"))
    with lock:
        module.prepare_data()
    module.setup(stage="fit")
    return module


def _once(hook: Callable[..., None], seed: int, drawn: list[bool], run: bool) -> Callable[..., None]:
    """Each stage once, from the same seed, so that splits drawn in two stages are one split."""
    done: set[Any] = set()

    @functools.wraps(hook)
    def call(*args: Any, **kwargs: Any) -> None:
        stage = (*args, *kwargs.values())
        if run and stage not in done:
            with _noting_draws(seed, drawn):
                hook(*args, **kwargs)
            done.add(stage)

    return call


@contextmanager
def _noting_draws(seed: int, drawn: list[bool]) -> Iterator[None]:
    """Seed what is done here, and note whether it drew random numbers."""
    with seeded(seed):
        before = digest(random_state())
        yield
        drawn.append(digest(random_state()) != before)
