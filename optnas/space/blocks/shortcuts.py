"""Shortcuts around a body."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from optnas.space.blocks.parts import Inferred, sequential
from optnas.trial import Space, Trial


def residual(trial: Trial, body: Space[nn.Module]) -> Residual:
    """`body(x) + shortcut(x)`, where the shortcut projects if the body changes the shape. See `Residual`.

    Examples:
        >>> body = blocks.residual(trial, lambda trial: blocks.conv(trial, width=8, kernel=(3, 5)))
        >>> body(torch.zeros(2, 3, 9, 9)).shape
        torch.Size([2, 8, 9, 9])
    """
    return Residual(body(trial))


class Residual(Inferred):
    """`body(x) + shortcut(x)`, with a shortcut that is decided at the first forward pass.

    It is the identity where the body keeps the shape. Otherwise it is a linear projection: for (n, channels,
    *sizes) a 1x1 convolution, strided where the sizes shrink by a stride, after average pooling where they
    change otherwise; for (n, features) a linear layer. As in He et al., Identity Mappings in Deep Residual
    Networks, 2016 (arXiv:1603.05027), the projection is not normalized; `bias` gives it one.

    Examples:
        >>> blocks.Residual(nn.Conv2d(3, 8, 3, stride=2, padding=1))(torch.zeros(2, 3, 9, 9)).shape
        torch.Size([2, 8, 5, 5])
    """

    def __init__(self, body: nn.Module, *, bias: bool = False) -> None:
        super().__init__()
        self.body = body
        self.bias = bias

    def make(self, *inputs: Tensor) -> None:
        x, y = inputs
        self.shortcut = _projection(x.shape, y.shape, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        self.infer(x, y)
        shortcut: Tensor = self.shortcut(x)
        return y + shortcut


_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _projection(before: torch.Size, after: torch.Size, bias: bool) -> nn.Module:
    if before[1:] == after[1:]:
        return nn.Identity()
    if len(before) != len(after) or not 2 <= len(before) <= 5:
        raise ValueError(
            f"A residual cannot add an input of shape {tuple(before)} to its body's output of shape "
            f"{tuple(after)}; the body must keep the number of dimensions (2 to 5, batch included)."
        )
    if len(before) == 2:
        return nn.Linear(before[1], after[1], bias=bias)
    sizes = list(zip(before[2:], after[2:], strict=True))
    strides: Any = [math.ceil(n / m) for n, m in sizes]
    strided = all(math.ceil(n / stride) == m for (n, m), stride in zip(sizes, strides, strict=True))
    dims = len(before) - 2
    target: Any = tuple(after[2:])
    return sequential(
        pool=None if strided else _POOLS[dims - 1](target),
        conv=_CONVS[dims - 1](before[1], after[1], 1, strides if strided else 1, bias=bias),
    )
