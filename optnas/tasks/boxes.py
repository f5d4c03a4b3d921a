"""Boxes as x1, y1, x2, y2: how they overlap, how they are said as offsets, which of many say the same."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def intersection_over_union(first: Tensor, second: Tensor) -> Tensor:
    """Of each of the first boxes `(n, 4)` with each of the second ones `(m, 4)`: `(n, m)` in 0..1."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    common = (high - low).clamp(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return common / (areas[0][:, None] + areas[1][None] - common)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Offsets of boxes from anchors: of the middle in widths and heights, and of these in logarithms."""
    size, side = boxes[..., 2:] - boxes[..., :2], anchors[..., 2:] - anchors[..., :2]
    middle, place = (boxes[..., :2] + boxes[..., 2:]) / 2, (anchors[..., :2] + anchors[..., 2:]) / 2
    return torch.cat([(middle - place) / side, (size / side).log()], -1)


def decode(offsets: Tensor, anchors: Tensor) -> Tensor:
    """The boxes that `encode` made offsets of; none is more than 62.5 times as large as its anchor."""
    side, place = anchors[..., 2:] - anchors[..., :2], (anchors[..., :2] + anchors[..., 2:]) / 2
    middle = place + offsets[..., :2] * side
    half = offsets[..., 2:].clamp(max=math.log(1000 / 16)).exp() * side / 2
    return torch.cat([middle - half, middle + half], -1)


def unlike(boxes: Tensor, classes: Tensor, max_overlap: float, most: int) -> Tensor:
    """Which boxes `(n, 4)`, the best first, are kept: those that no better one of their class overlaps.

    Non-maximum suppression: of two boxes of one class whose intersection is more than `max_overlap` of their
    union, the later one goes, unless the earlier one is gone. At most `most` indices, in order.
    """
    same = classes[:, None] == classes[None]
    near = ((intersection_over_union(boxes, boxes) > max_overlap) & same).cpu().numpy()
    kept: list[int] = []
    for i in range(len(boxes)):
        if len(kept) == most:
            break
        if not near[i, kept].any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long, device=boxes.device)
