"""Score a model by training it with Lightning."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import optuna
import pytorch_lightning as pl
import torch
from optuna.trial import BaseTrial, FrozenTrial
from pytorch_lightning.callbacks import EarlyStopping, ModelSummary, ProgressBar, Timer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import nn

from optnas import private, record
from optnas.data.cache import Data, DataCache
from optnas.data.fingerprint import data_fingerprint
from optnas.errors import ParamsMismatchError, SpaceError, UntestableError
from optnas.estimation.estimator import Direction, Estimator, Preview
from optnas.estimation.folders import claim, settle, wanted
from optnas.estimation.run import Run
from optnas.estimation.settings import describe, digest
from optnas.estimation.shared import is_shared, shared_weights_refused
from optnas.facts.inputs import Example
from optnas.record import Why
from optnas.seeds import derive_seed, random_state, seeded, set_random_state
from optnas.tasks.supervised import Supervised
from optnas.training.arguments import (
    Doubts,
    check_callbacks,
    check_monitor,
    check_that_it_validates,
    check_trainer,
    copies,
    expected_reports,
)
from optnas.training.checkpoints import (
    Attempt,
    count_weights,
    end,
    has_states,
    has_weights,
    load_snapshot,
    tidy,
)
from optnas.training.example import Examples, Step
from optnas.training.heirs import Heir, Legacy
from optnas.training.inheritance import Inherit, check_inherit, epochs_before, inherit
from optnas.training.memory import free_memory, is_out_of_memory, out_of_memory_prunes
from optnas.training.monitor import Monitor, no_such_metric
from optnas.training.pretrained import Pretrained, Source, as_pretrained, begin_with
from optnas.training.quiet import interruptible, quiet, untouched_loaders
from optnas.training.recalibration import FirstBatches, Recalibration
from optnas.training.snapshot import numpy_is_safe, put, shapes
from optnas.training.watch import Watch
from optnas.trial import Trial, replay

Task: TypeAlias = Callable[[Any, Any], pl.LightningModule]
Callbacks: TypeAlias = Sequence[pl.Callback] | Callable[[Any], Sequence[pl.Callback]]


class Training(Estimator):
    """Trains a model, reports to the pruner after every validation, and returns the best epoch's metrics.

    Args:
        task: `(model, trial) -> LightningModule`, `Classification(10)` for example.
        data: a LightningDataModule, set up once per process; or a function of the trial that makes one, kept
            as long as its questions get the same answers.
        monitor: name of the logged metric that makes an epoch the best, such as `val_acc`.
        mode: "max" if a high `monitor` is good, "min" if a low one is.
        max_epochs: epochs a trial; None or -1 where something else ends it (`max_steps`, a time, a callback).
        folder: where to keep checkpoints; recorded in the study. A path, or a URL of a place that machines
            share, such as `s3://bucket/folder` (`pip install s3fs`). None: `runs/<study name>` beside the
            database file, or in the working directory of a study without one. Where another study has its
            files there, the next free one of `<folder>-2`, `<folder>-3` and so on is taken.
        keep: how many of the study's best trials keep their weights.
        pretrained: begin with given weights, where names and shapes agree: a `state_dict`, a model of
            torchvision, timm or Hugging Face, the path of a file, `Pretrained.of_trial(study, number)`; or a
            function of the trial, which it may ask, that returns one of these, or None. The trial records
            what was loaded and what was not, and fails where nothing fits. Equal networks are no twins then,
            since it is names that decide what is loaded.
        inherit: begin with the weights of the trial's parent, which samplers such as
            `RegularizedEvolutionSampler` name, where names and shapes agree: `"exact"`, or
            `"shrink_perturb"`, .4 of them plus .1 of the new ones; or with the parent's function,
            `"net2net"`, where the child is wider, deeper or has larger kernels (Chen et al., Net2Net, 2016),
            and `"exact"` where it cannot have it: the trial records which, and why. A trial whose parent's
            weights are gone begins anew: let `keep` be as large as the population. With `pretrained` as well,
            the parent's weights replace the given ones where both fit, and `"shrink_perturb"` is refused.
        time_limit: seconds (or a timedelta) of training after which a trial ends with what it has.
        callbacks: Lightning callbacks, copied for every trial; or a function of the trial that makes them.
        logger: a function of the trial that makes a Lightning logger; `optnas.training.loggers` has such for
            TensorBoard, MLflow and Weights & Biases. `trial_folder(trial.study, trial.number)` is a place
            for its files. True is Lightning's default logger in that place.
        **trainer: further arguments of `pytorch_lightning.Trainer`.

    Examples:
        >>> short = optnas.Training(
        ...     optnas.Classification(3), data, monitor="val_acc", mode="max", max_epochs=1, keep=2
        ... )
        >>> trained = optnas.Objective(space, short)
    """

    def __init__(
        self,
        task: Task,
        data: Data,
        *,
        monitor: str,
        mode: Literal["max", "min"],
        max_epochs: int | None,
        folder: str | Path | None = None,
        keep: int = 5,
        pretrained: Source | None = None,
        inherit: Inherit | None = None,
        time_limit: float | timedelta | None = None,
        callbacks: Callbacks = (),
        logger: Callable[[Run], Logger | bool] | bool = False,
        **trainer: Any,
    ) -> None:
        check_monitor(task, monitor, mode)
        if isinstance(logger, Logger):
            raise TypeError(
                "logger= takes a function of the trial, so that trials do not log into one run: "
                f"logger=lambda trial: {type(logger).__name__}(...)."
            )
        check_inherit(inherit, keep, is_pretrained=pretrained is not None)
        check_trainer(trainer, max_epochs, can_stop=time_limit is not None or bool(callbacks))
        self._told = check_callbacks(callbacks, monitor, mode)
        self.task = task
        self.data = data
        self.monitor = monitor
        self.mode = mode
        self.max_epochs = max_epochs
        self._folder = None if folder is None else str(folder)  # a URL would not survive being a Path
        self.keep = keep
        self.pretrained = as_pretrained(pretrained)
        self.inherit = inherit
        self.time_limit = timedelta(seconds=time_limit) if isinstance(time_limit, float | int) else time_limit
        self.callbacks = callbacks
        self.logger = logger
        self.trainer = trainer
        self._data = DataCache(data)
        self._examples = Examples()
        self._base = Path.cwd()  # user code may change it while a search runs
        self._verbose = bool(trainer.get("enable_progress_bar") or trainer.get("enable_model_summary"))

    @property
    def values(self) -> Mapping[str, Direction]:
        """The metric to optimize and in which direction."""
        return {self.monitor: "maximize" if self.mode == "max" else "minimize"}

    @property
    def max_reports(self) -> int:
        """One an epoch, or one for every validation of all epochs where these have several."""
        return expected_reports(self.trainer, self.max_epochs, self._n_batches)

    def _n_batches(self) -> float | None:
        """Batches of an epoch of training; None where that is not known before a trial."""
        if not isinstance(self.data, pl.LightningDataModule):
            return None
        with torch.random.fork_rng(devices=[]), quiet(self._verbose):
            loader = self._data(None).train_dataloader()
        try:
            return len(loader)
        except TypeError:  # a stream, or several loaders
            return None

    @property
    def resumes(self) -> bool:
        """From the state after its last epoch."""
        return True

    @property
    def has_example(self) -> bool:
        """Its data has one."""
        return True

    @property
    def folder(self) -> Path | None:
        """As given, from the folder in which the training was made."""
        return None if self._folder is None else wanted(self._folder, self._base)

    @property
    def keeps_weights(self) -> bool:
        """Those of the best trials."""
        return True

    @property
    def scores_given_weights(self) -> bool:
        """Where weights are given or inherited, equal networks begin differently, and are no twins."""
        return self.inherit is not None or self.pretrained is not None

    def __call__(self, model: nn.Module, run: Trial) -> dict[str, float]:
        """Train `model` and leave the best epoch's weights in it. Returns that epoch's metrics.

        Goes on where an earlier attempt at the same trial was interrupted.

        Raises:
            optuna.TrialPruned: the pruner says so, the training diverges, its time is over before it was
                once validated, or memory is exhausted. The trial's reason says which.
            KeyboardInterrupt: on Ctrl-C.
            SystemExit: with code 143 on SIGTERM, after the batch or the validation in progress. What the
                finished epochs did is saved by then in either case.
        """
        metrics, _, _ = self._train(model, Run.of(run))
        return metrics

    def estimate_and_test(self, model: nn.Module, run: Run) -> dict[str, float]:
        """The same, with the metrics of the trained module on the test data, if there are any."""
        metrics, module, data = self._train(model, run)
        return {**metrics, **self._test(module, data, run)} if _untestable(module, data) is None else metrics

    def _train(
        self, model: nn.Module, run: Run
    ) -> tuple[dict[str, float], pl.LightningModule, pl.LightningDataModule]:
        _check_begins_alone(model)
        if self.inherit is None and not run.lone and record.BORN.of(private.stored(run)) is not None:
            raise ValueError(
                "PopulationPruner lets children go on with their parents' weights, and this Training begins "
                "anew: give it inherit='shrink_perturb', or another way to inherit."
            )
        data = self._data_for(run)
        built = shapes(model)
        module = self._make(model, run)
        attempt = None if run.lone else self._attempt(run)
        monitor = Monitor(model, built, self.monitor, self.mode == "max", run, attempt, self.time_limit)
        with out_of_memory_prunes(run):
            state = monitor.resume()
            if state is None and (began := begin_with(self.pretrained, model, run)) is not None:
                began.tell(run)
            legacy = None
            if self.inherit is not None and state is None and not run.lone:
                legacy = inherit(model, run, self.inherit, lambda: self._step_of(run).example(run, _BATCH))
            if not monitor.is_over:
                folder = None if attempt is None else attempt.trial_folder
                self._fit(module, run, data, monitor, state, legacy, folder)
        if not run.lone:
            record.EPOCHS.write(run, monitor.epochs + epochs_before(run))
        best, early = monitor.outcome.best, monitor.outcome.early
        if early is not None:
            if early.kind is Why.PRUNED:
                run.pause(early)
            if early.kind is Why.DIVERGED:
                run.stop(early)
            if best is None:
                run.stop(replace(early, words=f"{early.words}, before its first validation"))
            early.write(run)
        if best is None:
            raise ValueError(
                f"Training(monitor={self.monitor!r}) ended without one validation; check max_epochs, "
                "max_steps, the size of the data, check_val_every_n_epoch and limit_val_batches."
            )
        put(best.snapshot, module)
        if attempt is not None and self.keep > 0 and not run.in_passing:
            attempt.write_snapshot(best.snapshot)
            if count_weights(attempt.trial_folder.parent) > self.keep:
                tidy(run.study, self.keep)
        return best.metrics, module, data

    def validate(self, model: nn.Module, run: Run, *, n_calibration: int) -> dict[str, float]:
        """Metrics of the model as it is on the validation data; nothing is trained, and no file written.

        Before, statistics of normalizations are measured anew on `n_calibration` batches of the training
        data, the same for every model; see `Recalibration`. They stay in the model.

        Raises:
            ValueError: the task does not log `monitor`.
        """
        data = self._data_for(run)
        module = self._make(model, run)
        validated = data.val_dataloader
        with seeded(derive_seed("validate")), interruptible(), quiet(self._verbose):
            recalibration = Recalibration(module)
            trainer = self._trainer(None, [recalibration], logger=False)
            if n_calibration and recalibration.layers:
                batches = FirstBatches(data.train_dataloader(), n_calibration)
                data.val_dataloader = lambda: batches  # type: ignore[method-assign]
                trainer.validate(module, datamodule=data, verbose=False)
            recalibration.layers = []
            data.val_dataloader = validated  # type: ignore[method-assign]
            trainer.validate(module, datamodule=data, verbose=False)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self.monitor not in metrics:
            raise no_such_metric(self.monitor, metrics)
        return metrics

    def rehearse(self, model: nn.Module, run: Run) -> Collection[str] | None:
        """One training step and one validation step, on copies; nothing is kept or changed.

        Where only every nth epoch is validated, there are n epochs of one step. Of the callbacks only
        Lightning's EarlyStopping takes part, and no logger. Returned are the names of the metrics that a task
        of ours logs; a callback, or a task of another class, may log more later.

        Raises:
            ValueError: the task does not log `monitor`.
            Exception: whatever data, task and Trainer raise.
        """
        self._rehearse(model, run, watch := Watch())
        return watch.metrics if watch.saw_all and not self.callbacks else None

    def preview(self, model: nn.Module, run: Run) -> Preview:
        """The same, with the time that a whole training takes, from a few batches more, and what data lack.

        What ends trainings early (the pruner, callbacks) is not foreseen.
        """
        found: list[Exception] = []
        watch = Watch()
        try:
            self._rehearse(model, run, watch)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            found.append(error)
        seconds = None
        if not found and watch.n_batches is not None and self.max_epochs is not None and self.max_epochs > 0:
            if (n := watch.more_batches()) > 1:
                watch = Watch(n)
                self._rehearse(model, run, watch)
            every = self.trainer.get("check_val_every_n_epoch") or 1
            seconds = self.max_epochs * watch.seconds_per_epoch(self.trainer, every)
        metrics = None if found else frozenset(watch.metrics)
        return Preview(tuple(found), seconds, watch.batch_size, metrics)

    def _rehearse(self, model: nn.Module, run: Run, watch: Watch) -> None:
        _check_begins_alone(model)
        if not any(module.training for module in model.modules()):
            warnings.warn(
                "The space returns its model in eval mode, as from_pretrained of Hugging Face does, and "
                "Lightning trains it so: without dropout, and with the statistics of normalizations as they "
                "are. If that is not meant, end the space with model.train().",
                stacklevel=2,
            )
        state = random_state()
        try:
            copied = deepcopy(model)
            begin_with(self.pretrained, copied, run)
            self._step(copied, run, watch)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            free_memory()  # this network is too large, the next may not be
        finally:
            set_random_state(state)

    def _step(self, model: nn.Module, run: Run, watch: Watch) -> None:
        data = self._data_for(run)
        module = self._make(model, run)
        with untouched_loaders(data), interruptible(), quiet(), tempfile.TemporaryDirectory() as folder:
            module.configure_callbacks = list  # type: ignore[method-assign]  # they may keep something
            own = [] if callable(self.callbacks) else self.callbacks
            given = {name: value for name, value in self._given().items() if name not in _NOT_REHEARSED}
            limits = {
                "limit_train_batches": watch.most,
                "limit_val_batches": min(watch.most, given.get("limit_val_batches", watch.most)),
            }
            early = [deepcopy(callback) for callback in own if type(callback) is EarlyStopping]
            every = given.get("check_val_every_n_epoch") or 1
            trainer = pl.Trainer(
                **{"devices": 1, **given, **limits, **_QUIETLY},
                max_epochs=every,
                min_epochs=every,  # until it validates
                callbacks=[watch, *early, self._doubts],
                logger=False,
                default_root_dir=folder,
            )
            trainer.fit(module, datamodule=data)
            watch.check()
            watch.metrics = list(trainer.callback_metrics)
            watch.saw_all = isinstance(module, Supervised)
            if self.monitor not in trainer.callback_metrics:
                raise no_such_metric(self.monitor, trainer.callback_metrics)
        check_that_it_validates(self.trainer, self._n_batches)

    def ask(self, model: nn.Module, trial: Trial) -> None:
        """Ask the trial everything that training depends on, without training. `model` may be on meta."""
        self._data.ask(trial)
        self._make(model, trial)

    def example(self, trial: Trial) -> Example:
        """What the task calls the model with, of two training samples.

        Raises:
            TypeError: that are no tensors.
        """
        return self._examples(self._step_of(trial), trial)

    def _step_of(self, trial: Trial) -> Step:
        return Step(self.task, self._shared_data(trial), {**self.trainer, "max_epochs": self.max_epochs})

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
            **({} if self.inherit is None else {"inherit": self.inherit}),
            **({} if self.pretrained is None else {"pretrained": self._of_pretrained()}),
        }

    def _of_pretrained(self) -> Any:
        given = self.pretrained
        return given.digest if isinstance(given, Pretrained) else describe(given)

    def test(self, model: nn.Module, study: optuna.Study, trial: FrozenTrial) -> dict[str, float]:
        """The task's metrics on the data's test split, which no training sees.

        Raises:
            UntestableError: there is no test split, or the task has no `test_step`.
            FileNotFoundError, ParamsMismatchError: as for `trained`.
        """
        answers = replay(trial.params)
        data = self._data_for(answers, record.origin(study))
        module = self._make(deepcopy(model), answers)
        if (why := _untestable(module, data)) is not None:
            raise UntestableError(why)
        module = self._restore(model, study, trial)
        return self._test(module, data, answers)

    def has_trained(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the weights of this trial are still there: those of the best `keep` are."""
        return has_weights(study, trial)

    def trained(self, model: nn.Module, study: optuna.Study, trial: FrozenTrial) -> nn.Module:
        """The model as it was when it was scored, on the CPU, in evaluation mode.

        A task that alters the model (another head, weight norm) alters it here too.

        Raises:
            FileNotFoundError: its weights were deleted, or are elsewhere; the message says what is known.
            ParamsMismatchError: they do not fit the model, or the task trains none of it.
        """
        self._restore(model, study, trial)
        return model.eval()

    def _restore(self, model: nn.Module, study: optuna.Study, trial: FrozenTrial) -> pl.LightningModule:
        """The module as it was scored, and in it the model."""
        found = load_snapshot(study, trial)
        if shapes(model) != found.built:
            raise ParamsMismatchError(
                f"The space does not build the network of trial {trial.number} again: it has changed "
                "since, or decides something without asking the trial."
            )
        module = self._make(model, replay(trial.params))
        if found.module and found.weights and not found.model:
            raise ParamsMismatchError(
                f"The task trains a copy of the model in trial {trial.number}, not the model that it gets; "
                "let its LightningModule hold the model itself."
            )
        try:
            put(found, module)
        except RuntimeError as error:
            raise ParamsMismatchError(
                f"The task or a callback altered the network of trial {trial.number} in training, and the "
                "task alone does not do so again: "
                + next(iter(line.strip() for line in str(error).splitlines()[1:]), str(error))
            ) from error
        return module

    def with_max_epochs(self, max_epochs: int) -> Training:
        """The same training, for another number of epochs."""
        other = copy(self)
        other.__dict__.pop("settings", None)  # cached
        other.max_epochs = max_epochs
        return other

    def with_data(self, data: Data) -> Training:
        """The same training, on other data."""
        other = copy(self)
        other.__dict__.pop("settings", None)  # cached
        other.data, other._data, other._examples = data, DataCache(data), Examples()
        return other

    def forget_data(self) -> None:
        """Let go of the data that were made for the last trials; the next trial's are made anew."""
        self._data.forget()

    def provenance(self) -> dict[str, Any]:
        """What a study records of its data, and of all else that the results depend on."""
        others = {
            name: kept for name, kept in self.settings.items() if name not in ("estimator", "data", "values")
        }
        plain = {
            name: kept if type(kept) in (int, float, str, type(None)) else digest(kept)
            for name, kept in others.items()
        }
        return {"data": data_fingerprint(self.data), **plain}

    def finish(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Delete the states from which the trial could have gone on."""
        end(study, trial)

    def settle(self, study: optuna.Study) -> Path:
        """The folder that was asked for, or the usual one."""
        return settle(study, self._folder, self._base)

    def tidy(self, study: optuna.Study) -> None:
        """Delete the files that finished trials left, except the weights of the best `keep`."""
        self._data.origin = str(record.origin(study))
        tidy(study, self.keep)

    # ---- one training ----

    def _data_for(self, trial: Any, origin: int | str | None = None) -> pl.LightningDataModule:
        """The data, as an object of its own: what a callback or a Trainer sets on it ends with the trial."""
        return _of_its_own(self._shared_data(trial, origin))

    def _shared_data(self, trial: Any, origin: int | str | None = None) -> pl.LightningDataModule:
        """The data of all trials that ask for the same, set up as the trial's study has it."""
        _ = self.settings  # what they say is what everything was before it was used
        if origin is None and isinstance(trial, BaseTrial):
            origin = record.ORIGIN.of(trial)
            if origin is None and isinstance(trial, optuna.Trial) and not Run.of(trial).lone:
                origin = record.origin(trial.study)
        return self._data(trial, origin)

    def _make(self, model: nn.Module, trial: Any) -> pl.LightningModule:
        module = self.task(model, trial)
        if not isinstance(module, pl.LightningModule):
            raise TypeError(
                f"The task returned {type(module).__module__}.{type(module).__name__}, not a "
                "pytorch_lightning.LightningModule."
            )
        return module

    def _attempt(self, run: Run) -> Attempt:
        """The files of this attempt. By now everything was asked, so a later attempt has the same params."""
        study = run.study
        folder = claim(self.settle(study), run)
        identity = {
            "study": record.IDENTITY.of(study),
            "trial": private.trial_id(run),
            "params": run.params,
            "settings": self.settings,
            "seed": torch.initial_seed(),
        }
        text = json.dumps(identity, sort_keys=True, default=str)
        attempt = Attempt(folder, hashlib.sha256(text.encode()).hexdigest(), run.part())
        if has_states(folder):  # of trials that ended while nobody called `finish`
            tidy(study, self.keep)
        return attempt

    def _fit(
        self,
        module: pl.LightningModule,
        run: Run,
        data: pl.LightningDataModule,
        monitor: Monitor,
        state: Path | None,
        legacy: Legacy | None,
        folder: Path | None,
    ) -> None:
        timer = [] if self.time_limit is None else [Timer(self.time_limit)]
        own = self.callbacks(run) if callable(self.callbacks) else copies(self.callbacks)
        logger = self.logger(run) if callable(self.logger) else self.logger
        heir = [] if legacy is None else [Heir(legacy)]
        with interruptible(), quiet(self._verbose), numpy_is_safe():
            trainer = self._trainer(
                folder, [*heir, monitor.first, *own, *timer, self._doubts, monitor], logger
            )
            if legacy is not None:
                legacy.begin(trainer)
            trainer.fit(module, datamodule=data, ckpt_path=state)
            on_cuda = trainer.strategy.root_device.type == "cuda"
        if on_cuda:
            # The Trainer and its module refer to each other, so their memory is not free by itself.
            del trainer
            free_memory()

    @property
    def _doubts(self) -> Doubts:
        return Doubts(self.monitor, self.mode, self._told)

    def _test(self, module: pl.LightningModule, data: pl.LightningDataModule, trial: Any) -> dict[str, float]:
        with interruptible(), quiet(self._verbose):
            folder = trial.folder if isinstance(trial, Run) else None
            found = self._trainer(folder, [], logger=False).test(module, datamodule=data, verbose=False)
        return _merged(found)

    def _given(self) -> dict[str, Any]:
        """The user's arguments of the Trainer; what several trials must not share (profilers) is copied."""
        given = {name: copies(value) for name, value in self.trainer.items()}
        # There always is a checkpoint callback of ours, so Lightning adds none of its own in either case.
        given.pop("enable_checkpointing", None)
        return given

    def _trainer(
        self, folder: Path | None, callbacks: list[pl.Callback], logger: Logger | bool
    ) -> pl.Trainer:
        defaults: dict[str, Any] = {
            "devices": 1,
            "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
            "enable_model_summary": any(isinstance(callback, ModelSummary) for callback in callbacks),
            "num_sanity_val_steps": 0,
            "default_root_dir": folder,
        }
        return pl.Trainer(
            **{**defaults, **self._given()},
            max_epochs=self.max_epochs,
            callbacks=callbacks,
            logger=logger,
        )


_BATCH = 64  # samples on which a child is compared with its parent

# Arguments of the Trainer that a rehearsal leaves out: they measure, log, keep or end something.
_NOT_REHEARSED = frozenset((
    "fast_dev_run", "overfit_batches", "max_steps", "min_steps", "max_time", "min_epochs", "profiler",
    "val_check_interval", "default_root_dir", "reload_dataloaders_every_n_epochs",
    "log_every_n_steps", "accumulate_grad_batches",
))  # fmt: skip
_QUIETLY = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "num_sanity_val_steps": 0,
}


def _of_its_own(kept: pl.LightningDataModule) -> pl.LightningDataModule:
    """A copy; setting it up sets up the kept data, once for all trials, and takes over what that set."""
    own = copy(kept)

    def setup(*args: Any, **kwargs: Any) -> None:
        before = dict(vars(kept))
        kept.trainer = own.trainer
        try:
            kept.setup(*args, **kwargs)
        finally:
            kept.trainer = None
        news = {name: value for name, value in vars(kept).items() if before.get(name) is not value}
        vars(own).update({name: value for name, value in news.items() if name != "trainer"})

    own.setup = setup  # type: ignore[method-assign]
    return own


def _check_begins_alone(model: nn.Module) -> None:
    """Raises SpaceError where the model begins with shared weights, of which its trial would say nothing."""
    if is_shared(model):
        raise SpaceError(shared_weights_refused("Training"))


def _untestable(module: pl.LightningModule, data: pl.LightningDataModule) -> str | None:
    for part, method in ((data, "test_dataloader"), (module, "test_step")):
        if not is_overridden(method, part):
            return f"{type(part).__name__} has no {method}()."
    return None


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
