"""Smaller and larger again: the two sides of a U-shaped network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.space.blocks.convolution import conv_norm
from optnas.space.blocks.decisions import OneOf, decide
from optnas.space.blocks.normalization import no_norm
from optnas.space.blocks.parts import Inferred
from optnas.trial import Trial

_MAX = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVG = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
_UP = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_INTERPOLATIONS = ("linear", "bilinear", "trilinear")


def downsample(
    trial: Trial, *, how: OneOf[str] = ("max", "average", "conv"), factor: int = 2, dims: int = 2
) -> nn.Module:
    """Sizes become `ceil(size / factor)`; "conv" learns a strided convolution. The channels stay.

    Examples:
        >>> blocks.downsample(trial)(torch.zeros(2, 8, 9, 9)).shape
        torch.Size([2, 8, 5, 5])
    """
    kind = decide(trial, "how", how)
    if kind == "conv":
        return conv_norm(dims, factor, factor, None, no_norm)
    if kind not in ("max", "average"):
        raise ValueError(f"how={kind!r} is unknown; use 'max', 'average' or 'conv'.")
    return _MAX[dims - 1](factor, factor, ceil_mode=True) if kind == "max" else AveragePool(factor)


class AveragePool(nn.Module):
    """Means over windows of `factor` in each dimension; those at the end may be smaller.

    (torch's own refuses volumes that are smaller than a window.)
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        pool: Callable[..., Tensor] = _AVG[x.dim() - 3]
        sizes = [-(-size // self.factor) * self.factor for size in x.shape[2:]]
        if sizes == list(x.shape[2:]):
            return pool(x, self.factor)
        return pool(fit(x, sizes), self.factor) / pool(fit(torch.ones_like(x[:1, :1]), sizes), self.factor)


def upsample(
    trial: Trial,
    *,
    how: OneOf[str] = ("transposed", "nearest", "linear"),
    width: OneOf[int | None] = None,
    factor: int = 2,
) -> Upsample:
    """Sizes become `factor` times as large; see `Upsample`.

    Examples:
        >>> blocks.upsample(trial, width=4)(torch.zeros(1, 8, 5, 5)).shape
        torch.Size([1, 4, 10, 10])
    """
    return Upsample(decide(trial, "how", how), decide(trial, "width", width), factor)


class Upsample(Inferred):
    """Enlarges `(n, channels, *sizes)` by `factor`; `up(x, like)` gives exactly the sizes of `like`.

    Args:
        how: "transposed", a transposed convolution whose kernel is its stride; "nearest" or "linear",
            interpolation and, where the width changes, a 1x1 convolution.
        width: of the output; None: that of the input.
        bias: of the convolution.

    Examples:
        >>> blocks.Upsample("linear", width=4)(torch.zeros(1, 8, 5, 5)).shape
        torch.Size([1, 4, 10, 10])
    """

    def __init__(self, how: str, width: int | None = None, factor: int = 2, *, bias: bool = True) -> None:
        super().__init__()
        if how not in ("transposed", "nearest", "linear"):
            raise ValueError(f"how={how!r} is unknown; use 'transposed', 'nearest' or 'linear'.")
        self.how = how
        self.width = width
        self.factor = factor
        self.bias = bias

    def make(self, *inputs: Tensor) -> None:
        channels, dims = inputs[0].shape[1], inputs[0].dim() - 2
        width = channels if self.width is None else self.width
        if self.how == "transposed":
            self.conv: nn.Module = _UP[dims - 1](channels, width, self.factor, self.factor, bias=self.bias)
        elif width != channels:
            self.conv = _CONVS[dims - 1](channels, width, 1, bias=self.bias)
        else:
            self.conv = nn.Identity()

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        self.infer(x)
        sizes = [self.factor * size for size in x.shape[2:]] if like is None else list(like.shape[2:])
        if self.how == "transposed":
            y: Tensor = self.conv(x)
            return y if list(y.shape[2:]) == sizes else fit(y, sizes)
        mode = "nearest" if self.how == "nearest" else _INTERPOLATIONS[x.dim() - 3]
        z: Tensor = functional.interpolate(self.conv(x), sizes, mode=mode)
        return z


def fit(x: Tensor, sizes: list[int]) -> Tensor:
    """Cut or padded with zeros at the end of each dimension to `sizes`."""
    pads = [pad for size, wanted in zip(x.shape[2:], sizes, strict=True) for pad in (wanted - size, 0)]
    return functional.pad(x, pads[::-1])


class UShape(nn.Module):
    """One level of a U-shaped network: `up(inner(down(side)))` beside `side = encoder(x)`, then the decoder.

    Levels nest: `inner` may be a level again. Any sizes are fine, odd ones included.
    Ronneberger et al., U-Net, 2015 (arXiv:1505.04597).

    Args:
        encoder: of `(n, channels, *sizes)`, which keeps the sizes.
        down, inner: modules; the sizes shrink in `down` and stay in `inner`.
        up: enlarges to the sizes of what is beside it, `up(x, like)`, as `Upsample` does.
        decoder: of both, concatenated along the channels: what comes from the side first.
        add: sum both instead of concatenating them; they need equally many channels.

    Examples:
        >>> level = blocks.UShape(
        ...     nn.Conv2d(1, 4, 3, padding=1),
        ...     nn.MaxPool2d(2),
        ...     nn.Conv2d(4, 8, 3, padding=1),
        ...     blocks.Upsample("nearest", 4),
        ...     nn.Conv2d(8, 2, 3, padding=1),
        ... )
        >>> level(torch.zeros(1, 1, 15, 15)).shape
        torch.Size([1, 2, 15, 15])
    """

    def __init__(
        self,
        encoder: nn.Module,
        down: nn.Module,
        inner: nn.Module,
        up: nn.Module,
        decoder: nn.Module,
        *,
        add: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.down = down
        self.inner = inner
        self.up = up
        self.decoder = decoder
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        side: Any = self.encoder(x)
        deep: Any = self.up(self.inner(self.down(side)), side)
        y: Tensor = self.decoder(side + deep if self.add else torch.cat([side, deep], 1))
        return y
