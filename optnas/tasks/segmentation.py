"""A class for every pixel or voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassJaccardIndex

from optnas.tasks.classification import Classifier, CrossEntropy
from optnas.tasks.task import Task
from optnas.trial import Trial


@dataclass(frozen=True)
class Segmentation(Task):
    """Class scores `(n, n_classes, ...)` of pixels or voxels against integer labels `(n, ...)`.

    The loss is cross-entropy and soft Dice (Milletari et al., arXiv:1606.04797), half each by default. Logs
    the loss, `acc` (of pixels) and, as means over the classes, `iou` (intersection over union) and `dice`
    (twice the intersection over the sum); both are of all pixels of a split together.

    Args:
        n_classes: number of classes, background included.
        dice: the share of soft Dice in the loss, in 0..1.
        ignore_index: label of the positions that neither the loss nor any metric counts.
        class_weights: how much a label of each class counts in the cross-entropy.

    The keyword arguments of `optnas.tasks.Task` are accepted too: `lr`, `recipe`, `metrics`, `call`, ...

    Examples:
        >>> task = optnas.tasks.Segmentation(4, dice=1.0)
        >>> module = task(nn.Conv2d(1, 4, 3, padding=1), trial)
    """

    n_classes: int
    dice: float = 0.5
    ignore_index: int = -100
    class_weights: Sequence[float] | None = None

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        n = self.n_classes
        metrics = {
            "acc": MulticlassAccuracy(n, average="micro"),
            "iou": MulticlassJaccardIndex(n, average="macro"),
            "dice": MulticlassF1Score(n, average="macro"),
        }
        loss = _WithDice(n, 0.0, self.ignore_index, self.class_weights)
        loss.share = self.dice
        return self.supervised(model, trial, loss, metrics, Classifier, classes_last=False)


class _WithDice(CrossEntropy):
    share: float = 0.5

    def of(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Both losses by their shares, and how many labels count."""
        loss, n = super().of(output, y)
        if not self.share:
            return loss, n
        wanted = self.shares(y)
        found = output.softmax(1) * wanted.sum(1, keepdim=True)
        over = [0, *range(2, output.ndim)]
        shared = (found * wanted).sum(over)
        present = wanted.sum(over) > 0
        overlap = 2 * shared / (found.sum(over) + wanted.sum(over)).clamp(min=1e-6)
        dice = 1 - (overlap * present).sum() / present.sum().clamp(min=1)
        return (1 - self.share) * loss + self.share * dice, n
