"""From features to class scores: of images and alike, of sequences of different lengths."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from optnas.space.blocks.decisions import Activation, OneOf, decide
from optnas.space.blocks.parts import sequential
from optnas.trial import Trial


def head(
    trial: Trial,
    *,
    n_classes: int,
    hidden: OneOf[int | None] = None,
    dropout: OneOf[float] = 0.0,
    activation: OneOf[Activation] = nn.ReLU,
) -> nn.Sequential:
    """Global average pooling, a hidden layer unless `hidden` is None, and a linear layer.

    Shapes: (n, channels, *sizes) to (n, n_classes). `dropout` is the probability of dropping a feature before
    the last layer. The activation is asked only where there is a hidden layer.

    Examples:
        >>> blocks.head(trial, n_classes=10, hidden=(None, 64))(torch.zeros(2, 8, 9, 9)).shape
        torch.Size([2, 10])
    """
    units = decide(trial, "hidden", hidden)
    rate = decide(trial, "dropout", dropout)
    return sequential(
        flatten=nn.Flatten(2),
        pool=nn.AdaptiveAvgPool1d(1),
        squeeze=nn.Flatten(1),
        hidden=nn.LazyLinear(units) if units is not None else None,
        activation=decide(trial, "activation", activation)() if units is not None else None,
        dropout=nn.Dropout(rate) if rate else None,
        classifier=nn.LazyLinear(n_classes),
    )


def sequence_head(
    trial: Trial,
    *,
    n_classes: int,
    pool: OneOf[str] = ("mean", "max", "last"),
    dropout: OneOf[float] = 0.0,
) -> SequenceHead:
    """`(n, length, width)` to class scores `(n, n_classes)`; `head(x, mask)` leaves padding out.

    See `Pool`.

    Examples:
        >>> blocks.sequence_head(trial, n_classes=5, pool="mean")(torch.zeros(2, 10, 32)).shape
        torch.Size([2, 5])
    """
    return SequenceHead(decide(trial, "pool", pool), decide(trial, "dropout", dropout), n_classes)


class SequenceHead(nn.Module):
    """Pooling, dropout, a linear layer.

    Examples:
        >>> blocks.SequenceHead("mean", 0.1, 5)(torch.zeros(2, 10, 32)).shape
        torch.Size([2, 5])
    """

    def __init__(self, pool: str, dropout: float, n_classes: int) -> None:
        super().__init__()
        self.pool = Pool(pool)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.classifier = nn.LazyLinear(n_classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y: Tensor = self.classifier(self.dropout(self.pool(x, mask)))
        return y


class Pool(nn.Module):
    """One vector for a sequence: `(n, length, width)` to `(n, width)`.

    `mask` is True where a position counts, at the beginning of every sample; a sample without any gives
    zeros.

    Args:
        kind: "mean" or "max" over the positions, the "first", or the "last".

    Examples:
        >>> blocks.Pool("mean")(torch.zeros(2, 10, 32)).shape
        torch.Size([2, 32])
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        if kind not in ("mean", "max", "first", "last"):
            raise ValueError(f"pool={kind!r} is unknown; use 'mean', 'max', 'first' or 'last'.")
        self.kind = kind

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        counted = x.masked_fill(~mask[:, :, None], 0.0)
        n = mask.sum(1, keepdim=True)
        if self.kind == "mean":
            return counted.sum(1) / n.clamp(min=1)
        if self.kind == "max":
            return torch.where(n > 0, x.masked_fill(~mask[:, :, None], float("-inf")).amax(1), 0.0)
        if self.kind == "first":
            return counted[:, 0]
        index = (n - 1).clamp(min=0)[:, :, None].expand(-1, -1, x.shape[2])
        return counted.gather(1, index).squeeze(1)
