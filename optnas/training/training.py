"""Score a model by training it with Lightning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias

import optuna
import pytorch_lightning as pl
import torch
from optuna.trial import BaseTrial, FrozenTrial
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import nn

from optnas import record
from optnas.data.cache import Data, DataCache
from optnas.data.fingerprint import data_fingerprint
from optnas.errors import ParamsMismatchError, UntestableError
from optnas.estimation.estimator import Direction, Estimator
from optnas.estimation.run import Run
from optnas.estimation.settings import describe
from optnas.record import Reason, Why
from optnas.training.checkpoints import (
    Attempt,
    count_weights,
    load_weights,
    settle_folder,
    tidy,
    trial_folder,
)
from optnas.training.example import Examples, Step
from optnas.training.memory import free_memory, out_of_memory_prunes
from optnas.training.monitor import Monitor
from optnas.training.quiet import interruptible, quiet
from optnas.trial import Trial

Task: TypeAlias = Callable[[Any, Any], pl.LightningModule]
Callbacks: TypeAlias = Sequence[pl.Callback] | Callable[[Any], Sequence[pl.Callback]]


class Training(Estimator):
    """Trains a model, reports to the pruner after every validation, and returns the best epoch's metrics.

    Args:
        task: `(model, trial) -> LightningModule`, `Classification(10)` for example.
        data: a LightningDataModule, set up once per process; or a function of the trial that makes one, kept
            as long as its questions get the same answers.
        monitor: name of the logged metric that makes an epoch the best, such as `val_acc`.
        mode: "max" or "min", what is good for `monitor`.
        max_epochs: epochs a trial.
        folder: where to keep checkpoints, `runs/<study name>` if None; recorded in the study. Where another
            study has its files there, the next free one of `<folder>-2`, `<folder>-3` and so on is taken.
        keep: how many of the study's best trials keep their weights.
        time_limit: seconds (or a timedelta) of training after which a trial ends with what it has.
        callbacks: Lightning callbacks, copied for every trial; or a function of the trial that makes them.
        logger: a function of the trial that makes a Lightning logger; `trial_folder(trial.study,
            trial.number)` is a place for its files. True is Lightning's default logger in that place.
        **trainer: further arguments of `pytorch_lightning.Trainer`.
    """

    def __init__(
        self,
        task: Task,
        data: Data,
        *,
        monitor: str,
        mode: Literal["max", "min"],
        max_epochs: int,
        folder: str | Path | None = None,
        keep: int = 5,
        time_limit: float | timedelta | None = None,
        callbacks: Callbacks = (),
        logger: Callable[[Any], Logger] | bool = False,
        **trainer: Any,
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode={mode!r}: what is good for {monitor}? Give 'max' or 'min'.")
        if isinstance(logger, Logger):
            raise TypeError(
                "logger= takes a function of the trial, so that trials do not log into one run: "
                f"logger=lambda trial: {type(logger).__name__}(...)."
            )
        _check_one_device(trainer)
        self.task = task
        self.data = data
        self.monitor = monitor
        self.mode = mode
        self.max_epochs = max_epochs
        self.folder = None if folder is None else Path(folder)
        self.keep = keep
        self.time_limit = timedelta(seconds=time_limit) if isinstance(time_limit, float | int) else time_limit
        self.callbacks = callbacks
        self.logger = logger
        self.trainer = trainer
        self._data = DataCache(data)
        self._examples = Examples()
        self._last: tuple[int, Attempt] | None = None
        self._verbose = bool(trainer.get("enable_progress_bar") or trainer.get("enable_model_summary"))

    @property
    def values(self) -> Mapping[str, Direction]:
        """The metric to optimize and in which direction."""
        return {self.monitor: "maximize" if self.mode == "max" else "minimize"}

    @property
    def max_reports(self) -> int:
        """One an epoch."""
        return self.max_epochs

    @property
    def has_example(self) -> bool:
        """Its data has one."""
        return True

    @property
    def keeps_weights(self) -> bool:
        """Those of the best trials."""
        return True

    def __call__(self, model: nn.Module, run: Any) -> dict[str, float]:
        """Train `model` and leave the best epoch's weights in it. Returns that epoch's metrics.

        Goes on where an earlier attempt at the same trial was interrupted.

        Raises:
            optuna.TrialPruned: the pruner says so, the training diverges, or memory is exhausted. The trial's
                user attribute `reason` says which.
            KeyboardInterrupt: on Ctrl-C.
            SystemExit: with code 143 on SIGTERM, after the batch or the validation in progress. What the
                finished epochs did is saved by then in either case.
        """
        trial = Run.of(run)
        data = self._data_of(trial)
        module = self.task(model, trial)
        attempt = self._attempt(trial)
        monitor = Monitor(model, self.monitor, self.mode == "max", trial, attempt)
        with out_of_memory_prunes(trial):
            self._train(module, trial, data, monitor)
        best = monitor.best
        if best is None:
            raise ValueError(
                f"Training(monitor={self.monitor!r}) ended without one validation; "
                "check max_epochs, the size of the data and limit_val_batches."
            )
        model.load_state_dict(best.weights)
        if attempt is not None and self.keep > 0:
            attempt.write_weights(best.weights)
            if count_weights(trial.study) > self.keep:
                tidy(trial.study, self.keep)
        return best.metrics

    def ask(self, model: nn.Module, trial: Trial) -> None:
        """Ask the trial everything that training depends on, without training. `model` may be on meta."""
        self._data.ask(trial)
        self.task(model, trial)

    def example(self, trial: Trial) -> Any:
        """What the task calls the model with, of two training samples.

        Raises:
            TypeError: that are no tensors.
        """
        step = Step(self.task, self._data_of(trial), {**self.trainer, "max_epochs": self.max_epochs})
        return self._examples(step, trial)

    @cached_property
    def settings(self) -> Any:
        """Everything besides the model and the trial's answers that the result depends on, as JSON."""
        return {
            "estimator": "Training",
            "task": describe(self.task),
            "data": [describe(self.data), data_fingerprint(self.data)],
            "values": self.values,
            "max_epochs": self.max_epochs,
            "time_limit": None if self.time_limit is None else self.time_limit.total_seconds(),
            "callbacks": describe(self.callbacks),
            "trainer": {name: describe(value) for name, value in sorted(self.trainer.items())},
        }

    def test(
        self,
        model: nn.Module,
        trial: Trial,
        trained_in: tuple[optuna.Study, FrozenTrial] | None = None,
    ) -> dict[str, float]:
        """The task's metrics on the data's test split, which no training sees.

        Raises:
            UntestableError: there is no test split, or the task has no `test_step`.
        """
        origin = None
        if trained_in is not None:
            model = self.trained(model, *trained_in)
            origin = record.origin(trained_in[0])
        module, data = self.task(model, trial), self._data_of(trial, origin)
        for part, method in ((data, "test_dataloader"), (module, "test_step")):
            if not is_overridden(method, part):
                raise UntestableError(f"{type(part).__name__} has no {method}().")
        with interruptible(), quiet(self._verbose):
            trainer = self._trainer(trial, [], logger=False)
            of_loaders = trainer.test(module, datamodule=data, verbose=False)
        return _merged(of_loaders)

    def trained(self, model: nn.Module, study: optuna.Study, trial: FrozenTrial) -> nn.Module:
        """The model with the weights of the trial's best epoch, on the CPU, in evaluation mode.

        Raises:
            FileNotFoundError: they were deleted, or are on another machine; the message says which.
            ParamsMismatchError: they do not fit the model.
        """
        weights = load_weights(study, trial.number)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise ParamsMismatchError(
                f"The space does not build the network of trial {trial.number} again: it has changed "
                "since, or decides something without asking the trial."
            ) from error
        return model.eval()

    def with_max_epochs(self, max_epochs: int) -> Training:
        """The same training, for another number of epochs."""
        other = copy(self)
        other.__dict__.pop("settings", None)  # cached
        other.max_epochs = max_epochs
        return other

    def provenance(self) -> dict[str, Any]:
        """What a study records of its data."""
        return {"data": data_fingerprint(self.data)}

    def tidy(self, study: optuna.Study) -> None:
        """Delete the files that finished trials left, except the weights of the best `keep`."""
        self._data.origin = str(record.origin(study))
        tidy(study, self.keep)

    def _data_of(self, trial: Any, origin: int | str | None = None) -> pl.LightningDataModule:
        """The data of a trial, set up as its study has it."""
        _ = self.settings  # what they say is what everything was before it was used
        if origin is None and isinstance(trial, BaseTrial):
            origin = record.ORIGIN.of(trial)
            if origin is None and isinstance(trial, optuna.Trial) and not Run.of(trial).lone:
                origin = record.origin(trial.study)
        return self._data(trial, origin)

    def _attempt(self, trial: Run) -> Attempt | None:
        study = trial.study
        if trial.lone:  # trained anew outside a study
            return None
        settle_folder(study, self.folder)
        # By now everything was asked, so a later attempt has the same params.
        identity = {
            "study": study.study_name,
            "trial": trial.number,
            "params": trial.params,
            "settings": self.settings,
            "seed": torch.initial_seed(),
        }
        text = json.dumps(identity, sort_keys=True, default=str)
        attempt = Attempt(trial_folder(study, trial.number), hashlib.sha256(text.encode()).hexdigest())
        self._end_last(study, attempt)
        self._last = trial.number, attempt
        return attempt

    def _end_last(self, study: optuna.Study, attempt: Attempt) -> None:
        """Delete the states of this process's last training, once nobody can go on from them."""
        if self._last is None:
            return
        number, last = self._last
        same_study = last.trial_folder.parent == attempt.trial_folder.parent
        if same_study and study.get_trials(deepcopy=False)[number].state.is_finished():
            last.end()

    def _train(
        self, module: pl.LightningModule, trial: Run, data: pl.LightningDataModule, monitor: Monitor
    ) -> None:
        path = monitor.resume()
        if path is not None and monitor.report():
            _prune(trial, monitor)
        if not monitor.finished:
            self._fit(module, trial, data, monitor, path)
        if monitor.diverged or monitor.pruned:
            _prune(trial, monitor)

    def _fit(
        self,
        module: pl.LightningModule,
        trial: Run,
        data: pl.LightningDataModule,
        monitor: Monitor,
        path: Path | None,
    ) -> None:
        timer = None if self.time_limit is None else Timer(self.time_limit)
        own = self.callbacks(trial) if callable(self.callbacks) else deepcopy(self.callbacks)
        callbacks = [*own, *([] if timer is None else [timer]), monitor]
        logger = self.logger(trial) if callable(self.logger) else self.logger
        with interruptible(), quiet(self._verbose):
            trainer = self._trainer(trial, callbacks, logger)
            trainer.fit(module, datamodule=data, ckpt_path=path)
            left = None if timer is None else timer.time_remaining()
            if left is not None and left <= 0:
                Reason(Why.TIME, f"time limit of {self.time_limit} reached").write(trial)
            if trainer.strategy.root_device.type == "cuda":
                # The Trainer and its module refer to each other, so their memory is not free by itself.
                del trainer
                free_memory()

    def _trainer(self, trial: Any, callbacks: list[pl.Callback], logger: Logger | bool) -> pl.Trainer:
        study = trial.study if isinstance(trial, Run) and not trial.lone else None
        defaults: dict[str, Any] = {
            "devices": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": None if study is None else trial_folder(study, trial.number),
        }
        return pl.Trainer(
            **{**defaults, **self.trainer},
            max_epochs=self.max_epochs,
            callbacks=callbacks,
            logger=logger,
        )


def _prune(trial: Run, monitor: Monitor) -> NoReturn:
    trial.stop(Reason(Why.PRUNED if monitor.pruned else Why.DIVERGED, monitor.reason or ""))


def _merged(of_loaders: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The metrics of all test loaders; a name with several values says of which loader each is."""
    merged: dict[str, float] = {}
    for name in dict.fromkeys(name for metrics in of_loaders for name in metrics):
        found = {i: float(metrics[name]) for i, metrics in enumerate(of_loaders) if name in metrics}
        if len(set(found.values())) == 1:  # Lightning repeats what is logged at the end for all of them
            merged[name] = next(iter(found.values()))
        else:
            merged |= {f"{name}/dataloader_idx_{i}": value for i, value in found.items()}
    return merged


def _check_one_device(trainer: Mapping[str, Any]) -> None:
    devices = trainer.get("devices", 1)
    one = devices in (1, "1") or (isinstance(devices, list | tuple) and len(devices) == 1)
    if not one or trainer.get("num_nodes", 1) != 1:
        raise ValueError(
            f"Training(devices={devices!r}): a trial trains on one device. Leave devices out, or name one "
            "such as devices=[0]; several workers use several devices."
        )
