"""Temporal convolutional networks (Bai, Kolter & Koltun, 2018, arXiv:1803.01271).

Levels, kernel and width are asked; each level dilates twice as much as the one before. Published networks:
`SEQUENTIAL_MNIST` (66,910 parameters for one channel and ten classes) and `ADDING_600` (70,369 for two
channels and one output); the paper's table 1 says 70 thousand for both. Counts by hand are in the tests.

Examples:
    >>> from optnas.hub import tcn
    >>> tcn.network(replay(tcn.SEQUENTIAL_MNIST))(torch.zeros(2, 1, 100)).shape
    torch.Size([2, 10])
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from optnas.space.blocks import OneOf, TemporalBlock, decide
from optnas.trial import Trial


def network(
    trial: Trial,
    *,
    width: OneOf[int] = range(8, 65),
    levels: OneOf[int] = range(2, 11),
    kernel: OneOf[int] = range(2, 10),
    classes: int = 10,
    causal: OneOf[bool] = True,
    dropout: OneOf[float] = 0.0,
    every_step: bool = False,
) -> TemporalConvNet:
    """Series `(n, channels, length)` to scores `(n, classes)` after the last step.

    `every_step`: to scores `(n, classes, length)` after each step instead. An output sees
    `1 + 2 * (kernel - 1) * (2 ** levels - 1)` steps.
    """
    wide, size = decide(trial, "width", width), decide(trial, "kernel", kernel)
    before, rate = decide(trial, "causal", causal), decide(trial, "dropout", dropout)
    blocks = [
        TemporalBlock(wide, size, 2**i, causal=before, dropout=rate)
        for i in range(decide(trial, "levels", levels))
    ]
    return TemporalConvNet(nn.Sequential(*blocks), wide, classes, every_step)


class TemporalConvNet(nn.Module):
    """Blocks and a linear layer, at the last step or at all of them."""

    def __init__(self, blocks: nn.Module, width: int, classes: int, every_step: bool) -> None:
        super().__init__()
        self.blocks = blocks
        self.classifier = nn.Linear(width, classes)
        self.every_step = every_step

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(x).transpose(1, 2)
        scores: Tensor = self.classifier(y if self.every_step else y[:, -1])
        return scores.transpose(1, 2) if self.every_step else scores


def params_of(width: int, levels: int, kernel: int) -> dict[str, Any]:
    """The answers for width, levels and kernel."""
    return {"width": width, "kernel": kernel, "levels": levels}


SEQUENTIAL_MNIST = params_of(25, 8, 7)
ADDING_600 = params_of(24, 8, 8)
