"""Recurrent blocks: LSTM and GRU, one or both directions, sequences of different lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optnas.space.blocks.decisions import OneOf, decide
from optnas.space.blocks.parts import Inferred, mask_of
from optnas.trial import Trial

Cell = Callable[..., nn.Module]

CELLS: Mapping[str, Cell] = {"lstm": nn.LSTM, "gru": nn.GRU}
"""Kinds of recurrent layers by name.

Examples:
    >>> layer = blocks.recurrent(trial, width=8, cell=blocks.CELLS)
    >>> trial.params["cell"] in blocks.CELLS
    True
"""


def recurrent(
    trial: Trial,
    *,
    width: OneOf[int] = (32, 64, 128),
    cell: OneOf[Cell] = CELLS,
    layers: OneOf[int] = 1,
    bidirectional: OneOf[bool] = False,
    dropout: OneOf[float] = 0.0,
) -> Recurrent:
    """Recurrent layers, `(n, length, any)` to `(n, length, width)`; see `Recurrent`.

    Examples:
        >>> blocks.recurrent(trial, width=16, layers=(1, 2))(torch.zeros(2, 10, 4)).shape
        torch.Size([2, 10, 16])
    """
    return Recurrent(
        decide(trial, "width", width),
        cell=decide(trial, "cell", cell),
        layers=decide(trial, "layers", layers),
        bidirectional=decide(trial, "bidirectional", bidirectional),
        dropout=decide(trial, "dropout", dropout),
    )


class Recurrent(Inferred):
    """Layers of LSTM (Hochreiter & Schmidhuber, 1997) or GRU (Cho et al., 2014, arXiv:1406.1078).

    `recurrent(x, lengths)`: of sample i only the first `lengths[i]` positions count, as in a packed sequence;
    the others have no influence, and the output there is zero. Nothing looks at the values of `lengths`, so
    it runs on any device, meta included.

    Args:
        width: of the output, which both directions share: half of it each.
        cell: nn.LSTM, nn.GRU or alike.
        dropout: between layers.

    Examples:
        >>> layer = blocks.Recurrent(16, bidirectional=True)
        >>> layer(torch.zeros(2, 10, 4), torch.tensor([10, 7])).shape
        torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        width: int,
        *,
        cell: Cell = nn.LSTM,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width < 1 + bidirectional:
            raise ValueError(
                f"width={width} leaves a direction without a unit; use {1 + bidirectional} or more."
            )
        self.width = width
        self.cell = cell
        self.layers = layers
        self.bidirectional = bidirectional
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def make(self, *inputs: Tensor) -> None:
        width = inputs[0].shape[-1]
        half = self.width // 2 if self.bidirectional else 0
        self.forwards, self.backwards = nn.ModuleList(), nn.ModuleList()
        for _ in range(self.layers):
            self.forwards.append(self.cell(width, self.width - half, batch_first=True))
            if self.bidirectional:
                self.backwards.append(self.cell(width, half, batch_first=True))
            width = self.width
        del self.cell

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        self.infer(x)
        padding = None if lengths is None else ~mask_of(lengths, x.shape[1])[:, :, None]
        if padding is not None:
            x = x.masked_fill(padding, 0.0)
        for i in range(self.layers):
            if i:
                x = self.dropout(x)
            parts = [self.forwards[i](x)[0]]
            if self.bidirectional:
                parts.append(reverse(self.backwards[i](reverse(x, lengths))[0], lengths))
            x = torch.cat(parts, -1)
        return x if padding is None else x.masked_fill(padding, 0.0)


def reverse(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """`(n, length, width)` from the end to the beginning; of sample i the first `lengths[i]` positions."""
    if lengths is None:
        return x.flip(1)
    position = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths[:, None] - 1 - position
    index: Any = torch.where(mirrored < 0, position, mirrored)
    return x.gather(1, index[:, :, None].expand_as(x))
