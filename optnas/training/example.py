"""An example of what a model is given in training: taken once, as Lightning hands it over."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import optuna
import pytorch_lightning as pl
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from optnas.data.cache import on_real_device
from optnas.errors import describe_error
from optnas.estimation.run import Run
from optnas.facts.inputs import Arguments, arguments, spread, tensors_in, with_tensors
from optnas.seeds import derive_seed, seeded
from optnas.training.quiet import interruptible, quiet
from optnas.training.watch import NO_BATCH
from optnas.trial import Draw, ask

WAY_OUT = (
    "Say what a model gets with Objective(example=...): a shape with the batch dimension, a tensor, or all "
    "that it is called with, optnas.Arguments(...)."
)

# Other devices and number formats are the training's business; the rest would write, print or profile.
_LEFT_OUT = {
    *("precision", "plugins", "strategy", "profiler", "fast_dev_run", "overfit_batches", "barebones"),
    *("limit_val_batches", "callbacks"),
}
_QUICK: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "limit_val_batches": 0,
    "num_sanity_val_steps": 0,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@dataclass(frozen=True)
class Step:
    """What makes a training step: task, data that is set up, and arguments of the Trainer."""

    task: Callable[[Any, Any], pl.LightningModule]
    data: pl.LightningDataModule
    trainer: Mapping[str, Any]

    def example(self, trial: Any, n: int = 2) -> Any:
        """`n` samples of what the step calls the model with, or as many as a batch has.

        The step runs on the first batch of the training data, with all hooks of the data module and of the
        LightningModule, a Trainer attached, and a stand-in for the model that notes its arguments. Where a
        task needs the real model, the inputs of a batch `(inputs, targets)` are taken, as the step gets them.

        Raises:
            TypeError: an argument cannot be copied, or the batches are no pairs.
        """
        with on_real_device(), torch.enable_grad(), seeded(derive_seed("example")):
            noted, why_not = self._run(trial)
            if noted.call is not None:
                return _as_example(*noted.call, n)
            if noted.batch is None:
                # What is wrong with the data shows again without the task, and passes through.
                noted = self._run_without_task()
            return _inputs_of(noted.batch, why_not, n)

    def _run(self, trial: Any) -> tuple[_Note, str]:
        """What the task's step did, and why it called no model."""
        note = _Note()
        try:
            self._fit(self.task(_StandIn(), trial), note)
        except _Called as call:
            note.call = call.arguments
        except Exception as error:  # a task that needs more of a model than that it can be called
            return note, f"the task cannot run on a stand-in for the model ({describe_error(error)})"
        return note, "the task's training_step does not call the model"

    def _run_without_task(self) -> _Note:
        note = _Note()
        with suppress(_Called):
            self._fit(_Plain(), note)
        if note.batch is None:
            raise ValueError(NO_BATCH)
        return note

    def _fit(self, module: pl.LightningModule, note: _Note) -> None:
        module.configure_optimizers = _no_optimizer  # type: ignore[method-assign]  # a stand-in has nothing to train
        options = {name: value for name, value in self.trainer.items() if name not in _LEFT_OUT}
        with interruptible(), quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the training will say it all
            trainer = pl.Trainer(**{**options, **_QUICK}, callbacks=[note], logger=DummyLogger())
            trainer.fit(module, datamodule=self.data)


class Examples:
    """Keeps the example of each data module, taken once per process."""

    def __init__(self) -> None:
        self._taken: WeakKeyDictionary[pl.LightningDataModule, dict[str, Any]] = WeakKeyDictionary()

    def __call__(self, step: Step, trial: Any) -> Any:
        """The step's example for a trial.

        Where the answers to the task's questions do not change its shape, it is one for all trials, and none
        is asked.
        """
        taken = self._taken.setdefault(step.data, {})
        if not taken:
            low, high = (_stand_in(end) for end in (0, -1))
            first = step.example(low)
            depends = low.params and _shape(step.example(high)) != _shape(first)
            taken["of no trial" if depends else _ANY] = first
        if _ANY in taken:
            return taken[_ANY]
        answers = Draw(lambda name, distribution: ask(trial, name, distribution))
        example = step.example(answers)
        return taken.setdefault(repr(answers.params), example)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # another process takes its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._taken = WeakKeyDictionary()


_ANY = "of any trial"


class _Called(BaseException):
    """The stand-in was called; no code of the user's mistakes it for an error."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.arguments = args, kwargs


class _StandIn(nn.Module):
    """Stands for any model until it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise _Called(*args, **kwargs)


class _Plain(pl.LightningModule):
    """A task that looks at nothing."""

    def training_step(self, batch: Any, batch_idx: int) -> NoReturn:
        raise _Called


class _Note(pl.Callback):
    """The first batch as it arrives in the step, and what the step called the model with."""

    def __init__(self) -> None:
        self.batch: Any = None
        self.call: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch = batch


class _Ends(optuna.samplers.BaseSampler):
    """Answers every question with the first or the last of the possible answers."""

    def __init__(self, end: int) -> None:
        self.end = end

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: BaseDistribution) -> Any:
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[self.end]
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        return (distribution.low, distribution.high)[self.end]


def _stand_in(end: int) -> Run:
    """A running trial of no study that anybody sees."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return Run.of(optuna.create_study(sampler=_Ends(end)).ask())
    finally:
        optuna.logging.set_verbosity(verbosity)


def _no_optimizer() -> None:
    return None


def _inputs_of(batch: Any, why_not: str, n: int) -> Any:
    """The inputs of a batch `(inputs, targets, ...)`, as a model takes them that a plain task calls."""
    if isinstance(batch, Tensor):
        return _as_example((batch,), {}, n)
    if not isinstance(batch, tuple | list) or not batch:
        raise TypeError(
            f"The data's batches are of type {type(batch).__name__}, not (inputs, targets), and {why_not}. "
            f"{WAY_OUT}"
        )
    return _as_example(*spread(batch[0]), n)


def _as_example(args: tuple[Any, ...], kwargs: Mapping[str, Any], n: int) -> Any:
    """`n` samples of a call's arguments, in a form that `Objective(example=...)` takes."""
    values = [*args, *kwargs.values()]
    if not values:
        raise TypeError(f"The model is called without arguments, so no example can be taken. {WAY_OUT}")
    plain = all(isinstance(value, Tensor | bool | int | float | str | None) for value in values)
    sizes = {len(value) for value in values if isinstance(value, Tensor) and value.ndim}
    # What differs in its first dimension has no rows in common, and what an object holds nobody knows.
    rows = n if plain and len(sizes) == 1 else None

    def sample(value: Any) -> Any:
        return with_tensors(value, lambda t: (t[:rows] if t.ndim else t).detach().cpu().clone())

    given = Arguments(*map(sample, args), **{name: sample(value) for name, value in kwargs.items()})
    if not all(isinstance(value, Tensor) for value in values):
        return given
    if args and kwargs:
        return *given.args, given.kwargs
    return given.kwargs or (given.args[0] if len(args) == 1 else given.args)


def _shape(example: Any) -> Any:
    given = arguments(example)
    leaves, structure = tree_flatten((given.args, given.kwargs))
    tensors = [(tensor.dtype, tensor.shape) for leaf in leaves for tensor in tensors_in(leaf)]
    return str(structure), tensors, [repr(leaf) for leaf in leaves if isinstance(leaf, bool | int | str)]
