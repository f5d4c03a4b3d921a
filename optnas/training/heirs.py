"""A child takes over a training that is under way: its epoch, its optimizer, its schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

OPTIMIZED = "optnas:optimized"
"""In a state: the names of the parameters of each optimizer, in its order."""

STATE_KEY = "optnas"
"""Under which a state holds that of the monitor."""

_OF_CHILD = {"base_lrs", "_last_lr", "lr_lambdas"}  # of a schedule; the rest is how far it is


def optimized(trainer: pl.Trainer, module: pl.LightningModule) -> list[list[str]]:
    """The names of the parameters of each optimizer, in its order."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return [[names.get(parameter, "") for parameter in _parameters(one)] for one in trainer.optimizers]


@dataclass(frozen=True)
class Legacy:
    """What a child has of the state of its parent's training.

    Attributes:
        epochs: that the parent has behind it.
        weights: of the parent's model, by its own names.
        optimizers: for each optimizer, what it keeps of each parameter, by the parameter's name.
        schedules: the states of the schedules.
    """

    epochs: int
    weights: Mapping[str, Any]
    optimizers: Sequence[Mapping[str, Mapping[str, Any]]]
    schedules: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Legacy:
        """From what the parent saved after its last epoch."""
        monitor = state["callbacks"][STATE_KEY]
        names = monitor["best"]["snapshot"]["model"]
        kept = [
            {name: one["state"][i] for i, name in enumerate(order) if i in one["state"]}
            for order, one in zip(state[OPTIMIZED], state["optimizer_states"], strict=True)
        ]
        return cls(
            monitor["epochs"],
            {ours: state["state_dict"][theirs] for ours, theirs in names.items()},
            kept,
            state["lr_schedulers"],
        )

    def begin(self, trainer: pl.Trainer) -> None:
        """Let the training begin after the parent's last epoch."""
        progress = trainer.fit_loop.epoch_progress
        for counts in (progress.total, progress.current):
            for name in vars(counts):  # ready, started, processed, completed
                setattr(counts, name, self.epochs)


class Heir(pl.Callback):
    """Puts what the optimizer kept in place, where the shapes fit, and sets the schedule forward."""

    def __init__(self, legacy: Legacy) -> None:
        self._legacy = legacy

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for one, names, kept in zip(
            trainer.optimizers, optimized(trainer, pl_module), self._legacy.optimizers, strict=False
        ):
            for parameter, name in zip(_parameters(one), names, strict=True):
                state = kept.get(name)
                if state is not None and all(_fits(value, parameter) for value in state.values()):
                    one.state[parameter] = {n: _copy(value, parameter) for n, value in state.items()}
        for config, before in zip(trainer.lr_scheduler_configs, self._legacy.schedules, strict=False):
            schedule: Any = config.scheduler
            own = schedule.state_dict()
            news = {name: value for name, value in before.items() if name in own.keys() - _OF_CHILD}
            schedule.load_state_dict({**own, **news})
            if not {"_last_lr", "base_lrs"} <= before.keys():
                continue
            groups = schedule.optimizer.param_groups
            for group, now, first in zip(groups, before["_last_lr"], before["base_lrs"], strict=False):
                if first:
                    group["lr"] = group["initial_lr"] * now / first


def _parameters(one: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in one.param_groups for parameter in group["params"]]


def _fits(value: Any, parameter: nn.Parameter) -> bool:
    return not isinstance(value, Tensor) or value.dim() == 0 or value.shape == parameter.shape


def _copy(value: Any, parameter: nn.Parameter) -> Any:
    """As `Optimizer.load_state_dict` has it: counters of steps stay where they are."""
    if not isinstance(value, Tensor):
        return value
    return value.clone() if value.dim() == 0 else value.to(parameter, copy=True)
