"""Numbers from numbers: one or several per sample, sequences, images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanAbsoluteError, R2Score

from optnas.tasks.task import Task
from optnas.trial import Trial


@dataclass(frozen=True)
class Regression(Task):
    """Mean squared error of outputs against targets of the same shape; `(n, 1)` against `(n,)` is fine.

    Scale the targets to about zero mean and unit variance first: a few epochs of small steps do not reach
    targets around 150; an `r2` below 0 is the sign of that. Logs `train_loss` and, for `val` and `test`, the
    loss, `mae` (mean absolute error) and `r2` (coefficient of determination; it needs two samples or more).
    Of targets `(n, k)`, `r2` is the mean over the k columns; of targets with more dimensions, it is that of
    all their elements together.

    Args:
        loss: `(output, target) -> scalar`, a mean over the elements of the target.

    The keyword arguments of `optnas.tasks.Task` are accepted too: `lr`, `recipe`, `metrics`, `call`, ...

    Examples:
        >>> task = optnas.Regression(nn.functional.l1_loss, lr=1e-3)
        >>> module = task(nn.Linear(4, 1), trial)
    """

    loss: Callable[[Tensor, Tensor], Tensor] = functional.mse_loss

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        return self.supervised(model, trial, self.loss, {"mae": MeanAbsoluteError(), "r2": _R2()}, flat=True)


class _R2(R2Score):
    """Of more than two dimensions, all elements together; torchmetrics' own refuses them."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        if target.ndim > 2:
            preds, target = preds.reshape(-1), target.reshape(-1)
        super().update(preds, target)
