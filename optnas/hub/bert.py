"""BERT, a bidirectional transformer encoder (Devlin et al., NAACL 2019, arXiv:1810.04805).

Width, depth, heads and hidden width are asked. Published networks and their parameters with the pooling
layer, as Hugging Face counts the uncased English ones: `BASE` 109,482,240 and `LARGE` 335,141,888 (110 and
340 million in the paper), and the smaller ones of Turc et al., 2019 (arXiv:1908.08962) `TINY` 4,385,920,
`MINI` 11,170,560, `SMALL` 28,763,648 and `MEDIUM` 41,373,184.

Examples:
    >>> from optnas.hub import bert
    >>> tiny = bert.network(replay(bert.TINY))
    >>> tokens = torch.zeros(1, 6, dtype=torch.long)
    >>> optnas.count_params(optnas.facts.materialize(tiny, tokens))
    4385920
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from optnas.space.blocks import LearnedPositions, OneOf, Stack, decide, encoder_block
from optnas.trial import Trial, scope

_NORM = partial(nn.LayerNorm, eps=1e-12)


def network(
    trial: Trial,
    *,
    vocabulary: int = 30_522,
    length: int = 512,
    head_width: OneOf[int] = 64,
    heads: OneOf[int] = range(2, 17),
    depth: OneOf[int] = range(2, 25),
    expansion: OneOf[float] = (2.0, 3.0, 4.0),
    classes: int | None = None,
    padding: int = 0,
    dropout: float = 0.1,
) -> Encoder:
    """Tokens `(n, length)` to class scores `(n, classes)`, or with None to the pooled vector `(n, width)`.

    The width is `heads * head_width`; `depth` blocks, normalized after each branch. Tokens equal to `padding`
    are not attended to, in any position but the first, which is pooled.
    """
    n_heads = decide(trial, "heads", heads)
    width = n_heads * decide(trial, "head_width", head_width)
    times = decide(trial, "expansion", expansion)
    blocks = [
        encoder_block(
            scope(trial, "block", i),
            heads=n_heads,
            expansion=times,
            pre_norm=False,
            norm=_NORM,
            dropout=dropout,
        )
        for i in range(decide(trial, "depth", depth))
    ]
    return Encoder(vocabulary, width, length, Stack(*blocks), classes, padding, dropout)


class Encoder(nn.Module):
    """Embeddings of tokens, positions and segments, blocks, and a pooling of the first token.

    `encoder(tokens, segments)`: 0 or 1 for each token, 0 where they are not given.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        length: int,
        blocks: nn.Module,
        classes: int | None,
        padding: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.tokens = nn.Embedding(vocabulary, width)
        self.segments = nn.Embedding(2, width)
        self.positions = LearnedPositions(length)
        self.norm = _NORM(width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = blocks
        self.pool = nn.Linear(width, width)
        self.classifier = nn.Linear(width, classes) if classes is not None else nn.Identity()
        for embedding in (self.tokens, self.segments):
            nn.init.trunc_normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
        kinds = torch.zeros_like(tokens) if segments is None else segments
        x = self.dropout(self.norm(self.positions(self.tokens(tokens) + self.segments(kinds))))
        mask = tokens != self.padding
        mask = torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], 1)
        x = self.blocks(x, mask=mask)
        scores: Tensor = self.classifier(self.dropout(self.pool(x[:, 0]).tanh()))
        return scores


def params_of(heads: int, depth: int) -> dict[str, Any]:
    """The answers for heads of 64, and a hidden layer four times as wide."""
    return {"heads": heads, "expansion": 4.0, "depth": depth}


TINY = params_of(2, 2)
MINI = params_of(4, 4)
SMALL = params_of(8, 4)
MEDIUM = params_of(8, 8)
BASE = params_of(12, 12)
LARGE = params_of(16, 24)
