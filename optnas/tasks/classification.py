"""Labels from scores: of whole samples, of the tokens of a sequence, of the pixels of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from optnas.tasks.supervised import LearningRate, Supervised, learning_rate
from optnas.trial import Trial


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of class scores `(n, n_classes, ...)` against integer labels `(n, ...)`.

    Trained with AdamW and a one-cycle schedule (Smith & Topin, arXiv:1708.07120). Logs `train_loss`,
    `val_loss`, `val_acc`, `test_loss` and `test_acc` (accuracy over labels, in 0..1).

    Args:
        n_classes: number of classes.
        lr: the highest learning rate of the schedule: a number; `(low, high)` to ask the trial for `lr` on a
            logarithmic scale; or a function of the trial.
        weight_decay: of AdamW.
        label_smoothing: share of the label spread over all classes, in 0..1.
        ignore_index: the label of what does not count, neither in the loss nor in the accuracy.
    """

    n_classes: int
    lr: LearningRate = 5e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    ignore_index: int = -100

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        accuracy = MulticlassAccuracy(
            self.n_classes, average="micro", ignore_index=self.ignore_index, validate_args=False
        )
        return _Classifier(
            model,
            loss=_CrossEntropy(self.n_classes, self.label_smoothing, self.ignore_index),
            metrics={"acc": accuracy},
            lr=learning_rate(self.lr, trial),
            weight_decay=self.weight_decay,
        )


class _Classifier(Supervised):
    loss: _CrossEntropy

    def pair(self, output: Any, y: Any) -> tuple[Any, Any]:
        self.loss.check(output, y)
        return output, y.long()  # a narrower type may not hold ignore_index

    def score(self, output: Any, y: Any) -> tuple[Tensor, Tensor | int]:
        return self.loss.of(output, y)


class _CrossEntropy(nn.Module):
    """The mean over the labels that count, 0 where none does; what does not fit is said in words."""

    def __init__(self, n_classes: int, label_smoothing: float, ignore_index: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        self.check(output, y)
        return self.of(output, y.long())[0]

    def of(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and how many labels count."""
        ignored, smoothing = self.ignore_index, self.label_smoothing
        try:
            total = functional.cross_entropy(
                output, y, ignore_index=ignored, reduction="sum", label_smoothing=smoothing
            )
        except IndexError as error:
            labels = y[y != ignored]
            raise ValueError(self._misfit(output, f"{int(labels.min())}..{int(labels.max())}")) from error
        n = (y != ignored).sum()
        return total / n.clamp(min=1), n

    def check(self, output: Any, y: Any) -> None:
        """Raises ValueError where scores and labels do not belong together."""
        if not isinstance(y, Tensor):
            raise ValueError(self._misfit(output, f"a {type(y).__name__}"))
        fits = isinstance(output, Tensor) and output.ndim > 1 and output.shape[1] == self.n_classes
        if not fits or y.is_floating_point() or y.shape != (len(output), *output.shape[2:]):
            raise ValueError(self._misfit(output, f"{tuple(y.shape)} of {y.dtype}"))

    def _misfit(self, output: Any, labels: str) -> str:
        n, ignored = self.n_classes, self.ignore_index
        returned = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        return (
            f"Classification(n_classes={n}) takes scores (n, {n}, ...) and integer labels (n, ...) in "
            f"0..{n - 1}, or {ignored} where they do not count; the model returned {returned}, and the "
            f"labels are {labels}."
        )
