"""Attention: several heads, grouped queries, relative and rotary positions, causal, windowed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.space.blocks.decisions import OneOf, decide
from optnas.space.blocks.parts import Inferred
from optnas.trial import Trial


def attention(
    trial: Trial,
    *,
    heads: OneOf[int] = (2, 4, 8),
    kv_heads: OneOf[int | None] = None,
    head_width: OneOf[int | None] = None,
    positions: OneOf[str | None] = None,
    causal: bool = False,
    window: OneOf[int | None] = None,
    dropout: OneOf[float] = 0.0,
    bias: bool = True,
) -> Attention:
    """Multi-head attention of `(n, length, width)`, which keeps the shape; see `Attention`.

    Examples:
        >>> blocks.attention(trial, heads=(2, 4), positions="rotary")(torch.zeros(2, 10, 32)).shape
        torch.Size([2, 10, 32])
    """
    return Attention(
        decide(trial, "heads", heads),
        kv_heads=decide(trial, "kv_heads", kv_heads),
        head_width=decide(trial, "head_width", head_width),
        positions=decide(trial, "positions", positions),
        causal=causal,
        window=decide(trial, "window", window),
        dropout=decide(trial, "dropout", dropout),
        bias=bias,
    )


class Attention(Inferred):
    """Scaled dot-product attention with several heads (Vaswani et al., 2017, arXiv:1706.03762).

    `attention(x)` attends from x to x, `attention(x, context)` from x to another sequence. `mask`, of shape
    `(n, length of the context)`, is True where a position may be attended to: padding is False. A query for
    which nothing is left gets zeros, before the last projection.

    Args:
        heads: number of heads, for any width.
        kv_heads: heads of keys and values, each shared by a group of queries (Ainslie et al., 2023,
            arXiv:2305.13245); query head i reads number `i * kv_heads // heads`. At most `heads` are made.
            None: as many as heads.
        head_width: of each head. None: width / heads, rounded up, for rotary positions to an even number.
        positions: None; "rotary", which turns queries and keys (Su et al., 2021, arXiv:2104.09864); or
            "relative", a learned number for each head and distance up to `max_distance`, where longer ones
            share the last (as in Shaw et al., 2018, arXiv:1803.02155, as a bias).
        causal: nothing is read from later positions.
        window: only positions less than `window` away are read (Beltagy et al., 2020, arXiv:2004.05150).
        dropout: probability of dropping an attention weight.
        bias: whether the projections have one.

    Examples:
        >>> blocks.Attention(heads=4, positions="rotary", causal=True)(torch.zeros(2, 10, 32)).shape
        torch.Size([2, 10, 32])
    """

    def __init__(
        self,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_width: int | None = None,
        positions: str | None = None,
        causal: bool = False,
        window: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        max_distance: int = 128,
    ) -> None:
        super().__init__()
        if positions not in (None, "rotary", "relative"):
            raise ValueError(f"positions={positions!r} is unknown; use None, 'rotary' or 'relative'.")
        if positions == "rotary" and head_width is not None and head_width % 2:
            raise ValueError(
                f"head_width={head_width} is odd; rotary positions turn pairs, so use an even one."
            )
        if window is not None and window < 1:
            raise ValueError(f"window={window} leaves nothing to attend to; use at least 1, or None.")
        self.heads = heads
        self.kv_heads = heads if kv_heads is None else min(kv_heads, heads)
        self.head_width = head_width
        self.positions = positions
        self.causal = causal
        self.window = window
        self.dropout = dropout
        self.bias = bias
        self.max_distance = max_distance

    def make(self, *inputs: Tensor) -> None:
        x, context = inputs
        width, wide = x.shape[-1], self.head_width
        if wide is None:
            unit = 2 if self.positions == "rotary" else 1
            wide = -(-width // (self.heads * unit)) * unit
        self.query = nn.Linear(width, self.heads * wide, self.bias)
        self.key = nn.Linear(context.shape[-1], self.kv_heads * wide, self.bias)
        self.value = nn.Linear(context.shape[-1], self.kv_heads * wide, self.bias)
        self.out = nn.Linear(self.heads * wide, width, self.bias)
        if self.positions == "relative":
            self.distance = nn.Parameter(torch.zeros(self.heads, 2 * self.max_distance + 1))

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        self.infer(x, context)
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k = self.key(context).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        v = self.value(context).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        if self.positions == "rotary":
            q, k = rotate(q), rotate(k)
        if self.kv_heads < self.heads:
            group = torch.arange(self.heads, device=x.device) * self.kv_heads // self.heads
            k, v = k[:, group], v[:, group]
        dropped = self.dropout if self.training else 0.0
        y = functional.scaled_dot_product_attention(q, k, v, self._bias(q, k, mask), dropped)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    def _bias(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor | None:
        """What is added to the scores, or where they count (bool); None where all do."""
        bias: Tensor | None = None if mask is None else mask[:, None, None, :].bool()
        if self.causal or self.window is not None or self.positions == "relative":
            rows = torch.arange(q.shape[2], device=q.device)[:, None]
            away = torch.arange(k.shape[2], device=q.device)[None, :] - rows  # below 0: earlier
            seen: list[Tensor] = [] if bias is None else [bias]
            seen += [away <= 0] if self.causal else []
            seen += [away.abs() < self.window] if self.window is not None else []
            bias = None
            for part in seen:
                bias = part if bias is None else bias & part
            if self.positions == "relative":
                reach = self.max_distance
                learned = self.distance[:, away.clamp(-reach, reach) + reach].to(q.dtype)
                bias = learned if bias is None else torch.where(bias, learned, float("-inf"))
        return bias


def rotate(x: Tensor, base: float = 10_000.0) -> Tensor:
    """Rotary position embedding of `(..., length, width)`: pairs of halves are turned by their position."""
    length, width = x.shape[-2:]
    frequency = base ** (-torch.arange(0, width, 2, device=x.device, dtype=torch.float32) / width)
    angle = torch.arange(length, device=x.device, dtype=torch.float32)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Windows(nn.Module):
    """A block of sequences applied within square windows of an image `(n, channels, height, width)`.

    The image is padded to whole windows, each window becomes a sequence of `size ** 2` positions, and the
    block gets the mask of what is padding. `shift` moves the windows by that many pixels, so that the next
    block sees over their borders. Liu et al., Swin Transformer, 2021 (arXiv:2103.14030), where the windows
    at a border are masked instead of padded, to the same effect.

    Args:
        block: takes `(n, length, channels)` and `mask`, keeps the shape, as attention and its blocks do.
        size: of a window.
        shift: in 0..size - 1.

    Examples:
        >>> blocks.Windows(blocks.Attention(2), size=4, shift=2)(torch.zeros(1, 8, 10, 10)).shape
        torch.Size([1, 8, 10, 10])
    """

    def __init__(self, block: nn.Module, size: int, shift: int = 0) -> None:
        super().__init__()
        if not 0 <= shift < size:
            raise ValueError(f"shift={shift} must be in 0..{size - 1}, below the size of a window.")
        self.block = block
        self.size = size
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        before = (self.size - self.shift) % self.size
        pads = [before, -(width + before) % self.size, before, -(height + before) % self.size]
        inside = functional.pad(torch.ones_like(x[:1, :1]), pads)
        image = functional.pad(x, pads)
        mask = self._split(inside).expand(-1, -1, 1).squeeze(-1) > 0
        y: Tensor = self.block(self._split(image), mask=mask.repeat(n, 1))
        rows, columns = image.shape[2] // self.size, image.shape[3] // self.size
        y = y.reshape(n, rows, columns, self.size, self.size, channels)
        y = y.permute(0, 5, 1, 3, 2, 4).reshape(image.shape)
        return y[:, :, before : before + height, before : before + width]

    def _split(self, x: Tensor) -> Tensor:
        """`(n * windows, size ** 2, channels)`."""
        n, channels, height, width = x.shape
        x = x.reshape(n, channels, height // self.size, self.size, width // self.size, self.size)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, self.size**2, channels)


def windowed(trial: Trial, *, size: OneOf[int] = (4, 8), shifted: bool = False, **settings: Any) -> Windows:
    """Attention within windows of an image; `settings` are those of `attention`. Keeps the shape.

    `shifted` windows are moved by half their size. See `Windows`.

    Examples:
        >>> blocks.windowed(trial, size=4, heads=2)(torch.zeros(1, 8, 10, 10)).shape
        torch.Size([1, 8, 10, 10])
    """
    wide = decide(trial, "size", size)
    return Windows(attention(trial, **settings), wide, wide // 2 if shifted else 0)
