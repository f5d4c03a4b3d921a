"""Labels from scores: of whole samples, of the tokens of a sequence, of the pixels of an image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from optnas.tasks.supervised import Supervised
from optnas.tasks.task import Task
from optnas.trial import Trial


@dataclass(frozen=True)
class Classification(Task):
    """Cross-entropy of class scores `(n, n_classes, ...)` against integer labels `(n, ...)`.

    Targets may be shares of the classes too, real numbers `(n, n_classes, ...)` that sum to 1, as
    `optnas.data.random_mixup` makes them; or to less, and count so much less. Metrics then take the class of
    the largest share.

    Logs `train_loss`, `val_loss`, `val_acc`, `test_loss` and `test_acc` (accuracy over labels, in 0..1).

    Args:
        n_classes: number of classes.
        label_smoothing: share of the label spread over all classes, in 0..1.
        ignore_index: label of the positions that neither the loss nor any metric counts.
        class_weights: how much a label of each class counts in the loss, for data with rare classes.
        classes_last: the model's scores come as `(n, ..., n_classes)`, as those of transformers do.

    The keyword arguments of `optnas.tasks.Task` are accepted too: `lr`, `recipe`, `metrics`, `call`, ...

    Examples:
        >>> task = optnas.Classification(10, label_smoothing=0.1, lr=(1e-4, 1e-2))
        >>> module = task(nn.Linear(64, 10), trial)  # asks the trial for the learning rate
        >>> list(trial.params)
        ['lr']
    """

    n_classes: int
    label_smoothing: float = 0.0
    ignore_index: int = -100
    class_weights: Sequence[float] | None = None
    classes_last: bool = False

    def __post_init__(self) -> None:
        weights = self.class_weights
        if weights is not None and (len(weights) != self.n_classes or min(weights) < 0):
            raise ValueError(f"class_weights={weights!r}: give {self.n_classes} numbers of at least 0.")

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        accuracy = MulticlassAccuracy(
            self.n_classes, average="micro", ignore_index=self.ignore_index, validate_args=False
        )
        loss = CrossEntropy(self.n_classes, self.label_smoothing, self.ignore_index, self.class_weights)
        return self.supervised(
            model, trial, loss, {"acc": accuracy}, Classifier, classes_last=self.classes_last
        )


class Classifier(Supervised):
    """Scores of classes against labels, some of which may not count."""

    loss: CrossEntropy

    def __init__(self, *args: Any, classes_last: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.classes_last = classes_last
        self._is_checked = False

    def pair(self, output: Any, y: Any) -> tuple[Any, Any]:
        if self.classes_last and isinstance(output, Tensor) and output.ndim > 2:
            output = output.movedim(-1, 1)
        self.loss.check(output, y)
        if not self._is_checked:
            self._is_checked = True
            _check_scores(output)
        return output, y if y.is_floating_point() else y.long()  # a narrower type may not hold ignore_index

    def measured(self, output: Any, y: Any) -> tuple[Any, Any] | None:
        """One row for each label that counts: not every metric can leave some out."""
        labels = self.loss.labels(y)
        counted = labels != self.loss.ignore_index
        return (output.movedim(1, -1)[counted], labels[counted]) if counted.any() else None

    def score(self, output: Any, y: Any) -> tuple[Tensor, Tensor | int]:
        return self.loss.of(output, y)


def _check_scores(output: Tensor) -> None:
    """Warn of what a softmax returned: a second one leaves hardly any difference between the classes."""
    if output.shape[1] > 1 and (output >= 0).all() and ((output.sum(1) - 1).abs() < 1e-3).all():
        warnings.warn(
            "The model returns probabilities, which sum to 1, and Classification takes scores: it applies a "
            "softmax of its own, so that the network would learn slowly and not well. Leave out the softmax "
            "at the end of the model.",
            stacklevel=2,
        )


class CrossEntropy(nn.Module):
    """The mean over the labels that count, 0 where none does; what does not fit is said in words."""

    weights: Tensor | None

    def __init__(
        self,
        n_classes: int,
        label_smoothing: float,
        ignore_index: int,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        self.check(output, y)
        return self.of(output, y if y.is_floating_point() else y.long())[0]

    def of(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and how many labels count, or what they weigh."""
        if y.is_floating_point():
            return self._of_shares(output, self.shares(y))
        ignored, smoothing = self.ignore_index, self.label_smoothing
        weights = None if self.weights is None else self.weights.to(output.dtype)
        try:
            total = functional.cross_entropy(
                output, y, weights, ignore_index=ignored, reduction="sum", label_smoothing=smoothing
            )
        except IndexError as error:
            labels = y[y != ignored]
            raise ValueError(self._misfit(output, f"{int(labels.min())}..{int(labels.max())}")) from error
        counted = y != ignored
        n = counted.sum() if weights is None else weights[y[counted]].sum()
        return total / torch.where(n > 0, n, 1), n

    def _of_shares(self, output: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """As for labels: of shares that are 1 for one class the loss is the same."""
        logs = output.log_softmax(1)
        counted = shares.sum(1, keepdim=True)
        smooth = (1 - self.label_smoothing) * shares + self.label_smoothing / self.n_classes * counted
        if self.weights is not None:
            weights = self.weights.to(output.dtype).view(-1, *[1] * (output.ndim - 2))
            smooth, shares = smooth * weights, shares * weights
        n = shares.sum()
        return -(smooth * logs).sum() / torch.where(n > 0, n, 1), n

    def shares(self, y: Tensor) -> Tensor:
        """The share of each class in each label, `(n, n_classes, ...)`; none of what does not count."""
        ignored = self.ignore_index
        if not y.is_floating_point():
            counted = y != ignored
            labels = functional.one_hot(torch.where(counted, y, 0), self.n_classes)
            return (labels * counted.unsqueeze(-1)).movedim(-1, 1)
        if not 0 <= ignored < self.n_classes:
            return y
        others = torch.arange(self.n_classes, device=y.device) != ignored
        return y * others.view(-1, *[1] * (y.ndim - 2))

    def labels(self, y: Tensor) -> Tensor:
        """Labels as they are, and of shares the class of the largest; `ignore_index` where none counts."""
        if not y.is_floating_point():
            return y
        shares = self.shares(y)
        return torch.where(shares.sum(1) > 0, shares.argmax(1), self.ignore_index)

    def check(self, output: Any, y: Any) -> None:
        """Raises ValueError where scores and labels do not belong together."""
        if not isinstance(y, Tensor):
            raise ValueError(self._misfit(output, f"a {type(y).__name__}"))
        fits = isinstance(output, Tensor) and output.ndim > 1 and output.shape[1] == self.n_classes
        if fits and y.is_floating_point() and y.shape == output.shape:
            if not ((y >= 0).all() and (y.sum(1) < 1 + 1e-3).all()):
                raise ValueError(self._misfit(output, f"shares of {y.min():.3g}..{y.max():.3g}"))
        elif not fits or y.is_floating_point() or y.shape != (len(output), *output.shape[2:]):
            raise ValueError(self._misfit(output, f"{tuple(y.shape)} of {y.dtype}"))

    def _misfit(self, output: Any, labels: str) -> str:
        n, ignored = self.n_classes, self.ignore_index
        returned = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        return (
            f"Classification(n_classes={n}) takes scores (n, {n}, ...) and integer labels (n, ...) in "
            f"0..{n - 1}, or {ignored} where they do not count, or shares of the classes (n, {n}, ...) of at "
            f"least 0 that sum to at most 1; the model returned {returned}, and the labels are {labels}."
        )
