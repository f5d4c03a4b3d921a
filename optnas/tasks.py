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
from torchmetrics import MeanAbsoluteError, Metric, MetricCollection, R2Score
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
            loss=nn.CrossEntropyLoss(label_smoothing=self.label_smoothing),
            metrics={"acc": accuracy},
            lr=_learning_rate(self.lr, trial),
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class Regression:
    """Mean squared error of outputs against targets of the same shape; `(n, 1)` against `(n,)` is fine.

    Trained with AdamW and a one-cycle schedule. Logs `train_loss` and, for `val` and `test`, the loss, `mae`
    (mean absolute error) and `r2` (coefficient of determination; it needs two samples or more).

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
        flat: compare outputs `(n, 1)` and targets `(n,)` as `(n,)` both.
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
        collection = MetricCollection(dict(metrics), compute_groups=False)
        self.val_metrics = collection.clone(prefix="val_")
        self.test_metrics = collection.clone(prefix="test_")

    def forward(self, x: Any) -> Any:
        if isinstance(x, dict):
            return self.model(**x)
        return self.model(*x) if isinstance(x, tuple | list) else self.model(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        _, _, loss = self._step(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[1]))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("val", self.val_metrics, batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("test", self.test_metrics, batch)

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
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self.lr,
            total_steps=max(2, int(self.trainer.estimated_stepping_batches)),
            pct_start=0.25,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _step(self, batch: Any) -> tuple[Any, Any, Tensor]:
        x, y = batch
        output = self(x)
        if self.flat and output.ndim == y.ndim + 1 and output.shape[-1] == 1:
            output = output.squeeze(-1)
        return output, y, self.loss(output, y)

    def _evaluate(self, part: str, metrics: MetricCollection, batch: Any) -> None:
        output, y, loss = self._step(batch)
        metrics.update(output, y)
        self.log(f"{part}_loss", loss, batch_size=len(y))
        self.log_dict(metrics)


def _learning_rate(lr: LearningRate, trial: Trial) -> float:
    if callable(lr):
        return lr(trial)
    if isinstance(lr, tuple):
        return trial.suggest_float("lr", *lr, log=True)
    return lr
