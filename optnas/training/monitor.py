"""Watches one training: reports to the pruner, keeps what scored best, saves the state after every epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, Timer
from torch import Tensor, nn

from optnas import private, record
from optnas.estimation.run import Run
from optnas.record import Reason, Why
from optnas.seeds import random_state, set_random_state
from optnas.training.arguments import expected_reports, validates_within_epochs
from optnas.training.checkpoints import Attempt
from optnas.training.heirs import OPTIMIZED, STATE_KEY, optimized
from optnas.training.snapshot import Snapshot, is_plain, take

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """A validation: its value, and all that was learned when it got that."""

    value: float
    epoch: int
    metrics: dict[str, float]
    snapshot: Snapshot


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes:
        best: its best validation; None: it had none.
        early: why it ended before its last step; None: it did all that was asked.
    """

    best: Scored | None
    early: Reason | None


class Monitor(Checkpoint):
    """A Lightning callback. As a `Checkpoint` it runs after the user's own callbacks.

    Args:
        model: what the space built, whose weights are kept under its own names.
        built: its `shapes` before the task got it.
        metric: what makes an epoch the best; reported to the trial after every validation.
        maximize: whether more is better.
        run: who is told, and asked whether to prune.
        attempt: where to save the state, if anywhere.
        time_limit: of which a `Timer` was told.
    """

    def __init__(
        self,
        model: nn.Module,
        built: dict[str, list[int]],
        metric: str,
        maximize: bool,
        run: Run,
        attempt: Attempt | None,
        time_limit: timedelta | None,
    ) -> None:
        self.first = _First(self)
        self._model = model
        self._built = built
        self._metric = metric
        self._maximize = maximize
        self._run = run
        self._attempt = attempt
        self._time_limit = time_limit
        # A trial has one curve: its first training draws it.
        self._reports = attempt is None or attempt.part == 0
        self._several = len(run.study.directions) > 1
        self._reported: set[int] = set()
        self._history: list[tuple[int, float]] = []
        self._best: Scored | None = None
        self.epochs = 0
        self._metrics: dict[str, float] = {}
        self._taken: Snapshot | None = None
        self._over = False  # whether no step is left
        self._early: Reason | None = None
        self._random: dict[str, Any] | None = None  # to go on with, from the state of an earlier attempt
        self._saves = False

    @property
    def outcome(self) -> Outcome:
        """What has come of the training so far."""
        return Outcome(self._best, self._early)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do: it has ended, or is to be pruned."""
        return self._over or self._early is not None

    @property
    def state_key(self) -> str:
        return STATE_KEY

    # ---- what Lightning calls, in this order ----

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._random is None:
            return
        # Lightning steps these schedulers after the state was saved, and not again when it goes on.
        for config in trainer.lr_scheduler_configs:
            due = config.interval == "epoch" and trainer.current_epoch % config.frequency == 0
            if config.reduce_on_plateau and due and config.monitor in self._metrics:
                plateau: Any = config.scheduler
                plateau.step(self._metrics[config.monitor])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        # Reading a number from an accelerator waits for it: look now and then.
        if isinstance(loss, Tensor) and (loss.device.type == "cpu" or batch_idx % 32 == 0):
            self._check_finite(trainer, "the training loss", loss.detach().sum().item())

    def take(self, module: pl.LightningModule) -> None:
        """Copy all that is learned, while what the validation scored is in place."""
        self._taken = take(module, self._model, self._built)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or self._early is not None:
            return
        self._score(trainer)
        # Reports that end an epoch wait until its state is saved.
        if _validates_within_epochs(trainer):
            self._judge(trainer, ended=trainer.is_last_batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready == 0:
            raise ValueError(
                f"In epoch {trainer.current_epoch} the training data had no batch. Let train_dataloader() "
                "return what can be gone through in every epoch, a DataLoader or a list, and no iterator or "
                "generator."
            )
        if not trainer.enable_validation and self._early is None:
            self.take(pl_module)
            self._score(trainer)
        if self._early is not None:
            return
        self._metrics = _metrics(trainer)
        if self._best is not None and self._best.epoch == trainer.current_epoch:
            # Until now those of the training data were of the epoch before. Where epochs have several
            # validations, this one's metrics stay.
            within, known = _validates_within_epochs(trainer), self._best.metrics
            metrics = {**self._metrics, **known} if within else self._metrics
            self._best = Scored(self._best.value, self._best.epoch, metrics, self._best.snapshot)
        self._over = self._has_ended(trainer, ended=True)
        self.epochs = trainer.current_epoch + 1
        early = self._why_early(trainer) if self._over else None
        self._early = early
        if self._attempt is not None:
            self._save(trainer, self._attempt)
        if early is None:
            self._judge(trainer, ended=True)
        else:
            self._report()

    # ---- the state ----

    def state_dict(self) -> dict[str, Any]:
        if not self._saves:  # the user's own checkpoint
            return {}
        best = self._best and {**vars(self._best), "snapshot": self._shared(self._best.snapshot)}
        return {
            "identity": self._attempt.identity if self._attempt is not None else "",
            "history": self._history,
            "best": best,
            "over": self._over,
            "epochs": self.epochs,
            "early": None if self._early is None else {**asdict(self._early), "kind": self._early.kind.value},
            "metrics": self._metrics,
            "random": random_state(),
            "threads": torch.get_num_threads(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Only what is random: `resume` loaded the rest. The first loader may be made right after this."""
        if self._random is not None:
            set_random_state(self._random)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self._saves:
            return
        checkpoint[OPTIMIZED] = optimized(trainer, pl_module)
        # The task makes the module anew: what it was made of is not read, and often is no plain value.
        for kind in (pl.LightningModule, pl.LightningDataModule):
            given = checkpoint.get(kind.CHECKPOINT_HYPER_PARAMS_KEY)
            if given is not None:
                plain = {name: value for name, value in dict(given).items() if is_plain(value)}
                checkpoint[kind.CHECKPOINT_HYPER_PARAMS_KEY] = plain
            checkpoint.pop(kind.CHECKPOINT_HYPER_PARAMS_TYPE, None)

    def resume(self) -> Path | None:
        """Get to where an earlier attempt at the trial got, if there was one; the file of its state."""
        if self._attempt is None or not self._attempt.earlier:
            return None
        if self._reports:
            stored = private.stored(self._run)
            several = map(int, record.REPORTS.of(stored) or {})
            self._reported.update(several if self._several else stored.intermediate_values)
        found = self._attempt.newest(self.state_key)
        if found is None:
            return None
        path, state = found
        if (before := state["threads"]) != (now := torch.get_num_threads()):
            _log.warning(
                "Trial %d was trained with %d CPU threads until it was interrupted, and goes on with %d: on "
                "the CPU its result may differ from that of an uninterrupted training. For an equal one, "
                "stop the search and resume it with OMP_NUM_THREADS=%d, on a machine with as many cores.",
                self._run.number, before, now, before,
            )  # fmt: skip
        self._history = [(step, value) for step, value in state["history"]]
        best = state["best"]
        self._best = best and Scored(**{**best, "snapshot": Snapshot(**best["snapshot"])})
        self._over = state["over"]
        self.epochs = state["epochs"]
        early = state["early"]
        self._early = early and Reason(Why(early["kind"]), early["words"], early["cause"])
        self._metrics = state["metrics"]
        self._random = state["random"]
        set_random_state(state["random"])
        self._judge(None, ended=self._over)
        return path

    def _save(self, trainer: pl.Trainer, attempt: Attempt) -> None:
        self._saves = True
        try:
            attempt.write(trainer.current_epoch, trainer.save_checkpoint, _kinds(trainer))
        finally:
            self._saves = False

    def _shared(self, snapshot: Snapshot) -> dict[str, Any]:
        """The best state, as the module's own tensors where these are still equal: stored once then."""
        module = self.first.module
        now = {} if module is None else module.state_dict()
        same = {name: now[name] for name, kept in snapshot.module.items() if _equal(now.get(name), kept)}
        return {**vars(snapshot), "module": {**snapshot.module, **same}}

    # ---- judging ----

    def _score(self, trainer: pl.Trainer) -> None:
        metrics = {**self._metrics, **_metrics(trainer)}  # a training that goes on has no earlier ones
        if self._metric not in metrics:
            raise no_such_metric(self._metric, metrics)
        value = metrics[self._metric]
        if not self._check_finite(trainer, self._metric, value):
            return
        epoch = trainer.current_epoch
        step = len(self._history) if _validates_within_epochs(trainer) else epoch
        self._history.append((step, value))
        best = self._best
        if best is None or (value > best.value if self._maximize else value < best.value):
            assert self._taken is not None, "the validation has just ended"
            self._best = Scored(value, epoch, metrics, self._taken)
        self._taken = None

    def _check_finite(self, trainer: pl.Trainer, name: str, value: float) -> bool:
        if math.isfinite(value):
            return True
        words = f"diverged: {name} is {value} in epoch {trainer.current_epoch}"
        self._end(trainer, Reason(Why.DIVERGED, words))
        return False

    def _report(self) -> bool:
        """Tell the trial what it has not been told; whether that was anything."""
        news = [(step, value) for step, value in self._history if step not in self._reported]
        for step, value in news if self._reports else ():
            self._run.report(*((step, {self._metric: value}) if self._several else (value, step)))
            self._reported.add(step)
        return self._reports and bool(news)

    def _judge(self, trainer: pl.Trainer | None, ended: bool) -> None:
        """Tell the trial what it has not been told, and ask whether it is to be pruned."""
        news = self._report()
        # After the last validation everything is paid for: let the trial be COMPLETE.
        if trainer is None:
            asks = self._reports and bool(self._history) and not self._over
        else:
            asks = news and not self._has_ended(trainer, ended) and len(self._history) < _expected(trainer)
        if asks and self._early is None and self._run.should_prune():
            step, value = self._history[-1]
            words = f"pruned at step {step}: {self._metric} is {value:.6g}"
            self._end(trainer, Reason(Why.PRUNED, words))

    def _end(self, trainer: pl.Trainer | None, reason: Reason) -> None:
        self._early = reason
        if trainer is not None:
            trainer.should_stop = True
            # Lightning would go on until these are reached.
            trainer.fit_loop.min_epochs = 0
            trainer.fit_loop.epoch_loop.min_steps = None

    def _has_ended(self, trainer: pl.Trainer, ended: bool) -> bool:
        """Whether no training step is left; `ended`: the epoch has had all of its own."""
        return _did_all(trainer, ended) or (trainer.should_stop and _may_stop(trainer, ended))

    def _why_early(self, trainer: pl.Trainer) -> Reason | None:
        if _did_all(trainer, ended=True):
            return None
        callbacks: list[pl.Callback] = vars(trainer)["callbacks"]
        timers = [callback for callback in callbacks if isinstance(callback, Timer)]
        if any((left := timer.time_remaining()) is not None and left <= 0 for timer in timers):
            limit = "its time (max_time or a Timer)" if self._time_limit is None else self._time_limit
            return Reason(
                Why.TIME, f"time limit of {limit} reached" if self._time_limit else f"{limit} is over"
            )
        stopping = [type(c).__name__ for c in callbacks if vars(c).get("stopped_epoch")]
        who = " and ".join(stopping) or "a callback"
        return Reason(Why.STOPPED, f"{who} stopped it in epoch {trainer.current_epoch}")


class _First(pl.Callback):
    """Runs before the user's callbacks, of which some put other weights in place for a validation only."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.module: pl.LightningModule | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.module = pl_module

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._monitor.take(pl_module)


def no_such_metric(name: str, logged: Mapping[str, Any]) -> ValueError:
    """The error for a metric that no validation logs."""
    return ValueError(
        f"Training(monitor={name!r}): the task logged no such metric, but "
        f"{', '.join(sorted(logged)) or 'none'}."
    )


def _did_all(trainer: pl.Trainer, ended: bool) -> bool:
    if 0 <= trainer.max_steps <= trainer.global_step:
        return True
    epochs = trainer.fit_loop.max_epochs
    return ended and epochs not in (None, -1) and trainer.current_epoch + 1 >= epochs


def _may_stop(trainer: pl.Trainer, ended: bool) -> bool:
    done = trainer.current_epoch + ended
    return done >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)


def _validates_within_epochs(trainer: pl.Trainer) -> bool:
    return validates_within_epochs(trainer.val_check_interval, trainer.check_val_every_n_epoch)


def _expected(trainer: pl.Trainer) -> float:
    """How many validations a training has, where it has several an epoch; else no matter."""
    if not _validates_within_epochs(trainer) or trainer.num_training_batches == math.inf:
        return math.inf
    given = {
        "val_check_interval": trainer.val_check_interval,
        "check_val_every_n_epoch": trainer.check_val_every_n_epoch,
        "max_steps": trainer.max_steps,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
    }
    return expected_reports(given, trainer.max_epochs, lambda: trainer.num_training_batches) or math.inf


def _metrics(trainer: pl.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _equal(now: Any, kept: Any) -> bool:
    """Whether one may stand for the other. Sparse tensors cannot be compared, and are kept as they are."""
    if not isinstance(now, Tensor) or now.device != kept.device:
        return False
    return now.layout == kept.layout == torch.strided and torch.equal(now, kept)


def _kinds(trainer: Any) -> frozenset[type]:
    """The types of all that puts something into the state of a training."""
    module = trainer.lightning_module
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    others = (*trainer.callbacks, *trainer.optimizers, *schedulers, trainer.datamodule)
    return frozenset(map(type, (*module.modules(), *module.hparams.values(), *others)))
