"""What a model learns: recipes that wrap any model into a LightningModule with loss, metrics and optimizer.

A task is a callable `(model, trial) -> LightningModule`. These are two; a function of your own is another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanAbsoluteError, Metric, R2Score
from torchmetrics.classification import MulticlassAccuracy

from optnas.trial import Trial

LearningRate: TypeAlias = float | tuple[float, float] | Callable[[Trial], float]


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of class scores `(n, n_classes, ...)` against integer labels `(n, ...)`.

    Trained with AdamW and a one-cycle schedule (Smith & Topin, arXiv:1708.07120). Logs `train_loss`,
    `val_loss`, `val_acc`, `test_loss` and `test_acc` (accuracy over samples, in 0..1).

    Args:
        n_classes: number of classes.
        lr: the highest learning rate of the schedule: a number; `(low, high)` to ask the trial for `lr` on a
            logarithmic scale; or a function of the trial.
        weight_decay: of AdamW.
        label_smoothing: share of the label spread over all classes, in 0..1.
    """

    n_classes: int
    lr: LearningRate = 5e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.0

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        accuracy = MulticlassAccuracy(self.n_classes, average="micro", validate_args=False)
        return Supervised(
            model,
            loss=_CrossEntropy(self.n_classes, self.label_smoothing),
            metrics={"acc": accuracy},
            lr=_learning_rate(self.lr, trial),
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class Regression:
    """Mean squared error of outputs against targets of the same shape; `(n, 1)` against `(n,)` is fine.

    Scale the targets to about zero mean and unit variance first: a few epochs of small steps do not get to
    targets around 150, and an `r2` below 0 says so. Trained with AdamW and a one-cycle schedule. Logs
    `train_loss` and, for `val` and `test`, the loss, `mae` (mean absolute error) and `r2` (coefficient of
    determination; it needs two samples or more).

    Args:
        lr: as for `Classification`.
        weight_decay: of AdamW.
        loss: `(output, target) -> scalar`.
    """

    lr: LearningRate = 5e-3
    weight_decay: float = 0.01
    loss: Callable[[Tensor, Tensor], Tensor] = functional.mse_loss

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        return Supervised(
            model,
            loss=self.loss,
            metrics={"mae": MeanAbsoluteError(), "r2": R2Score()},
            lr=_learning_rate(self.lr, trial),
            weight_decay=self.weight_decay,
            flat=True,
        )


class Supervised(LightningModule):
    """Trains `model` on batches `(x, y)`; `x` may be a tuple or a dict of tensors, passed as arguments.

    Args:
        model: any module.
        loss: `(output, y) -> scalar`, a mean over the batch.
        metrics: torchmetrics of `(output, y)`, logged as `val_<name>` and `test_<name>`.
        lr: the highest learning rate of the one-cycle schedule.
        weight_decay: of AdamW.
        flat: compare `(n, 1)` and `(n,)` as `(n,)` both, and refuse what else differs in shape.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
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
        self._train_loss = _Mean()
        self._loss = _Mean()

    def forward(self, x: Any) -> Any:
        if isinstance(x, dict):
            return self.model(**x)
        return self.model(*x) if isinstance(x, tuple | list) else self.model(x)

    # Metrics are logged once per epoch: Lightning's log() takes as long as a small model's whole step.

    def on_train_epoch_start(self) -> None:
        self._train_loss = _Mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        _, y, loss = self._step(batch)
        self._train_loss.add(loss.detach(), len(y))
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train_loss", self._train_loss.value, sync_dist=True)

    def on_validation_epoch_start(self) -> None:
        self._start()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self._log("val")

    def on_test_epoch_start(self) -> None:
        self._start()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch)

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
        # Both phases need a step, or the schedule divides by zero.
        n_steps = max(3, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.lr, total_steps=n_steps, pct_start=max(0.25, 2 / n_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _step(self, batch: Any) -> tuple[Any, Any, Tensor]:
        x, y = batch
        output = self(x)
        if self.flat:
            output, y = _same_shape(output, y)
        return output, y, self.loss(output, y)

    def _metrics(self) -> dict[str, Metric]:
        return {name: metric for name, metric in self.metrics.items() if isinstance(metric, Metric)}

    def _start(self) -> None:
        self._loss = _Mean()
        for metric in self._metrics().values():
            metric.reset()

    def _evaluate(self, batch: Any) -> None:
        output, y, loss = self._step(batch)
        self._loss.add(loss, len(y))
        for metric in self._metrics().values():
            metric.update(output, y)

    def _log(self, part: str) -> None:
        self.log(f"{part}_loss", self._loss.value, sync_dist=True)
        for name, metric in self._metrics().items():
            self.log(f"{part}_{name}", metric.compute())


class _CrossEntropy(nn.CrossEntropyLoss):
    """Of integer labels of any width; what does not fit is said in terms of model and labels."""

    def __init__(self, n_classes: int, label_smoothing: float) -> None:
        super().__init__(label_smoothing=label_smoothing)
        self.n_classes = n_classes

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        fits = output.ndim > 1 and output.shape[1] == self.n_classes and not y.is_floating_point()
        if not fits or y.shape != (len(output), *output.shape[2:]):
            raise ValueError(self._misfit(output, f"{tuple(y.shape)} of {y.dtype}"))
        try:
            return super().forward(output, y.long())
        except IndexError as error:
            raise ValueError(self._misfit(output, f"{int(y.min())}..{int(y.max())}")) from error

    def _misfit(self, output: Tensor, labels: str) -> str:
        n = self.n_classes
        return (
            f"Classification(n_classes={n}) takes scores (n, {n}, ...) and integer labels (n, ...) in "
            f"0..{n - 1}; the model returned {tuple(output.shape)}, and the labels are {labels}."
        )


def _same_shape(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
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
        self._n = 0

    def add(self, mean: Tensor, n: int) -> None:
        self._sum = self._sum + mean * n
        self._n += n

    @property
    def value(self) -> Tensor | float:
        return self._sum / max(self._n, 1)


def _learning_rate(lr: LearningRate, trial: Trial) -> float:
    if callable(lr):
        return lr(trial)
    if isinstance(lr, tuple | list):
        return trial.suggest_float("lr", *lr, log=True)
    return lr
