"""Stochastic depth and dropout as decisions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from optnas.space.blocks.decisions import OneOf, decide
from optnas.trial import Space, Trial


def dropout(trial: Trial, *, rate: OneOf[float] = (0.0, 0.1, 0.2, 0.5)) -> nn.Module:
    """Dropout with probability `rate`; 0 makes an identity.

    Examples:
        >>> blocks.dropout(trial, rate=(0.0, 0.3))(torch.zeros(2, 8)).shape
        torch.Size([2, 8])
    """
    p = decide(trial, "rate", rate)
    return nn.Dropout(p) if p else nn.Identity()


def stochastic_depth(
    trial: Trial, body: Space[nn.Module], *, rate: OneOf[float] = (0.0, 0.1, 0.2)
) -> SkippedBranch:
    """`x + body(x)`, where a body that keeps the shape is skipped with probability `rate` in training.

    Examples:
        >>> body = blocks.stochastic_depth(trial, lambda trial: nn.Linear(4, 4), rate=(0.0, 0.2))
        >>> body(torch.zeros(2, 4)).shape
        torch.Size([2, 4])
    """
    p = decide(trial, "rate", rate)
    return SkippedBranch(body(trial), p)


class SkippedBranch(nn.Module):
    """`x + drop(body(x))`; see `StochasticDepth`."""

    def __init__(self, body: nn.Module, rate: float) -> None:
        super().__init__()
        self.body = body
        self.drop = StochasticDepth(rate) if rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.drop(self.body(x))
        return y


class StochasticDepth(nn.Module):
    """Drops a residual branch, sample by sample, with probability `rate` in training; scales the others up.

    Huang et al., Deep Networks with Stochastic Depth, 2016 (arXiv:1603.09382).

    Examples:
        >>> blocks.StochasticDepth(0.5).eval()(torch.ones(2, 3)).sum()
        tensor(6.)
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(
                f"rate={rate} must be in 0..1, below 1: the probability that a branch is dropped."
            )
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.empty((len(x), *[1] * (x.dim() - 1)), dtype=x.dtype, device=x.device)
        return x * kept.bernoulli_(1 - self.rate).div_(1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
