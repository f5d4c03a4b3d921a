"""Watches one training: reports to the pruner, keeps the best weights, saves the state after every epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor, nn

from optnas.seeds import random_state, set_random_state
from optnas.training.checkpoints import Attempt

_log = logging.getLogger(__name__)


@dataclass
class Best:
    """The best validation so far."""

    value: float
    epoch: int
    metrics: dict[str, float]
    weights: dict[str, Any]


class Monitor(Checkpoint):
    """A Lightning callback. As a `Checkpoint` it runs after the user's own callbacks.

    Args:
        model: whose best weights to keep.
        metric: what makes an epoch the best; reported to the trial after every validation.
        maximize: whether more is better.
        trial: who is told, and asked whether to prune.
        attempt: where to save the state, if anywhere.

    After training, `pruned` or `diverged` say that it ended early, and `reason` why.
    """

    def __init__(
        self, model: nn.Module, metric: str, maximize: bool, trial: optuna.Trial, attempt: Attempt | None
    ) -> None:
        self.model = model
        self.metric = metric
        self.maximize = maximize
        self.trial = trial
        self.attempt = attempt
        # Optuna prunes studies of one objective only.
        self.prunes = len(trial.study.directions) == 1
        self.reported: set[int] = set()
        self.pruned = self.diverged = self.finished = False
        self.reason: str | None = None
        self.history: list[tuple[int, float]] = []
        self.best: Best | None = None
        self._metrics: dict[str, float] = {}
        self._resumed = False

    @property
    def state_key(self) -> str:
        return "optnas"

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        # Reading a number from an accelerator waits for it: look now and then.
        if isinstance(loss, Tensor) and (loss.device.type == "cpu" or batch_idx % 32 == 0):
            self._diverges(trainer, "the training loss", loss.detach().sum().item())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or self.diverged:
            return
        self._score(trainer)
        # Reports that end an epoch wait until its state is saved.
        if _validates_within_epochs(trainer) and self.report():
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.enable_validation and not self.diverged:
            self._score(trainer)
        if self.diverged:
            return
        self._metrics = _metrics(trainer)
        if self.best is not None and self.best.epoch == trainer.current_epoch:
            # Until now those of the training data were of the epoch before. Where epochs have several
            # validations, this one's metrics stay.
            within = _validates_within_epochs(trainer)
            self.best.metrics = {**self._metrics, **self.best.metrics} if within else self._metrics
        done = trainer.current_epoch + 1
        self.finished = done == trainer.max_epochs or (
            trainer.should_stop and done >= (trainer.min_epochs or 0)
        )
        if self.attempt is not None:
            self.attempt.write(trainer.current_epoch, trainer.save_checkpoint)
        if self.report():
            trainer.should_stop = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._resumed:
            return
        # Lightning steps these schedulers after the state was saved, and not again when it goes on.
        for config in trainer.lr_scheduler_configs:
            due = config.interval == "epoch" and trainer.current_epoch % config.frequency == 0
            if config.reduce_on_plateau and due and config.monitor is not None:
                plateau: Any = config.scheduler
                plateau.step(self._metrics[config.monitor])

    def state_dict(self) -> dict[str, Any]:
        return {
            "identity": self.attempt.identity if self.attempt is not None else "",
            "history": self.history,
            "best": self.best and {**vars(self.best), "weights": self._shared_weights(self.best)},
            "finished": self.finished,
            "metrics": self._metrics,
            "random": random_state(),
            "threads": torch.get_num_threads(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resumed = True
        self.history = [(step, value) for step, value in state_dict["history"]]
        self.best = None if state_dict["best"] is None else Best(**state_dict["best"])
        self.finished = state_dict["finished"]
        self._metrics = state_dict["metrics"]
        set_random_state(state_dict["random"])

    def resume(self) -> Path | None:
        """Get to where an earlier attempt at the trial got, if there was one; the file of its state."""
        if self.attempt is None or not self.attempt.earlier:
            return None
        if self.prunes:
            trials = self.trial.study.get_trials(deepcopy=False)
            self.reported.update(trials[self.trial.number].intermediate_values)
        found = self.attempt.newest(self.state_key)
        if found is None:
            return None
        path, state = found
        if (before := state["threads"]) != (now := torch.get_num_threads()):
            _log.warning(
                "Trial %d was trained with %d CPU threads until it was interrupted, and goes on with %d: on "
                "the CPU its result may differ from that of an uninterrupted training. For an equal one, "
                "stop the search and resume it with OMP_NUM_THREADS=%d, on a machine with as many cores.",
                self.trial.number, before, now, before,
            )  # fmt: skip
        self.load_state_dict(dict(state))
        return path

    def report(self) -> bool:
        """Tell the trial what it has not been told; whether it is to be pruned."""
        if not self.prunes or not self.history:
            return False
        for step, value in self.history:
            if step not in self.reported:
                self.trial.report(value, step)
                self.reported.add(step)
        # After the last epoch everything is paid for: let the trial be COMPLETE.
        self.pruned = not self.finished and self.trial.should_prune()
        if self.pruned:
            step, value = self.history[-1]
            self.reason = f"pruned at step {step}: {self.metric} is {value:.6g}"
        return self.pruned

    def _shared_weights(self, best: Best) -> dict[str, Any]:
        """The best weights, as the model's own tensors where these are still equal: stored once then."""
        now = self.model.state_dict()
        return {name: now[name] if _equal(now[name], kept) else kept for name, kept in best.weights.items()}

    def _score(self, trainer: pl.Trainer) -> None:
        metrics = {**self._metrics, **_metrics(trainer)}  # a training that goes on has no earlier ones
        if self.metric not in metrics:
            raise ValueError(
                f"Training(monitor={self.metric!r}): the task logged no such metric, but "
                f"{', '.join(sorted(metrics)) or 'none'}."
            )
        value = metrics[self.metric]
        if self._diverges(trainer, self.metric, value):
            return
        epoch = trainer.current_epoch
        step = len(self.history) if _validates_within_epochs(trainer) else epoch
        self.history.append((step, value))
        if self.best is None or (value > self.best.value if self.maximize else value < self.best.value):
            weights = {name: _copy(value) for name, value in self.model.state_dict().items()}
            self.best = Best(value, epoch, metrics, weights)

    def _diverges(self, trainer: pl.Trainer, name: str, value: float) -> bool:
        if not math.isfinite(value):
            self.diverged = True
            self.reason = f"diverged: {name} is {value} in epoch {trainer.current_epoch}"
            trainer.should_stop = True
        return self.diverged


def _validates_within_epochs(trainer: pl.Trainer) -> bool:
    return trainer.val_check_interval != 1.0 or trainer.check_val_every_n_epoch is None


def _metrics(trainer: pl.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _copy(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def _equal(now: Any, kept: Any) -> bool:
    return isinstance(now, Tensor) and now.device == kept.device and torch.equal(now, kept)
