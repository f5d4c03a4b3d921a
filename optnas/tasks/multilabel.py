"""Yes or no, for one label or several at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import BinaryAccuracy

from optnas.tasks.supervised import Supervised
from optnas.tasks.task import Task
from optnas.trial import Trial


@dataclass(frozen=True)
class MultiLabel(Task):
    """Binary cross-entropy of scores `(n, n_labels)` against targets of 0 and 1 of the same shape.

    With one label, scores and targets may be `(n,)`: binary classification. Logs the loss and `acc`, the
    share of labels that are right at a probability of one half. Metrics get probabilities: of one label
    `(n,)`, of those that count; of several `(n, n_labels)`, with targets -100 where they do not count
    (`MultilabelF1Score(..., ignore_index=-100)`).

    Args:
        n_labels: labels of a sample.
        positive_weights: how much a 1 of each label counts in the loss, where it is rare.
        ignore_index: the target of what does not count.

    The keyword arguments of `optnas.tasks.Task` are accepted too: `lr`, `recipe`, `metrics`, `call`, ...

    Examples:
        >>> task = optnas.tasks.MultiLabel(14, positive_weights=[5.0] * 14)
        >>> module = task(nn.Linear(8, 14), trial)
    """

    n_labels: int = 1
    positive_weights: Sequence[float] | None = None
    ignore_index: int = -100

    def __post_init__(self) -> None:
        weights = self.positive_weights
        if weights is not None and (len(weights) != self.n_labels or min(weights) < 0):
            raise ValueError(f"positive_weights={weights!r}: give {self.n_labels} numbers of at least 0.")

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        accuracy = BinaryAccuracy(ignore_index=self.ignore_index, validate_args=False)
        loss = _BinaryCrossEntropy(self.n_labels, self.positive_weights, self.ignore_index)
        return self.supervised(model, trial, loss, {"acc": accuracy}, _Labeler)


class _Labeler(Supervised):
    loss: _BinaryCrossEntropy

    def pair(self, output: Any, y: Any) -> tuple[Any, Any]:
        n_labels = self.loss.n_labels
        if n_labels == 1:
            pair = (output, y)
            output, y = (t[:, 0] if isinstance(t, Tensor) and t.shape[1:] == (1,) else t for t in pair)
        shape = (len(y),) if n_labels == 1 else (len(y), n_labels)
        for what, part in (("model returned", output), ("targets are", y)):
            if not isinstance(part, Tensor) or part.shape != shape:
                got = tuple(part.shape) if isinstance(part, Tensor) else f"a {type(part).__name__}"
                raise ValueError(f"MultiLabel(n_labels={n_labels}) takes {shape}; the {what} {got}.")
        labels = y[y != self.loss.ignore_index]
        if ((labels < 0) | (labels > 1)).any():
            raise ValueError(
                f"MultiLabel takes targets of 0 and 1, or {self.loss.ignore_index} where they do not count; "
                f"these are {labels.min().item():g}..{labels.max().item():g}."
            )
        return output, y

    def measured(self, output: Any, y: Any) -> tuple[Any, Any] | None:
        counted = y != self.loss.ignore_index
        if not counted.any():
            return None
        probabilities, y = output.sigmoid(), y.round().long()
        return (probabilities, y) if y.ndim == 2 else (probabilities[counted], y[counted])

    def score(self, output: Any, y: Any) -> tuple[Tensor, Tensor | int]:
        return self.loss.of(output, y)


class _BinaryCrossEntropy(nn.Module):
    """The mean over the labels that count, 0 where none does."""

    weights: Tensor | None

    def __init__(self, n_labels: int, weights: Sequence[float] | None, ignore_index: int) -> None:
        super().__init__()
        self.n_labels = n_labels
        self.ignore_index = ignore_index
        given = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("weights", given, persistent=False)

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        return self.of(output, y)[0]

    def of(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and how many labels count."""
        counted = y != self.ignore_index
        target = torch.where(counted, y, 0).to(output.dtype)
        each = functional.binary_cross_entropy_with_logits(
            output, target, pos_weight=self.weights, reduction="none"
        )
        n = counted.sum()
        return torch.where(counted, each, 0).sum() / n.clamp(min=1), n
