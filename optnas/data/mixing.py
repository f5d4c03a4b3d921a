"""Batches whose rows are mixed with one another, inputs and targets alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map


def random_mixup(
    x: Any,
    y: Tensor,
    generator: torch.Generator,
    n_classes: int | None = None,
    alpha: float = 0.2,
    ignore_index: int | None = -100,
) -> tuple[Any, Tensor]:
    """Each row of inputs and targets mixed with another row of the batch (Zhang et al., arXiv:1710.09412).

    For `mix` of `TensorData`. Labels `(n, ...)` become shares of the classes, `(n, n_classes, ...)`, which
    `Classification` and `Segmentation` understand; targets of real numbers are mixed as they are.

    Args:
        x: inputs of real numbers, a tensor `(n, ...)` or a tuple or dict of such.
        y: integer labels `(n, ...)`, or real numbers.
        n_classes: number of classes; needed for labels.
        alpha: of the Beta(alpha, alpha) from which the share of the row itself is drawn, for each row anew;
            above 0. The smaller, the more rows stay nearly as they are.
        ignore_index: the label of what does not count: it has no share in any class. None: there is none.

    Raises:
        TypeError: inputs or targets are nothing that can be mixed, such as numbers of tokens.
        ValueError: `n_classes` is missing or a label is not below it, or targets of real numbers hold
            `ignore_index`.

    Examples:
        >>> from functools import partial
        >>> rows = (torch.rand(100, 1, 8, 8), torch.arange(100) % 3)
        >>> mix = partial(optnas.data.random_mixup, n_classes=3)
        >>> parts = optnas.TensorData(rows, batch_size=20, mix=mix)
        >>> x, y = next(iter(parts.train_dataloader()))
        >>> tuple(y.shape), torch.allclose(y.sum(1), torch.ones(20))
        ((20, 3), True)
    """
    shares = _mixable(x, y, n_classes, ignore_index)
    own, other = _partners(len(y), generator, alpha)

    def mixed(part: Tensor) -> Tensor:
        share = own.view(-1, *[1] * (part.ndim - 1)).to(part)
        return share * part + (1 - share) * part[other.to(part.device)]

    return tree_map(mixed, x), mixed(shares)


def random_cutmix(
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
    n_classes: int | None = None,
    alpha: float = 1.0,
    ignore_index: int | None = -100,
) -> tuple[Tensor, Tensor]:
    """A rectangle of each image is one of another image of the batch (Yun et al., arXiv:1905.04899).

    For `mix` of `TensorData`. The rectangle's middle is anywhere in the image, so that part of it may lie
    outside; targets are mixed by the area that is left, as `random_mixup` mixes them.

    Args:
        x: images `(n, channels, height, width)`.
        y: one label or row of real numbers for each image: labels `(n,)`, numbers `(n, ...)`.
        n_classes, ignore_index: as for `random_mixup`.
        alpha: of the Beta(alpha, alpha) from which the share of the image itself is drawn; above 0.

    Raises:
        TypeError, ValueError: as `random_mixup`; and for other inputs than images, or labels of pixels.

    Examples:
        >>> images, labels = torch.rand(4, 1, 8, 8), torch.arange(4)
        >>> x, y = optnas.data.random_cutmix(images, labels, torch.Generator(), n_classes=4)
        >>> tuple(x.shape), tuple(y.shape)
        ((4, 1, 8, 8), (4, 4))
    """
    if not isinstance(x, Tensor) or x.ndim != 4:
        got = tuple(x.shape) if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise TypeError(f"random_cutmix takes images (n, channels, height, width), and got {got}.")
    if isinstance(y, Tensor) and y.ndim > 1 and not y.is_floating_point():
        raise ValueError(
            f"random_cutmix takes one label for each image, and got {tuple(y.shape)}; use random_mixup."
        )
    shares = _mixable(x, y, n_classes, ignore_index)
    height, width = x.shape[2:]
    own, other = _partners(len(y), generator, alpha)
    side = (1 - own).sqrt() / 2
    rows, columns = (
        _stretch(length, torch.rand(len(y), generator=generator), side) for length in (height, width)
    )
    inside = rows[:, :, None] & columns[:, None, :]
    left = 1 - inside.to(torch.float64).mean((1, 2))
    share = left.view(-1, *[1] * (shares.ndim - 1)).to(shares)
    mixed = torch.where(inside[:, None].to(x.device), x[other.to(x.device)], x)
    return mixed, share * shares + (1 - share) * shares[other.to(shares.device)]


def random_box_flip(
    x: Tensor, y: tuple[Tensor, Tensor], generator: torch.Generator
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Mirror each image and its boxes left to right with probability one half; for `mix` of `TensorData`.

    Args:
        x: images `(n, channels, height, width)`.
        y: boxes `(n, k, 4)` as x1, y1, x2, y2 in pixels, and their classes `(n, k)`, as for
            `optnas.tasks.Detection`; those of a class below 0 stay as they are.

    Examples:
        >>> boxes, classes = torch.tensor([[[1.0, 2.0, 4.0, 6.0]]] * 20), torch.zeros(20, 1).long()
        >>> rows = (torch.rand(20, 3, 8, 8), (boxes, classes))
        >>> parts = optnas.TensorData(rows, batch_size=4, mix=optnas.data.random_box_flip)
        >>> x, (boxes, classes) = next(iter(parts.train_dataloader()))
        >>> set(boxes[:, 0, 0].tolist()) <= {1.0, 4.0}
        True
    """
    boxes, classes = y
    flip = torch.rand(len(x), generator=generator).to(x.device) < 0.5
    left, top, right, bottom = boxes.unbind(-1)
    mirrored = torch.stack([x.shape[-1] - right, top, x.shape[-1] - left, bottom], -1)
    moved = flip.to(boxes.device)[:, None] & (classes >= 0)
    images = torch.where(flip.view(-1, 1, 1, 1), x.flip(-1), x)
    return images, (torch.where(moved[..., None], mirrored, boxes), classes)


def _stretch(length: int, middle: Tensor, half: Tensor) -> Tensor:
    """Which of `length` pixels lie around `middle` by up to `half`, both as shares of the length."""
    low = ((middle - half) * length).round().long().unsqueeze(1)
    high = ((middle + half) * length).round().long().unsqueeze(1)
    pixels = torch.arange(length)
    return (pixels >= low) & (pixels < high)


def _partners(n: int, generator: torch.Generator, alpha: float) -> tuple[Tensor, Tensor]:
    """How much of each row is its own, and which row the rest is of."""
    if not alpha > 0:
        raise ValueError(f"alpha={alpha} must be above 0.")
    other = torch.randperm(n, generator=generator)
    seed = int(torch.randint(2**62, (), generator=generator))  # torch's own Beta takes no generator
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, n)), other


def _mixable(x: Any, y: Any, n_classes: int | None, ignore_index: int | None) -> Tensor:
    """Targets that can be mixed; refuses what cannot."""
    if not isinstance(y, Tensor):
        raise TypeError(f"Mixing takes one tensor of targets; they are a {type(y).__name__}.")
    wrong = [part for part in tree_leaves(x) if not isinstance(part, Tensor) or not part.is_floating_point()]
    if wrong:
        kind = wrong[0].dtype if isinstance(wrong[0], Tensor) else f"a {type(wrong[0]).__name__}"
        raise TypeError(f"Mixing takes inputs of real numbers, and got {kind}: such cannot be mixed.")
    if y.is_floating_point():
        if ignore_index is not None and (y == ignore_index).any():
            raise ValueError(
                f"Among the targets, which are real numbers, is {ignore_index}, which does not count and "
                "cannot be mixed; if it is a number like any other, give ignore_index=None."
            )
        return y
    if n_classes is None:
        raise ValueError(
            "n_classes is needed to mix labels: mix=partial(random_mixup, n_classes=10), for example."
        )
    labels = y.long()
    counted = torch.ones_like(y, dtype=torch.bool) if ignore_index is None else labels != ignore_index
    if not ((labels >= 0) & (labels < n_classes))[counted].all():
        seen = labels[counted]
        raise ValueError(
            f"n_classes={n_classes} mixes labels in 0..{n_classes - 1}; they are "
            f"{int(seen.min())}..{int(seen.max())}."
        )
    shares = functional.one_hot(labels.masked_fill(~counted, 0), n_classes) * counted.unsqueeze(-1)
    return shares.movedim(-1, 1).float()
