"""A LightningModule for any model, loss and metrics: epochs are scored as if each split were one batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, TypeAlias

from pytorch_lightning import Callback, LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

from optnas.facts.inputs import spread
from optnas.tasks import batches
from optnas.tasks.recipe import USUAL, Recipe
from optnas.trial import Trial

LearningRate: TypeAlias = float | tuple[float, float] | Callable[[Trial], float]


class Supervised(LightningModule):
    """Trains `model` on batches `(x, y)`, or on others of which `target` names the part that is `y`.

    Losses and metrics of an epoch are those of the whole split at once, whatever the sizes of its batches.
    With several loaders of validation or test data, each has its own: `val_loss/dataloader_idx_0` and so on.

    Args:
        model: any module.
        loss: `(output, y) -> scalar`, a mean over what `count` counts.
        metrics: torchmetrics of `(output, y)`, logged as `val_<name>` and `test_<name>`.
        lr: the highest learning rate of the recipe's schedule.
        weight_decay: of matrices and kernels.
        flat: compare `(n, 1)` and `(n,)` as `(n,)` both, refuse what else differs in shape, and count
            elements instead of rows.
        recipe: how weights are trained.
        call: `(model, x) -> output`; by default a tuple of inputs is passed as arguments, a dict by name.
        target: as for `optnas.tasks.Task`.

    Examples:
        >>> module = optnas.Classification(3)(nn.Linear(8, 3), trial)
        >>> isinstance(module, optnas.tasks.Supervised)
        True
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        metrics: dict[str, Metric],
        lr: float,
        weight_decay: float,
        flat: bool = False,
        *,
        recipe: Recipe = USUAL,
        call: Callable[[nn.Module, Any], Any] | None = None,
        target: str | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.lr = lr
        self.weight_decay = weight_decay
        self.flat = flat
        self.recipe = recipe
        self.call = call
        self.target = target
        self.metrics = nn.ModuleDict(dict(metrics))
        self.metrics_of_loaders = nn.ModuleList()
        self._train_loss = _Mean()
        self._loss = _Mean()
        self._parts: dict[str, _Mean] = {}
        self._targets = _Range()
        self._without_class: dict[str, dict[str, bool]] = {}  # part: metric: whether it is defined at all

    def split(self, batch: Any) -> tuple[Any, Any]:
        """Inputs and targets of a batch."""
        return batches.split(batch, self.target)

    def measured(self, output: Any, y: Any) -> tuple[Any, Any] | None:
        """What of a pair metrics are given; None: nothing of it counts."""
        return output, y

    def parts(self, output: Any, y: Any) -> Mapping[str, tuple[Tensor, Tensor | int]]:
        """Further numbers of a batch by name: means, each with the number of what it is the mean of."""
        return {}

    def derived(self, loss: float) -> Mapping[str, float]:
        """What follows from the loss of a whole split, by name."""
        return {}

    def pair(self, output: Any, y: Any) -> tuple[Any, Any]:
        """Outputs and targets as loss and metrics take them."""
        return _same_shape(output, y) if self.flat else (output, y)

    def score(self, output: Any, y: Any) -> tuple[Tensor, Tensor | int]:
        """The loss of a batch, and of how many it is the mean."""
        return self.loss(output, y), y.numel() if self.flat else _rows(y)

    def forward(self, x: Any) -> Any:
        if self.call is not None:
            return self.call(self.model, x)
        args, kwargs = spread(x)
        return self.model(*args, **kwargs)

    # Metrics are logged once per epoch: Lightning's log() takes as long as a small model's whole step.

    def on_train_epoch_start(self) -> None:
        self._train_loss = _Mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        _, _, loss, n = self._step(batch)
        self._train_loss.add(loss.detach(), n)
        return loss

    def loss_on(self, batch: Any) -> Tensor:
        """The loss of a batch, which counts in no mean."""
        return self._step(batch)[2]

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
        return self(batch[0] if isinstance(batch, tuple | list) else self.split(batch)[0])

    def configure_optimizers(self) -> Any:
        return self.recipe.optimizers(self, self.lr, self.weight_decay)

    def configure_callbacks(self) -> list[Callback]:
        return self.recipe.callbacks()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if self.recipe.clip is not None:
            gradient_clip_val, gradient_clip_algorithm = self.recipe.clip, "norm"
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def _step(self, batch: Any) -> tuple[Any, Any, Tensor, Tensor | int]:
        x, y = self.split(batch)
        output = self(x)
        if isinstance(y, Tensor):  # of several targets, the loss knows what is what
            output = batches.main(output)
        output, y = self.pair(output, y)
        loss, n = self.score(output, y)
        if loss.numel() != 1:
            raise ValueError(
                f"The loss has the shape {tuple(loss.shape)}, and one number is needed: let it return the "
                "mean, as losses of torch do without reduction='none'."
            )
        return output, y, loss, n

    def _start(self) -> None:
        self._loss = _Mean()
        self._parts = {}
        self._targets = _Range()
        for metric in _metrics(self.metrics).values():
            metric.reset()

    def _evaluate(self, part: str, batch: Any, loader: int | None) -> None:
        output, y, loss, n = self._step(batch)
        if loader is not None:
            self._log_batch(part, loader, output, y, loss, n)
            return
        self._loss.add(loss, n)
        measured = self.measured(output, y)
        if measured is not None:
            self._targets.see(measured[1])
            for metric in _metrics(self.metrics).values():
                metric.update(*measured)
        for name, (mean, count) in self.parts(output, y).items():
            self._parts.setdefault(name, _Mean()).add(mean, count)

    def _log(self, part: str) -> None:
        if self._loss.n is None:  # several loaders, which log by themselves
            return
        self.log(f"{part}_loss", self._loss.value, sync_dist=True)
        counted = bool(self._loss.n > 0)
        self._tell_of_absent_classes(part, counted)
        for name, metric in _metrics(self.metrics).items():
            defined = counted and self._without_class.get(part, {}).get(name, True)
            self.log(f"{part}_{name}", metric.compute() if defined else math.nan)
        means = {name: mean.value for name, mean in self._parts.items()}
        for name, number in {**means, **self.derived(float(self._loss.value))}.items():
            self.log(f"{part}_{name}", number, sync_dist=True)

    def _tell_of_absent_classes(self, part: str, counted: bool) -> None:
        """Warn of metrics such as an AUROC that take 0 for what they cannot know of a class without samples.

        Once for each part, and only where all of it was seen: a first batch may well be of one class.
        """
        limit = getattr(self.trainer, f"limit_{part}_batches")
        if not counted or part in self._without_class or not isinstance(limit, float):
            return
        self._without_class[part] = {}
        for name, metric in _metrics(self.metrics).items():
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                metric.compute()
            if not any(_is_of_absent_class(warning.message) for warning in said):
                continue
            self._without_class[part][name] = defined = not self._targets.is_one
            becomes = "takes 0 or 1 for that class" if defined else "is not defined, and nan here"
            warnings.warn(
                f"{part}_{name} {becomes}: among the targets of the {part} data a class has no sample, or no "
                "other class has one. Divide the data so that each part has all classes, as TensorData does "
                "with labels unless it is told otherwise.",
                stacklevel=2,
            )

    def _log_batch(self, part: str, loader: int, output: Any, y: Any, loss: Tensor, n: Tensor | int) -> None:
        """Lightning adds the number of the loader to names that are logged in a step, and only there."""
        while len(self.metrics_of_loaders) <= loader:
            self.metrics_of_loaders.append(deepcopy(self.metrics))
        self.log(f"{part}_loss", loss, on_step=False, on_epoch=True, batch_size=int(n), sync_dist=True)
        measured = self.measured(output, y)
        for name, metric in _metrics(self.metrics_of_loaders[loader]).items():
            if measured is not None:
                metric.update(*measured)
            where = f"metrics_of_loaders.{loader}.{name}"
            self.log(f"{part}_{name}", metric, on_step=False, on_epoch=True, metric_attribute=where)
        for name, (mean, count) in self.parts(output, y).items():
            self.log(f"{part}_{name}", mean, on_step=False, on_epoch=True, batch_size=int(count))


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


class _Range:
    """Whether all targets of a split are one number."""

    def __init__(self) -> None:
        self._ends: list[Tensor] = []

    def see(self, y: Any) -> None:
        if isinstance(y, Tensor) and y.numel() and not y.is_complex():
            self._ends += y.aminmax()

    @property
    def is_one(self) -> bool:
        return len({end.item() for end in self._ends}) == 1


def _is_of_absent_class(warning: Warning | str) -> bool:
    """Whether torchmetrics says that it misses what a curve needs: positive samples, or negative ones."""
    return str(warning).startswith(("No positive samples", "No negative samples"))


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
        if len(lr) != 2 or not 0 < lr[0] <= lr[1]:
            raise ValueError(
                f"lr={lr!r}: give a number, the lowest and the highest, both above 0, as in lr=(1e-4, 1e-2), "
                "or a function: lr=lambda trial: trial.suggest_categorical('lr', [1e-3, 1e-2])."
            )
        return trial.suggest_float("lr", *lr, log=True)
    return lr
