"""A tag for every token of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytorch_lightning import LightningModule
from torch import nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from optnas.tasks.classification import Classifier, CrossEntropy
from optnas.tasks.task import Task
from optnas.trial import Trial


@dataclass(frozen=True)
class Tagging(Task):
    """Cross-entropy of scores `(n, length, n_tags)` against integer tags `(n, length)`.

    Logs the loss, `acc` and `f1`, the mean over the tags of the F1 of each, over all tokens that count.

    Args:
        n_tags: number of tags.
        ignore_index: the tag of tokens that do not count (padding, later pieces of a word), neither in the
            loss nor in any metric.
        class_weights: how much a token of each tag counts in the loss.

    The keyword arguments of `optnas.tasks.Task` are accepted too: `lr`, `recipe`, `metrics`, `call`, ...

    Examples:
        >>> task = optnas.tasks.Tagging(9)
        >>> module = task(nn.Linear(8, 9), trial)
    """

    n_tags: int
    ignore_index: int = -100
    class_weights: Sequence[float] | None = None

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        metrics = {
            "acc": MulticlassAccuracy(self.n_tags, average="micro"),
            "f1": MulticlassF1Score(self.n_tags, average="macro"),
        }
        loss = CrossEntropy(self.n_tags, 0.0, self.ignore_index, self.class_weights)
        return self.supervised(model, trial, loss, metrics, Classifier, classes_last=True)
