"""A LightningModule for any model, loss and metrics: epochs are scored as if each split were one batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeAlias

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

from optnas.trial import Trial

LearningRate: TypeAlias = float | tuple[float, float] | Callable[[Trial], float]


class Supervised(LightningModule):
    """Trains `model` on batches `(x, y)`; `x` may be a tuple or a dict of tensors, passed as arguments.

    Losses and metrics of an epoch are those of the whole split at once, whatever the sizes of its batches.
    With several loaders of validation or test data, each has its own: `val_loss/dataloader_idx_0` and so on.

    Args:
        model: any module.
        loss: `(output, y) -> scalar`, a mean over what `count` counts.
        metrics: torchmetrics of `(output, y)`, logged as `val_<name>` and `test_<name>`.
        lr: the highest learning rate of the one-cycle schedule; with a stream, whose end is not known, the
            learning rate of all steps.
        weight_decay: of AdamW.
        flat: compare `(n, 1)` and `(n,)` as `(n,)` both, refuse what else differs in shape, and count
            elements instead of rows.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        metrics: dict[str, Metric],
        lr: float,
        weight_decay: float,
        flat: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.lr = lr
        self.weight_decay = weight_decay
        self.flat = flat
        self.metrics = nn.ModuleDict(dict(metrics))
        self.metrics_of_loaders = nn.ModuleList()
        self._train_loss = _Mean()
        self._loss = _Mean()

    def pair(self, output: Any, y: Any) -> tuple[Any, Any]:
        """Outputs and targets as loss and metrics take them."""
        return _same_shape(output, y) if self.flat else (output, y)

    def score(self, output: Any, y: Any) -> tuple[Tensor, Tensor | int]:
        """The loss of a batch, and of how many it is the mean."""
        return self.loss(output, y), y.numel() if self.flat else _rows(y)

    def forward(self, x: Any) -> Any:
        if isinstance(x, dict):
            return self.model(**x)
        return self.model(*x) if isinstance(x, tuple | list) else self.model(x)

    # Metrics are logged once per epoch: Lightning's log() takes as long as a small model's whole step.

    def on_train_epoch_start(self) -> None:
        self._train_loss = _Mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        _, _, loss, n = self._step(batch)
        self._train_loss.add(loss.detach(), n)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train_loss", self._train_loss.value, sync_dist=True)

    def on_validation_epoch_start(self) -> None:
        self._start()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> None:
        self._evaluate("val", batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        self._log("val")

    def on_test_epoch_start(self) -> None:
        self._start()

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> None:
        self._evaluate("test", batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        self._log("test")

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch[0])

    def configure_optimizers(self) -> Any:
        # Scalars, biases and normalization are not decayed.
        decayed = [p for p in self.parameters() if p.ndim > 1]
        others = [p for p in self.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=self.lr)
        estimated = self.trainer.estimated_stepping_batches
        if not 0 <= estimated < math.inf:  # -1 of a stream
            return optimizer
        # Both phases need a step, or the schedule divides by zero.
        n_steps = max(3, int(estimated))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.lr, total_steps=n_steps, pct_start=max(0.25, 2 / n_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _step(self, batch: Any) -> tuple[Any, Any, Tensor, Tensor | int]:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            held = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
            raise TypeError(
                f"The task takes batches (inputs, targets), and got a {type(batch).__name__}{held}. "
                "Inputs may be a tuple or a dict of tensors; for other batches write a task of your own, "
                "(model, trial) -> LightningModule."
            )
        x, y = batch
        output, y = self.pair(self(x), y)
        return output, y, *self.score(output, y)

    def _start(self) -> None:
        self._loss = _Mean()
        for metric in _metrics(self.metrics).values():
            metric.reset()

    def _evaluate(self, part: str, batch: Any, loader: int | None) -> None:
        output, y, loss, n = self._step(batch)
        if loader is not None:
            self._log_batch(part, loader, output, y, loss, n)
            return
        self._loss.add(loss, n)
        for metric in _metrics(self.metrics).values():
            metric.update(output, y)

    def _log(self, part: str) -> None:
        if self._loss.n is None:  # several loaders, which log by themselves
            return
        self.log(f"{part}_loss", self._loss.value, sync_dist=True)
        counted = bool(self._loss.n > 0)
        for name, metric in _metrics(self.metrics).items():
            self.log(f"{part}_{name}", metric.compute() if counted else math.nan)

    def _log_batch(self, part: str, loader: int, output: Any, y: Any, loss: Tensor, n: Tensor | int) -> None:
        """Lightning adds the number of the loader to names that are logged in a step, and only there."""
        while len(self.metrics_of_loaders) <= loader:
            self.metrics_of_loaders.append(deepcopy(self.metrics))
        self.log(f"{part}_loss", loss, on_step=False, on_epoch=True, batch_size=int(n), sync_dist=True)
        for name, metric in _metrics(self.metrics_of_loaders[loader]).items():
            metric.update(output, y)
            where = f"metrics_of_loaders.{loader}.{name}"
            self.log(f"{part}_{name}", metric, on_step=False, on_epoch=True, metric_attribute=where)


def _same_shape(output: Any, y: Any) -> tuple[Tensor, Tensor]:
    for what, part in (("model returned", output), ("targets are", y)):
        if not isinstance(part, Tensor):
            raise TypeError(
                f"The {what} a {type(part).__name__}, where this task takes a tensor; for several outputs "
                "write a task of your own with optnas.tasks.Supervised."
            )
    if output.ndim == y.ndim + 1 and output.shape[-1] == 1:
        output = output.squeeze(-1)
    elif y.ndim == output.ndim + 1 and y.shape[-1] == 1:
        y = y.squeeze(-1)
    if output.shape != y.shape:
        # Broadcast to each other they would give a loss, of the wrong pairs.
        raise ValueError(f"The model returned {tuple(output.shape)}, and the targets are {tuple(y.shape)}.")
    return output, y


class _Mean:
    """A mean over samples. (torchmetrics' MeanMetric drops NaN, or else ignores the weights.)"""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self.n: Tensor | int | None = None

    def add(self, mean: Tensor, n: Tensor | int) -> None:
        self._sum = self._sum + mean * n
        self.n = n if self.n is None else self.n + n

    @property
    def value(self) -> Tensor | float:
        """NaN of nothing."""
        if self.n is None or self.n == 0:
            return math.nan
        return self._sum / self.n


def _metrics(metrics: nn.Module) -> dict[str, Metric]:
    return {name: metric for name, metric in metrics.named_children() if isinstance(metric, Metric)}


def _rows(y: Any) -> int:
    """How many rows a batch of targets has; of a tuple or dict of them, the first one's."""
    return next((len(part) for part in tree_leaves(y) if isinstance(part, Tensor) and part.ndim), 1)


def learning_rate(lr: LearningRate, trial: Trial) -> float:
    """A number, the answer to a question for a range, or what a function of the trial says."""
    if callable(lr):
        return lr(trial)
    if isinstance(lr, tuple | list):
        return trial.suggest_float("lr", *lr, log=True)
    return lr
