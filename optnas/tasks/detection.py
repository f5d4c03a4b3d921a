"""Boxes in images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from optnas.tasks.average_precision import MeanAveragePrecision
from optnas.tasks.boxes import decode, encode, intersection_over_union, unlike
from optnas.tasks.supervised import Supervised
from optnas.tasks.task import Task
from optnas.trial import Trial

CANDIDATES = 1000
"""So many boxes of an image are looked at before those that say the same are left out."""


@dataclass(frozen=True)
class Detection(Task):
    """Boxes in images, found by a one-stage detector with anchors such as `optnas.hub.retinanet`.

    The model returns class scores `(n, anchors, n_classes)`, logits of a sigmoid each; offsets
    `(n, anchors, 4)` of boxes from anchors, of the middle in widths and heights and of these in logarithms;
    and the anchors `(anchors, 4)`. A batch is `(images, (boxes, classes))`: boxes `(n, k, 4)` as x1, y1, x2,
    y2 in pixels and their classes `(n, k)` from 0, with -1 where an image has fewer than k. Or the targets
    are a list with a dict for each image, of its `boxes` and `labels`.

    The loss is focal loss and smooth L1 (Lin et al., arXiv:1708.02002), per anchor that stands for a box; the
    mean over images. An anchor stands for the box that it overlaps most, if their intersection is `matched`
    of their union or more, and for a box that no other anchor overlaps more; for background below
    `background`; it does not count between. Logs the loss, `map` (COCO's mean average precision) and
    `map_50` (where an overlap of one half is enough). Further metrics are given what was found and what is
    there as torchmetrics' metrics of detection are.

    Args:
        matched, background: see above, in 0..1.
        focus: how little counts what is right already, the gamma of focal loss; at least 0.
        balance: the weight of what is there, and 1 minus it of what is not; its alpha, in 0..1.
        min_score: probability from which on a box is found.
        max_overlap: of two boxes of one class that overlap more, the less probable one is left out.
        max_boxes: the most boxes in an image.

    The keyword arguments of `optnas.tasks.Task` are accepted too: `lr`, `recipe`, `metrics`, `call`, ...

    Examples:
        >>> from optnas.hub import retinanet
        >>> model = retinanet.network(replay(retinanet.params_of((1, 1, 1, 1), width=64)), classes=2)
        >>> module = optnas.tasks.Detection(lr=1e-3)(model, trial)
    """

    matched: float = 0.5
    background: float = 0.4
    focus: float = 2.0
    balance: float = 0.25
    min_score: float = 0.05
    max_overlap: float = 0.5
    max_boxes: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.background <= self.matched <= 1:
            raise ValueError(
                f"background={self.background} and matched={self.matched}: 0 < background <= matched <= 1."
            )
        for name in ("balance", "min_score", "max_overlap"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name}={value} must lie in 0..1.")
        if self.focus < 0 or self.max_boxes < 1:
            raise ValueError(f"focus={self.focus} must be at least 0, max_boxes={self.max_boxes} at least 1.")

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        loss = partial(
            detection_loss,
            matched=self.matched,
            background=self.background,
            focus=self.focus,
            balance=self.balance,
        )
        metrics = {"map": MeanAveragePrecision(), "map_50": MeanAveragePrecision([0.5])}
        return self.supervised(model, trial, loss, metrics, _Detector, task=self)


class _Detector(Supervised):
    def __init__(self, *args: Any, task: Detection, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.task = task

    def split(self, batch: Any) -> tuple[Any, Any]:
        x, y = super().split(batch)
        if isinstance(y, list) and all(isinstance(image, Mapping) for image in y):
            y = _padded(y)
        if not isinstance(y, tuple | list) or len(y) != 2:
            raise ValueError(f"Detection takes targets (boxes, classes); they are a {type(y).__name__}.")
        return x, (*y, x.shape[-2:] if isinstance(x, Tensor) else None)

    def pair(self, output: Any, y: Any) -> tuple[Any, Any]:
        _check_output(output)
        boxes, classes, size = y
        _check_targets(output[0], boxes, classes)
        return output, (boxes.to(output[1].dtype), classes.long(), size)

    def score(self, output: Any, y: Any) -> tuple[Tensor, Tensor | int]:
        boxes, classes, _ = y
        return self.loss(output, (boxes, classes)), len(boxes)

    def measured(self, output: Any, y: Any) -> tuple[Any, Any] | None:
        boxes, classes, size = y
        counted = classes >= 0
        wanted = [{"boxes": b[c], "labels": k[c]} for b, k, c in zip(boxes, classes, counted, strict=True)]
        return self._found(output, size), wanted

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        x = batch[0] if isinstance(batch, tuple | list) else batch
        output = self(x)
        _check_output(output)
        return self._found(output, x.shape[-2:] if isinstance(x, Tensor) else None)

    def _found(self, output: Any, size: Any) -> list[dict[str, Tensor]]:
        task = self.task
        return detect(
            output,
            size,
            min_score=task.min_score,
            max_overlap=task.max_overlap,
            max_boxes=task.max_boxes,
        )


def detection_loss(
    output: tuple[Tensor, Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    *,
    matched: float = 0.5,
    background: float = 0.4,
    focus: float = 2.0,
    balance: float = 0.25,
) -> Tensor:
    """Focal loss of the scores plus smooth L1 of the offsets; what is given is as `Detection` says."""
    scores, offsets, anchors = output
    losses = []
    for i, (boxes, classes) in enumerate(zip(*targets, strict=True)):
        most, which, stands = _stands_for(anchors, boxes, classes, matched)
        wanted = functional.one_hot(classes[which].clamp(min=0), scores.shape[2]) * stands[:, None]
        sign, weight = torch.where(wanted > 0, 1.0, -1.0), torch.where(wanted > 0, balance, 1 - balance)
        chance = functional.logsigmoid(sign * scores[i])  # of the right answer, its logarithm
        focal = -weight * (1 - chance.exp()) ** focus * chance
        classified = focal.masked_fill(~(stands | (most < background))[:, None], 0.0).sum()
        goal = torch.where(stands[:, None], boxes[which], anchors)  # no box of size zero is encoded
        located = functional.smooth_l1_loss(offsets[i], encode(goal, anchors), reduction="none", beta=1 / 9)
        placed = located.masked_fill(~stands[:, None], 0.0).sum()
        losses.append((classified + placed) / stands.sum().clamp(min=1))
    return torch.stack(losses).mean()


def _stands_for(
    anchors: Tensor, boxes: Tensor, classes: Tensor, matched: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each anchor: how far it overlaps a box at most, for which box it stands, and whether it does."""
    overlap = intersection_over_union(anchors, boxes).masked_fill(classes < 0, -1.0)
    most, which = overlap.max(1)
    highest = overlap.amax(0)
    best = (overlap == highest) & (highest > 0)  # the anchors that are nearest to a box, however far
    only = best.any(1)
    which = torch.where(only, overlap.masked_fill(~best, -1.0).argmax(1), which)
    return most, which, (most >= matched) | only


@torch.no_grad()
def detect(
    output: tuple[Tensor, Tensor, Tensor],
    size: Sequence[int] | None = None,
    *,
    min_score: float = 0.05,
    max_overlap: float = 0.5,
    max_boxes: int = 100,
) -> list[dict[str, Tensor]]:
    """The boxes in each image, by what a detector returned: see `Detection` for that and for the arguments.

    Args:
        output: scores, offsets and anchors.
        size: height and width of the images, which no box leaves; None: not known.

    Returns:
        For each image `boxes` `(k, 4)` as x1, y1, x2, y2, `labels` `(k,)` and `scores` `(k,)`, the
        probabilities, which fall.

    Examples:
        >>> from optnas.hub import retinanet
        >>> model = retinanet.network(replay(retinanet.params_of((1, 1, 1, 1), width=64)), classes=2)
        >>> images = torch.rand(2, 3, 64, 64)
        >>> found = optnas.tasks.detect(model(images), images.shape[-2:], min_score=0.0, max_boxes=5)
        >>> [tuple(image["boxes"].shape) for image in found]
        [(5, 4), (5, 4)]
    """
    scores, offsets, anchors = output
    found = []
    for score, offset in zip(scores.float().sigmoid(), offsets.float(), strict=True):
        likely, where = score.flatten().sort(descending=True, stable=True)
        n = min(CANDIDATES, int((likely >= min_score).sum()))
        likely, where = likely[:n], where[:n]
        place, classes = where // score.shape[1], where % score.shape[1]
        boxes = decode(offset[place], anchors[place].float())
        if size is not None:
            height, width = size
            low, high = boxes.new_zeros(4), boxes.new_tensor([width, height, width, height])
            boxes = boxes.clamp(low, high)
            inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
            boxes, classes, likely = boxes[inside], classes[inside], likely[inside]
        kept = unlike(boxes, classes, max_overlap, max_boxes)
        found.append({"boxes": boxes[kept], "labels": classes[kept], "scores": likely[kept]})
    return found


def _padded(images: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """Boxes and classes of a list of dicts, as many rows for each image."""
    most = max(1, *(len(image["labels"]) for image in images))
    first = images[0]
    boxes = first["boxes"].new_zeros((len(images), most, 4))
    classes = first["labels"].new_full((len(images), most), -1)
    for i, image in enumerate(images):
        n = len(image["labels"])
        boxes[i, :n], classes[i, :n] = image["boxes"].reshape(-1, 4), image["labels"]
    return boxes, classes


def _check_output(output: Any) -> None:
    fits = isinstance(output, tuple | list) and len(output) == 3
    if fits and all(isinstance(part, Tensor) for part in output):
        scores, offsets, anchors = (tuple(part.shape) for part in output)
        if len(scores) == 3 and offsets == (*scores[:2], 4) and anchors == (scores[1], 4):
            return
        got = f"{scores}, {offsets}, {anchors}"
    else:
        got = f"a {type(output).__name__}"
    raise ValueError(
        "Detection takes of a model class scores (n, anchors, n_classes), offsets (n, anchors, 4) and "
        f"anchors (anchors, 4), as those of optnas.hub.retinanet; the model returned {got}."
    )


def _check_targets(scores: Tensor, boxes: Any, classes: Any) -> None:
    said = "Detection takes boxes (n, k, 4) and integer classes (n, k), k of at least 1"
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part) for part in (boxes, classes)]
    n = len(scores)
    fits = isinstance(classes, Tensor) and classes.ndim == 2 and len(classes) == n and classes.shape[1] > 0
    if not fits or not isinstance(boxes, Tensor) or boxes.shape != (*classes.shape, 4):
        raise ValueError(f"{said}; of {n} images they are {shapes[0]} and {shapes[1]}.")
    if classes.is_floating_point():
        raise ValueError(f"{said}; the classes are {classes.dtype}.")
    counted = boxes[classes >= 0]
    if classes.max() >= scores.shape[2]:
        raise ValueError(
            f"The model tells {scores.shape[2]} classes apart, 0..{scores.shape[2] - 1}, and a box is of "
            f"class {int(classes.max())}."
        )
    if len(counted) == 0:
        return
    if not (counted[:, 2:] > counted[:, :2]).all():
        wrong = counted[~(counted[:, 2:] > counted[:, :2]).all(1)][0].tolist()
        raise ValueError(f"Boxes are x1, y1, x2, y2 with x1 < x2 and y1 < y2; one is {wrong}.")
    if counted.max() <= 1:
        raise ValueError("Boxes are in pixels of the image; all of a batch lie within 0..1.")
