"""Vision transformers (Dosovitskiy et al., ICLR 2021, arXiv:2010.11929) in the space of AutoFormer.

AutoFormer (Chen et al., ICCV 2021, arXiv:2107.00651) asks for width, depth, and heads and hidden width of
each block, and its three spaces are settings of `network`: `AUTOFORMER_TINY`, `_SMALL` and `_BASE`. Published
networks and their parameters, for 224 x 224 pixels in patches of 16 and 1,000 classes: `TINY` 5,717,416 and
`SMALL` 22,050,664 (5.7 and 22 million in DeiT, arXiv:2012.12877, table 1; the counts are timm's), `BASE`
86,567,656 and `LARGE` 304,326,632 (86 and 307 million in the paper's table 1; the counts are torchvision's).

Examples:
    >>> from optnas.hub import vit
    >>> with torch.device("meta"):
    ...     tiny = optnas.facts.materialize(vit.network(replay(vit.TINY)), (1, 3, 224, 224))
    >>> optnas.count_params(tiny)
    5717416
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from optnas.space.blocks import (
    Attention,
    FeedForward,
    OneOf,
    PatchEmbedding,
    Pool,
    TransformerBlock,
    decide,
)
from optnas.trial import Trial, scope

_NORM = partial(nn.LayerNorm, eps=1e-6)


def network(
    trial: Trial,
    *,
    width: OneOf[int] = range(192, 1025, 8),
    depth: OneOf[int] = range(12, 25),
    heads: OneOf[int] = range(3, 17),
    ratio: OneOf[float] = (3.0, 3.5, 4.0),
    head_width: int = 64,
    patch: int = 16,
    classes: int = 1000,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> nn.Sequential:
    """The classifier: images `(n, channels, height, width)` of one size to `(n, classes)`.

    `width` and `depth` are asked for all, `block.<i>.heads` and `block.<i>.ratio` (hidden width through
    width) for each block. All heads are `head_width` wide, whatever the width. `drop_path` is the probability
    of dropping the last block's branches; earlier ones are dropped less, in proportion.
    """
    wide = decide(trial, "width", width)
    n_blocks = decide(trial, "depth", depth)
    blocks = []
    for i in range(n_blocks):
        block = scope(trial, "block", i)
        times = decide(block, "ratio", ratio)
        blocks.append(
            TransformerBlock(
                Attention(decide(block, "heads", heads), head_width=head_width, dropout=dropout),
                FeedForward(times, gated=False, activation=nn.GELU(), dropout=dropout),
                norm=_NORM,
                dropout=dropout,
                drop_path=drop_path * i / max(1, n_blocks - 1),
            )
        )
    return nn.Sequential(
        PatchEmbedding(wide, patch, class_token=True, dropout=dropout),
        *blocks,
        _NORM(wide),
        Pool("first"),
        nn.Linear(wide, classes),
    )


def params_of(width: int, heads: Sequence[int], ratios: Sequence[float]) -> dict[str, Any]:
    """The answers for a width, and heads and ratio of each block."""
    params: dict[str, Any] = {"width": width, "depth": len(heads)}
    for i, (n, ratio) in enumerate(zip(heads, ratios, strict=True)):
        params |= {f"block.{i}.heads": n, f"block.{i}.ratio": ratio}
    return params


TINY = params_of(192, [3] * 12, [4.0] * 12)
SMALL = params_of(384, [6] * 12, [4.0] * 12)
BASE = params_of(768, [12] * 12, [4.0] * 12)
LARGE = params_of(1024, [16] * 24, [4.0] * 24)

AUTOFORMER_TINY: Mapping[str, Any] = {
    "width": (192, 216, 240),
    "depth": (12, 13, 14),
    "heads": (3, 4),
    "ratio": (3.5, 4.0),
}
"""The space of AutoFormer-T, as settings of `network`."""
AUTOFORMER_SMALL: Mapping[str, Any] = {
    "width": (320, 384, 448),
    "depth": (12, 13, 14),
    "heads": (5, 6, 7),
    "ratio": (3.0, 3.5, 4.0),
}
AUTOFORMER_BASE: Mapping[str, Any] = {
    "width": (528, 576, 624),
    "depth": (14, 15, 16),
    "heads": (8, 9, 10),
    "ratio": (3.0, 3.5, 4.0),
}
