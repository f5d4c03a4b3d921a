"""Transformer blocks: encoder and decoder, normalized before or after, plain or gated feed-forward."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from optnas.space.blocks.attentions import attention
from optnas.space.blocks.decisions import Activation, OneOf, decide
from optnas.space.blocks.normalization import SequenceNorm
from optnas.space.blocks.parts import Inferred
from optnas.space.blocks.regularization import StochasticDepth
from optnas.trial import Trial, scope


def feed_forward(
    trial: Trial,
    *,
    expansion: OneOf[float] = (2, 4),
    gated: OneOf[bool] = False,
    activation: OneOf[Activation] = nn.GELU,
    dropout: OneOf[float] = 0.0,
    bias: bool = True,
) -> FeedForward:
    """Two linear layers on the last dimension, which keep the shape; see `FeedForward`.

    Examples:
        >>> blocks.feed_forward(trial, expansion=(2, 4))(torch.zeros(2, 10, 32)).shape
        torch.Size([2, 10, 32])
    """
    return FeedForward(
        decide(trial, "expansion", expansion),
        gated=decide(trial, "gated", gated),
        activation=decide(trial, "activation", activation)(),
        dropout=decide(trial, "dropout", dropout),
        bias=bias,
    )


class FeedForward(Inferred):
    """Widen, activate, project back. The hidden width is `expansion` times the width, rounded down.

    `gated`: the hidden layer is multiplied by the activation of a second one (Shazeer, GLU Variants Improve
    Transformer, 2020, arXiv:2002.05202), as wide as the first; so it has half as many parameters more.

    Examples:
        >>> hidden = blocks.FeedForward(4, gated=True, activation=nn.SiLU(), dropout=0.1)
        >>> hidden(torch.zeros(2, 10, 32)).shape
        torch.Size([2, 10, 32])
    """

    def __init__(
        self, expansion: float, *, gated: bool, activation: nn.Module, dropout: float, bias: bool = True
    ) -> None:
        super().__init__()
        self.expansion = expansion
        self.gated = gated
        self.bias = bias
        self.activation = activation
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def make(self, *inputs: Tensor) -> None:
        width = inputs[0].shape[-1]
        hidden = max(1, int(self.expansion * width))
        self.widen = nn.Linear(width, hidden, self.bias)
        if self.gated:
            self.gate = nn.Linear(width, hidden, self.bias)
        self.project = nn.Linear(hidden, width, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        self.infer(x)
        hidden = self.widen(x)
        hidden = self.activation(self.gate(x)) * hidden if self.gated else self.activation(hidden)
        y: Tensor = self.project(self.dropout(hidden))
        return y


def encoder_block(
    trial: Trial,
    *,
    heads: OneOf[int] = (2, 4, 8),
    expansion: OneOf[float] = (2, 4),
    gated: OneOf[bool] = False,
    activation: OneOf[Activation] = nn.GELU,
    pre_norm: OneOf[bool] = True,
    norm: OneOf[SequenceNorm] = nn.LayerNorm,
    dropout: OneOf[float] = 0.0,
    drop_path: OneOf[float] = 0.0,
    cross: bool = False,
    bias: bool = True,
    **settings: Any,
) -> TransformerBlock:
    """Attention, then a feed-forward network, each with a shortcut; keeps `(n, length, width)`.

    `settings` are further ones of `attention`, such as `positions`, `window` or `causal`; `dropout` is that
    of attention, of the hidden layer and of both branches. See `TransformerBlock`.

    Examples:
        >>> blocks.encoder_block(trial, heads=4, gated=(False, True))(torch.zeros(2, 10, 32)).shape
        torch.Size([2, 10, 32])
    """
    rate = decide(trial, "dropout", dropout)
    settings = {"heads": heads, "dropout": rate, "bias": bias, **settings}
    return TransformerBlock(
        attention(scope(trial, "attention"), **settings),
        feed_forward(
            scope(trial, "feed_forward"),
            expansion=expansion,
            gated=gated,
            activation=activation,
            dropout=rate,
            bias=bias,
        ),
        cross=attention(scope(trial, "cross"), **{**settings, "causal": False}) if cross else None,
        pre_norm=decide(trial, "pre_norm", pre_norm),
        norm=decide(trial, "norm", norm),
        dropout=rate,
        drop_path=decide(trial, "drop_path", drop_path),
    )


def decoder_block(trial: Trial, **settings: Any) -> TransformerBlock:
    """An `encoder_block` that reads nothing from later positions; `cross=True` also attends to a context.

    Examples:
        >>> block = blocks.decoder_block(trial, heads=4, cross=True)
        >>> block(torch.zeros(2, 10, 32), torch.zeros(2, 7, 32)).shape
        torch.Size([2, 10, 32])
    """
    return encoder_block(trial, causal=True, **settings)


class TransformerBlock(Inferred):
    """`x + branch(norm(x))` with `pre_norm`, else `norm(x + branch(x))`, for attention and feed-forward.

    `block(x, mask=mask)`: the mask of x, True where a position counts; see `Attention`. A block with cross
    attention is called `block(x, context, mask=mask, context_mask=context_mask)`.

    Pre-norm: Xiong et al., On Layer Normalization in the Transformer Architecture, 2020 (arXiv:2002.04745).

    Args:
        attention, feed_forward, cross: the branches; the shapes that they get are those of x.
        norm: made for the width at the first forward pass; it does the same in training and evaluation.
        dropout: of each branch before it is added.
        drop_path: probability of dropping a branch of a sample; see `StochasticDepth`.
        normalize_input: whether attention with `pre_norm` normalizes what it reads.

    Examples:
        >>> block = blocks.TransformerBlock(
        ...     blocks.Attention(4),
        ...     blocks.FeedForward(4, gated=False, activation=nn.GELU(), dropout=0.1),
        ... )
        >>> block(torch.zeros(2, 10, 32)).shape
        torch.Size([2, 10, 32])
    """

    def __init__(
        self,
        attention: nn.Module,
        feed_forward: nn.Module,
        *,
        cross: nn.Module | None = None,
        pre_norm: bool = True,
        norm: SequenceNorm = nn.LayerNorm,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        normalize_input: bool = True,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.cross = cross
        self.feed_forward = feed_forward
        self.pre_norm = pre_norm
        self.normalize_input = normalize_input
        self.norm = norm
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.drop_path = StochasticDepth(drop_path) if drop_path else nn.Identity()

    def make(self, *inputs: Tensor) -> None:
        width = inputs[0].shape[-1]
        plain = self.pre_norm and not self.normalize_input
        self.attention_norm = nn.Identity() if plain else self.norm(width)
        if self.cross is not None:
            self.cross_norm = self.norm(width)
        self.feed_forward_norm = self.norm(width)
        del self.norm  # a function of the user's, which may not travel with the model

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        self.infer(x)
        x = self._branch(x, self.attention_norm, self.attention, mask=mask)
        if self.cross is not None:
            if context is None:
                raise ValueError("A block with cross attention needs a context: call block(x, context).")
            x = self._branch(x, self.cross_norm, self.cross, context=context, mask=context_mask)
        elif context is not None:
            raise ValueError("This block has no cross attention for a context; make it with cross=True.")
        return self._branch(x, self.feed_forward_norm, self.feed_forward)

    def _branch(self, x: Tensor, norm: nn.Module, branch: nn.Module, **inputs: Any) -> Tensor:
        y = branch(norm(x) if self.pre_norm else x, **inputs)
        y = x + self.drop_path(self.dropout(y))
        out: Tensor = y if self.pre_norm else norm(y)
        return out
