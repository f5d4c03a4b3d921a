"""Normalization as a decision: `conv(trial, norm=NORMS)`, `encoder_block(trial, norm=SEQUENCE_NORMS)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor, nn

from optnas.space.blocks.parts import Inferred

Norm: TypeAlias = Callable[[int], nn.Module | None]
"""A normalization of `(n, channels, *sizes)`, made for a number of dimensions 1 to 3; None: none.

Examples:
    >>> blocks.conv(trial, width=8, kernel=3, norm=lambda dims: blocks.GroupNorm(4))[1]
    GroupNorm()
"""
SequenceNorm: TypeAlias = Callable[[int], nn.Module]
"""A normalization of the last dimension, made for its width, as `nn.LayerNorm` is.

Examples:
    >>> blocks.encoder_block(trial, norm=nn.RMSNorm)(torch.zeros(2, 10, 32)).shape
    torch.Size([2, 10, 32])
"""


def batch_norm(dims: int) -> nn.Module:
    """Over the batch and all positions, per channel (Ioffe & Szegedy, arXiv:1502.03167)."""
    return (nn.LazyBatchNorm1d, nn.LazyBatchNorm2d, nn.LazyBatchNorm3d)[dims - 1]()


def instance_norm(dims: int) -> nn.Module:
    """Over all positions of a sample, per channel, then scaled (Ulyanov et al., arXiv:1607.08022)."""
    return (nn.LazyInstanceNorm1d, nn.LazyInstanceNorm2d, nn.LazyInstanceNorm3d)[dims - 1](affine=True)


def group_norm(dims: int) -> nn.Module:
    """Over all positions of a sample, per group of channels; see `GroupNorm`."""
    return GroupNorm()


def channel_norm(dims: int) -> nn.Module:
    """Over the channels, at each position; see `ChannelNorm`."""
    return ChannelNorm()


def no_norm(dims: int) -> nn.Module | None:
    """None: the convolution has a bias instead."""
    return None


NORMS: Mapping[str, Norm] = {
    "batch": batch_norm,
    "group": group_norm,
    "channel": channel_norm,
    "instance": instance_norm,
    "none": no_norm,
}
"""For blocks of images, volumes and series.

Examples:
    >>> layer = blocks.conv(trial, width=8, kernel=3, norm=blocks.NORMS)
    >>> trial.params["norm"] in blocks.NORMS
    True
"""

SEQUENCE_NORMS: Mapping[str, SequenceNorm] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}
"""For blocks of `(n, length, width)`.

Examples:
    >>> block = blocks.encoder_block(trial, norm=blocks.SEQUENCE_NORMS)
    >>> trial.params["norm"] in blocks.SEQUENCE_NORMS
    True
"""


class GroupNorm(Inferred):
    """Group normalization with at most `groups` groups: the largest number that divides the channels.

    Wu & He, 2018 (arXiv:1803.08494).

    Examples:
        >>> blocks.GroupNorm(32)(torch.randn(2, 24, 5, 5)).shape  # 24 groups: the most that divide 24
        torch.Size([2, 24, 5, 5])
    """

    def __init__(self, groups: int = 32) -> None:
        super().__init__()
        self.groups = groups

    def make(self, *inputs: Tensor) -> None:
        channels = inputs[0].shape[1]
        self.norm = nn.GroupNorm(math.gcd(self.groups, channels), channels)

    def forward(self, x: Tensor) -> Tensor:
        self.infer(x)
        y: Tensor = self.norm(x)
        return y


class ChannelNorm(Inferred):
    """Layer normalization over the channels of `(n, channels, *sizes)`, at each position by itself.

    Liu et al., A ConvNet for the 2020s, 2022 (arXiv:2201.03545).

    Examples:
        >>> blocks.ChannelNorm()(torch.randn(2, 8, 5, 5)).shape
        torch.Size([2, 8, 5, 5])
    """

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps

    def make(self, *inputs: Tensor) -> None:
        self.norm = nn.LayerNorm(inputs[0].shape[1], self.eps)

    def forward(self, x: Tensor) -> Tensor:
        self.infer(x)
        y: Tensor = self.norm(x.movedim(1, -1))
        return y.movedim(-1, 1)
