"""FT-Transformer and ResNet for tables (Gorishniy et al., NeurIPS 2021, arXiv:2106.11959).

`ft_transformer` and `resnet` are the two spaces. `FT_DEFAULT` is the default FT-Transformer of the paper's
appendix, which gives 929 thousand parameters for 100 numbers and does not say which count: tokens and blocks
have 929,664, with the last normalization and an output of one number it is 930,241. `RESNET` is the network
of the example in the authors' package; no count of it is published.

Examples:
    >>> from optnas.hub import tabular
    >>> list(optnas.sample(tabular.resnet, 0))
    ['width', 'expansion', 'depth']
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from optnas.space.blocks import (
    Attention,
    FeatureTokenizer,
    FeedForward,
    OneOf,
    Stack,
    TabularBlock,
    TransformerBlock,
    decide,
)
from optnas.trial import Trial


def ft_transformer(
    trial: Trial,
    *,
    width: OneOf[int] = range(64, 513, 64),
    depth: OneOf[int] = range(1, 7),
    expansion: OneOf[float] = (2 / 3, 1.0, 4 / 3, 2.0, 8 / 3),
    heads: int = 8,
    categories: Sequence[int] = (),
    attention_dropout: OneOf[float] = 0.2,
    dropout: OneOf[float] = 0.1,
    outputs: int = 1,
) -> FTTransformer:
    """Numbers `(n, columns)`, and codes of `categories` beside them, to `(n, outputs)`.

    Each column is a token of `width`; `depth` blocks with a gated hidden layer (ReGLU) of `expansion` times
    the width.
    """
    wide = decide(trial, "width", width)
    times = decide(trial, "expansion", expansion)
    dropped, hidden_dropped = (
        decide(trial, "attention_dropout", attention_dropout),
        decide(trial, "dropout", dropout),
    )
    blocks = [
        TransformerBlock(
            Attention(heads, dropout=dropped),
            FeedForward(times, gated=True, activation=nn.ReLU(), dropout=hidden_dropped),
            normalize_input=i > 0,
        )
        for i in range(decide(trial, "depth", depth))
    ]
    return FTTransformer(FeatureTokenizer(wide, categories=categories), Stack(*blocks), wide, outputs)


class FTTransformer(nn.Module):
    """Tokens of columns, blocks, and a linear layer of the normalized class token."""

    def __init__(self, tokenizer: nn.Module, blocks: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.blocks = blocks
        self.norm = nn.LayerNorm(width)
        self.activation = nn.ReLU()
        self.output = nn.Linear(width, outputs)

    def forward(self, numbers: Tensor, codes: Tensor | None = None) -> Tensor:
        x = self.blocks(self.tokenizer(numbers, codes))[:, 0]
        y: Tensor = self.output(self.activation(self.norm(x)))
        return y


def resnet(
    trial: Trial,
    *,
    width: OneOf[int] = range(64, 513, 64),
    depth: OneOf[int] = range(1, 9),
    expansion: OneOf[float] = (1.0, 2.0, 3.0, 4.0),
    dropout: OneOf[float] = 0.25,
    residual_dropout: OneOf[float] = 0.0,
    outputs: int = 1,
) -> nn.Sequential:
    """Numbers `(n, columns)` to `(n, outputs)`: a projection, `depth` residual blocks, an output."""
    wide = decide(trial, "width", width)
    times = decide(trial, "expansion", expansion)
    rate = decide(trial, "dropout", dropout)
    last = decide(trial, "residual_dropout", residual_dropout)
    blocks = [
        TabularBlock(times, activation=nn.ReLU(), dropout=rate, residual_dropout=last)
        for _ in range(decide(trial, "depth", depth))
    ]
    return nn.Sequential(
        nn.LazyLinear(wide), *blocks, nn.BatchNorm1d(wide), nn.ReLU(), nn.Linear(wide, outputs)
    )


FT_DEFAULT: dict[str, Any] = {"width": 192, "expansion": 4 / 3, "depth": 3}
RESNET: dict[str, Any] = {"width": 128, "expansion": 2.0, "depth": 2}
