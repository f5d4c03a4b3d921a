"""Mean average precision of boxes as COCO defines it, in NumPy.

(torchmetrics has it too, for those who have torchvision and pycocotools beside it.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from optnas.tasks.boxes import intersection_over_union

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""Of the overlap, from 0.5 to 0.95."""
RECALLS = np.linspace(0, 1, 101)
PER_IMAGE = 100
"""So many boxes of a class are counted in one image, the best."""


class MeanAveragePrecision(Metric):
    """COCO's mean average precision of boxes in images, in 0..1 (Lin et al., 2014, arXiv:1405.0312).

    A found box is right if it overlaps a box of its class that no better one has taken. The precision at 101
    recalls is averaged, then over thresholds of the overlap and over the classes that have boxes; NaN where
    none has. It takes what torchmetrics' metrics of detection take: a dict for each image, with `boxes`
    `(k, 4)` as x1, y1, x2, y2 and `labels` `(k,)`, and of what was found `scores` `(k,)` too. All images of
    an epoch have to be seen by one process.

    Args:
        thresholds: intersection over union from which on a box is right, in 0..1.

    Raises:
        ValueError: a threshold is not in 0..1, or there is none.

    Examples:
        >>> box = torch.tensor([[10.0, 10.0, 50.0, 50.0]])
        >>> found = {"boxes": box + 4, "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}
        >>> metric = optnas.tasks.MeanAveragePrecision(thresholds=[0.5, 0.75])
        >>> metric.update([found], [{"boxes": box, "labels": torch.tensor([1])}])
        >>> float(metric.compute())  # they overlap by 0.68
        0.5
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    found: list[Tensor]
    wanted: list[Tensor]

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS) -> None:
        super().__init__()
        if not thresholds or not all(0 < threshold <= 1 for threshold in thresholds):
            raise ValueError(f"thresholds={thresholds!r}: give at least one number above 0 and up to 1.")
        self.thresholds = tuple(thresholds)
        self.add_state("found", default=[], dist_reduce_fx=None)
        self.add_state("wanted", default=[], dist_reduce_fx=None)

    def update(self, found: Sequence[Mapping[str, Tensor]], wanted: Sequence[Mapping[str, Tensor]]) -> None:
        """Add images: what was found in each, and what is there."""
        for image in found:
            columns = [image["boxes"], image["labels"][:, None], image["scores"][:, None]]
            self.found.append(torch.cat([column.detach().double() for column in columns], 1))
        for image in wanted:
            columns = [image["boxes"], image["labels"][:, None]]
            self.wanted.append(torch.cat([column.detach().double() for column in columns], 1))

    def compute(self) -> Tensor:
        """The mean over classes and thresholds."""
        images = [(f.cpu(), w.cpu()) for f, w in zip(self.found, self.wanted, strict=True)]
        classes = sorted({label for _, wanted in images for label in wanted[:, 4].tolist()})
        precisions = [self._of_class(images, label) for label in classes]
        return torch.tensor(float(np.mean(precisions)) if precisions else float("nan"))

    def _of_class(self, images: list[tuple[Tensor, Tensor]], label: float) -> float:
        scores, hits, n_wanted = [], [], 0
        # What is exactly at a threshold is right, up to rounding, as in COCO's own code.
        thresholds = np.minimum(self.thresholds, 1 - 1e-10)
        for found, wanted in images:
            of_class = found[found[:, 4] == label]
            best = of_class[(-of_class[:, 5]).argsort(stable=True)][:PER_IMAGE]
            true = wanted[wanted[:, 4] == label]
            scores.append(best[:, 5].numpy())
            hits.append(_hits(intersection_over_union(best[:, :4], true[:, :4]).numpy(), thresholds))
            n_wanted += len(true)
        order = np.argsort(-np.concatenate(scores), kind="stable")
        return float(np.mean([_average(hit[order], n_wanted) for hit in np.concatenate(hits, 1)]))


def _hits(overlaps: np.ndarray[Any, Any], thresholds: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which of the found boxes, the best first, are right, `(thresholds, found)`; each takes a box away."""
    n_found, n_wanted = overlaps.shape
    hits = np.zeros((len(thresholds), n_found), bool)
    free = np.ones((len(thresholds), n_wanted), bool)
    rows = np.arange(len(thresholds))
    for i in range(n_found if n_wanted else 0):
        near = np.where(free & (overlaps[i] >= thresholds[:, None]), overlaps[i], -1.0)
        which = n_wanted - 1 - near[:, ::-1].argmax(1)  # of equal ones the last, as in COCO's own code
        hits[:, i] = near[rows, which] >= 0
        free[rows, which] &= ~hits[:, i]
    return hits


def _average(hits: np.ndarray[Any, Any], n_wanted: int) -> float:
    """The mean precision at all recalls; the precision at one is the best at that recall or a higher one."""
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(right / n_wanted, RECALLS, side="left")
    return float(np.append(envelope, 0.0)[first].mean())
