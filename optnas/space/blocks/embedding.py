"""From images and tokens to sequences `(n, length, width)`, with positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.space.blocks.decisions import OneOf, decide
from optnas.space.blocks.parts import Inferred
from optnas.trial import Trial

_CONVS = (nn.LazyConv1d, nn.LazyConv2d, nn.LazyConv3d)


def patch_embedding(
    trial: Trial,
    *,
    width: OneOf[int] = (64, 128, 192),
    patch: OneOf[int] = (4, 8),
    class_token: OneOf[bool] = False,
    positions: OneOf[str | None] = "learned",
    dropout: OneOf[float] = 0.0,
    dims: int = 2,
) -> PatchEmbedding:
    """`(n, channels, *sizes)` to `(n, length, width)`, one position for each patch; see `PatchEmbedding`.

    Examples:
        >>> blocks.patch_embedding(trial, width=64, patch=4)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 64, 64])
    """
    return PatchEmbedding(
        decide(trial, "width", width),
        decide(trial, "patch", patch),
        class_token=decide(trial, "class_token", class_token),
        positions=decide(trial, "positions", positions),
        dropout=decide(trial, "dropout", dropout),
        dims=dims,
    )


class PatchEmbedding(nn.Module):
    """Cuts a signal, image or volume into patches and projects each linearly.

    Sizes are padded with zeros to whole patches. With `class_token`, a learned vector comes first.
    Dosovitskiy et al., An Image is Worth 16x16 Words, 2021 (arXiv:2010.11929).

    Args:
        positions: "learned", for one size of input; "sinusoidal"; or None.

    Examples:
        >>> blocks.PatchEmbedding(64, patch=4, class_token=True)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 65, 64])
    """

    def __init__(
        self,
        width: int,
        patch: int,
        *,
        class_token: bool = False,
        positions: str | None = "learned",
        dropout: float = 0.0,
        dims: int = 2,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.project = _CONVS[dims - 1](width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        self.positions = _positions(positions)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        missing = [(0, -size % self.patch) for size in reversed(x.shape[2:])]
        if any(after for _, after in missing):
            x = functional.pad(x, [pad for pads in missing for pad in pads])
        y = self.project(x).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            y = torch.cat([self.class_token.expand(y.shape[0], -1, -1), y], 1)
        out: Tensor = self.dropout(self.positions(y))
        return out


def token_embedding(
    trial: Trial,
    *,
    vocabulary: int,
    width: OneOf[int] = (64, 128, 256),
    positions: OneOf[str | None] = "learned",
    max_length: int = 512,
    padding: int | None = None,
    dropout: OneOf[float] = 0.0,
) -> TokenEmbedding:
    """Token numbers `(n, length)` to `(n, length, width)`; see `TokenEmbedding`.

    Examples:
        >>> blocks.token_embedding(trial, vocabulary=1000, width=32)(
        ...     torch.zeros(2, 10, dtype=torch.long)
        ... ).shape
        torch.Size([2, 10, 32])
    """
    return TokenEmbedding(
        vocabulary,
        decide(trial, "width", width),
        positions=decide(trial, "positions", positions),
        max_length=max_length,
        padding=padding,
        dropout=decide(trial, "dropout", dropout),
    )


class TokenEmbedding(nn.Module):
    """A learned vector for each of `vocabulary` tokens, with positions.

    Args:
        positions: "learned", up to `max_length`; "sinusoidal"; or None, for rotary or relative ones.
        padding: the token whose vector is zero and stays so.

    Examples:
        >>> blocks.TokenEmbedding(1000, 32)(torch.zeros(2, 10, dtype=torch.long)).shape
        torch.Size([2, 10, 32])
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        *,
        positions: str | None = "learned",
        max_length: int = 512,
        padding: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width, padding_idx=padding)
        self.positions = _positions(positions, max_length)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.positions(self.tokens(tokens)))
        return y


class LearnedPositions(Inferred):
    """Adds a learned vector to each of `length` positions of `(n, length, width)`.

    Args:
        length: the longest input. None: all inputs are as long as the first one.

    Examples:
        >>> blocks.LearnedPositions(50)(torch.zeros(2, 10, 32)).shape
        torch.Size([2, 10, 32])
    """

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.length = length

    def make(self, *inputs: Tensor) -> None:
        _, length, width = inputs[0].shape
        self.vectors = nn.Parameter(torch.empty(self.length or length, width))
        nn.init.trunc_normal_(self.vectors, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        self.infer(x)
        longest = len(self.vectors)
        if x.shape[1] > longest or (self.length is None and x.shape[1] != longest):
            raise ValueError(
                f"Positions were learned for a length of {longest}, the input has {x.shape[1]}; give a "
                "larger max_length, inputs of one size, or positions='sinusoidal'."
            )
        return x + self.vectors[: x.shape[1]]


class SinusoidalPositions(nn.Module):
    """Adds sines and cosines of the position, of any length (Vaswani et al., 2017, arXiv:1706.03762).

    Examples:
        >>> blocks.SinusoidalPositions()(torch.zeros(2, 10, 32)).shape
        torch.Size([2, 10, 32])
    """

    def forward(self, x: Tensor) -> Tensor:
        _, length, width = x.shape
        exponent = torch.arange(0, width, 2, device=x.device, dtype=torch.float32) / width
        position = torch.arange(length, device=x.device, dtype=torch.float32)[:, None]
        angle = position * torch.exp(-math.log(10_000.0) * exponent)
        waves = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]
        return x + waves.to(x.dtype)


def _positions(kind: str | None, max_length: int | None = None) -> nn.Module:
    if kind == "learned":
        return LearnedPositions(max_length)
    if kind not in (None, "sinusoidal"):
        raise ValueError(f"positions={kind!r} is unknown; use 'learned', 'sinusoidal' or None.")
    return SinusoidalPositions() if kind == "sinusoidal" else nn.Identity()
