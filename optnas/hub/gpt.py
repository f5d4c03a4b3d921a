"""Decoder-only transformers for language: GPT-2 (Radford et al., 2019) and the sizes of Chinchilla.

Width, depth, heads, hidden width, positions, gate and normalization are asked. Published networks:
`GPT2_SMALL`, `GPT2_MEDIUM`, `GPT2_LARGE` and `GPT2_XL`, 124,439,808, 354,823,168, 774,030,080 and
1,557,611,200 parameters as nanoGPT and Hugging Face count them, with the embedding that is the last layer as
well counted once. (The paper's table 2 says 117, 345, 762 and 1,542 million, which its authors' code corrects
to 124, 355, 774 and 1,558.)

`CHINCHILLA` has rows of table A9 of Hoffmann et al., Training Compute-Optimal Large Language Models, 2022
(arXiv:2203.15556), by their published size. That paper counts the relative positions of Transformer-XL, a
`width * width` projection in each layer, which `chinchilla` networks do without.

Examples:
    >>> from optnas.hub import gpt
    >>> answers = optnas.sample(gpt.network, 0)
    >>> network = gpt.network(replay({**answers, **gpt.params_of(heads=2, depth=1)}), vocabulary=50)
    >>> network(torch.zeros(1, 6, dtype=torch.long)).shape
    torch.Size([1, 6, 50])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from optnas.space.blocks import (
    ACTIVATIONS,
    SEQUENCE_NORMS,
    Activation,
    OneOf,
    SequenceNorm,
    Stack,
    TokenEmbedding,
    decide,
    decoder_block,
)
from optnas.trial import Trial, scope


def network(
    trial: Trial,
    *,
    vocabulary: int = 50_257,
    length: int = 1024,
    head_width: OneOf[int] = (32, 64, 128),
    heads: OneOf[int] = range(1, 26),
    kv_heads: OneOf[int | None] = (None, 1, 2, 4),
    depth: OneOf[int] = range(1, 49),
    expansion: OneOf[float] = (2.0, 3.0, 4.0),
    gated: OneOf[bool] = (False, True),
    activation: OneOf[Activation] = ACTIVATIONS,
    positions: OneOf[str] = ("learned", "rotary", "relative"),
    norm: OneOf[SequenceNorm] = SEQUENCE_NORMS,
    bias: OneOf[bool] = (True, False),
    dropout: float = 0.0,
) -> LanguageModel:
    """Tokens `(n, length)` to scores of the next one `(n, length, vocabulary)`; nothing reads the future.

    The width is `heads * head_width`. `length` is the longest input. The scores' layer shares the embedding's
    weights.
    """
    each, n_heads = decide(trial, "head_width", head_width), decide(trial, "heads", heads)
    place = decide(trial, "positions", positions)
    settings: dict[str, Any] = {
        "heads": n_heads,
        "kv_heads": decide(trial, "kv_heads", kv_heads),
        "expansion": decide(trial, "expansion", expansion),
        "gated": decide(trial, "gated", gated),
        "activation": decide(trial, "activation", activation),
        "norm": decide(trial, "norm", norm),
        "positions": None if place == "learned" else place,
        "bias": decide(trial, "bias", bias),
        "dropout": dropout,
    }
    return LanguageModel(
        TokenEmbedding(
            vocabulary,
            n_heads * each,
            positions="learned" if place == "learned" else None,
            max_length=length,
            dropout=dropout,
        ),
        Stack(
            *(
                decoder_block(scope(trial, "block", i), **settings)
                for i in range(decide(trial, "depth", depth))
            )
        ),
        settings["norm"](n_heads * each),
    )


class LanguageModel(nn.Module):
    """Embedding, blocks, normalization; the scores are products with the embedding's vectors."""

    def __init__(self, embedding: TokenEmbedding, blocks: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding
        self.blocks = blocks
        self.norm = norm
        nn.init.normal_(embedding.tokens.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.embedding(tokens)))
        return nn.functional.linear(x, self.embedding.tokens.weight)


def params_of(heads: int, depth: int, *, head_width: int = 64, **others: Any) -> dict[str, Any]:
    """The answers for a network in the manner of GPT-2, other ones where they are given."""
    return {
        "head_width": head_width,
        "heads": heads,
        "kv_heads": None,
        "depth": depth,
        "expansion": 4.0,
        "gated": False,
        "activation": "gelu",
        "positions": "learned",
        "norm": "layer",
        "bias": True,
        **others,
    }


GPT2_SMALL = params_of(12, 12)
GPT2_MEDIUM = params_of(16, 24)
GPT2_LARGE = params_of(20, 36)
GPT2_XL = params_of(25, 48)


def chinchilla(width: int, heads: int, depth: int) -> dict[str, Any]:
    """The answers for a row of Chinchilla's table: RMSNorm, no biases, a hidden layer four times as wide."""
    return params_of(heads, depth, head_width=width // heads, positions="relative", norm="rms", bias=False)


CHINCHILLA: Mapping[str, dict[str, Any]] = {
    "44M": chinchilla(512, 8, 8),
    "57M": chinchilla(576, 9, 9),
    "74M": chinchilla(640, 10, 10),
    "90M": chinchilla(640, 10, 13),
    "106M": chinchilla(640, 10, 16),
    "117M": chinchilla(768, 12, 12),
    "140M": chinchilla(768, 12, 15),
    "163M": chinchilla(768, 12, 18),
}
