"""What tasks have in common: how a model is called, its target, its metrics, how weights are trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from optnas.tasks.recipe import USUAL, Recipe
from optnas.tasks.supervised import LearningRate, Supervised, learning_rate
from optnas.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Makes a LightningModule of a model: `task(model, trial)`. Every task takes these arguments, by name.

    By default weights are trained with AdamW and a one-cycle schedule (Smith & Topin, arXiv:1708.07120).

    Args:
        lr: the highest learning rate of the schedule: a number; `(low, high)` to ask the trial for `lr` on a
            logarithmic scale; or a function of the trial.
        weight_decay: of matrices and kernels; biases and normalization are not decayed.
        recipe: optimizer, schedule, warm-up, clipping, averaging of weights; or a function of the trial that
            says it.
        metrics: further torchmetrics by name, logged as `val_<name>` and `test_<name>`:
            `{"f1": MulticlassF1Score(10, average="macro")}`.
        call: `(model, inputs) -> output`, where `model(inputs)` is not how it is called:
            `lambda model, graph: model(graph.x, graph.edge_index)`. By default a tuple of inputs is passed as
            several arguments, and a dict by name.
        target: which entry of a dict, or attribute of another object that a batch is, holds the targets; not
            needed with batches `(inputs, targets)`, nor where one of labels, label, targets, target, y is
            there.

    Of what a model returns, its `logits` count where it has such, of a tuple the first.

    Examples:
        >>> class Quadratic(optnas.tasks.Task):
        ...     def __call__(self, model, trial):
        ...         return self.supervised(model, trial, nn.functional.mse_loss, {})
        >>> module = Quadratic(lr=(1e-4, 1e-2))(nn.Linear(8, 1), trial)
    """

    lr: LearningRate = 5e-3
    weight_decay: float = 0.01
    recipe: Recipe | Callable[[Trial], Recipe] = USUAL
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    call: Callable[[nn.Module, Any], Any] | None = None
    target: str | None = None

    @abstractmethod
    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        """The module that trains `model`; what it depends on is asked of the trial."""

    def supervised(
        self,
        model: nn.Module,
        trial: Trial,
        loss: Callable[[Any, Any], Tensor],
        metrics: Mapping[str, Metric],
        kind: type[Supervised] = Supervised,
        **more: Any,
    ) -> Supervised:
        """A module of this kind, with all that the task says in general."""
        if "loss" in self.metrics:
            raise ValueError("metrics={'loss': ...} would be logged over the loss; give it another name.")
        return kind(
            model,
            loss=loss,
            metrics={**metrics, **deepcopy(dict(self.metrics))},
            lr=learning_rate(self.lr, trial),
            weight_decay=self.weight_decay,
            recipe=self.recipe if isinstance(self.recipe, Recipe) else self.recipe(trial),
            call=self.call,
            target=self.target,
            **more,
        )
