"""Tables: a token for each column, residual blocks of linear layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from optnas.space.blocks.decisions import Activation, OneOf, decide
from optnas.space.blocks.parts import Inferred
from optnas.trial import Trial


def feature_tokenizer(
    trial: Trial,
    *,
    width: OneOf[int] = (32, 64, 128),
    categories: Sequence[int] = (),
    class_token: OneOf[bool] = True,
) -> FeatureTokenizer:
    """Columns to tokens `(n, columns, width)`; see `FeatureTokenizer`.

    Examples:
        >>> blocks.feature_tokenizer(trial, width=16)(torch.zeros(2, 5)).shape
        torch.Size([2, 6, 16])
    """
    return FeatureTokenizer(
        decide(trial, "width", width),
        categories=categories,
        class_token=decide(trial, "class_token", class_token),
    )


class FeatureTokenizer(Inferred):
    """One vector for each column of a table (Gorishniy et al., 2021, arXiv:2106.11959).

    `tokenizer(numbers)` for numbers `(n, columns)`, `tokenizer(numbers, codes)` with integer categories
    `(n, len(categories))` beside them. A number scales a learned vector and a learned bias is added; a
    category has a vector, and its column a bias. With `class_token` a learned vector comes first.

    Args:
        categories: the number of values that each column of categories has.

    Examples:
        >>> tokens = blocks.FeatureTokenizer(16, categories=(3,))
        >>> tokens(torch.zeros(2, 5), torch.zeros(2, 1, dtype=torch.long)).shape
        torch.Size([2, 7, 16])
    """

    def __init__(self, width: int, *, categories: Sequence[int] = (), class_token: bool = True) -> None:
        super().__init__()
        self.width = width
        self.categories = tuple(categories)
        self.class_token = nn.Parameter(_uniform(1, width)) if class_token else None

    def make(self, *inputs: Tensor) -> None:
        columns = inputs[0].shape[1]
        self.weight = nn.Parameter(_uniform(columns, self.width))
        self.bias = nn.Parameter(_uniform(columns + len(self.categories), self.width))
        self.embeddings = nn.ModuleList(nn.Embedding(n, self.width) for n in self.categories)

    def forward(self, numbers: Tensor, codes: Tensor | None = None) -> Tensor:
        if (0 if codes is None else codes.shape[1]) != len(self.categories):
            given = "no codes" if codes is None else f"codes of {codes.shape[1]} columns"
            raise ValueError(f"The tokenizer was made for categories={self.categories} and got {given}.")
        self.infer(numbers)
        tokens = numbers[:, :, None] * self.weight
        if codes is not None:
            columns = [embed(codes[:, i]) for i, embed in enumerate(self.embeddings)]
            tokens = torch.cat([tokens, torch.stack(columns, 1)], 1)
        tokens = tokens + self.bias
        if self.class_token is None:
            return tokens
        return torch.cat([self.class_token.expand(tokens.shape[0], 1, -1), tokens], 1)


def _uniform(rows: int, width: int) -> Tensor:
    bound: float = width**-0.5
    return nn.init.uniform_(torch.empty(rows, width), -bound, bound)


def tabular_block(
    trial: Trial,
    *,
    expansion: OneOf[float] = (1, 2, 4),
    activation: OneOf[Activation] = nn.ReLU,
    dropout: OneOf[float] = (0.0, 0.2),
    residual_dropout: OneOf[float] = 0.0,
) -> TabularBlock:
    """A residual block of `(n, features)`, which keeps the shape; see `TabularBlock`.

    Examples:
        >>> blocks.tabular_block(trial, expansion=2)(torch.zeros(4, 16)).shape
        torch.Size([4, 16])
    """
    return TabularBlock(
        decide(trial, "expansion", expansion),
        activation=decide(trial, "activation", activation)(),
        dropout=decide(trial, "dropout", dropout),
        residual_dropout=decide(trial, "residual_dropout", residual_dropout),
    )


class TabularBlock(Inferred):
    """`x + linear(dropout(activation(linear(norm(x)))))` of `(n, features)`, with batch normalization.

    The branch is dropped out once more before it is added. The hidden layer is `expansion` times as wide,
    rounded down. The block of ResNet in Gorishniy et al., 2021 (arXiv:2106.11959).

    Examples:
        >>> blocks.TabularBlock(2, activation=nn.ReLU(), dropout=0.1)(torch.zeros(4, 16)).shape
        torch.Size([4, 16])
    """

    def __init__(
        self, expansion: float, *, activation: nn.Module, dropout: float, residual_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.expansion = expansion
        self.norm = nn.LazyBatchNorm1d()
        self.activation = activation
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.residual_dropout = nn.Dropout(residual_dropout) if residual_dropout else nn.Identity()

    def make(self, *inputs: Tensor) -> None:
        width = inputs[0].shape[1]
        hidden = max(1, int(self.expansion * width))
        self.widen = nn.Linear(width, hidden)
        self.project = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        self.infer(x)
        hidden = self.dropout(self.activation(self.widen(self.norm(x))))
        y: Tensor = x + self.residual_dropout(self.project(hidden))
        return y
