"""InceptionTime, inception modules for time series (Ismail Fawaz et al., DMKD 2020, arXiv:1909.04939).

Depth, width, kernels and bottleneck are asked. `INCEPTION` is one network of the paper's ensemble of five:
420,192 parameters for one channel without the classifier, as Ismail-Fawaz et al., LITE, 2023
(arXiv:2309.15485) count it in their table of sizes; the classifier adds `128 * classes + classes`. The
paper itself publishes no count.

Examples:
    >>> from optnas.hub import inception_time
    >>> series = inception_time.network(replay(inception_time.INCEPTION), classes=2)
    >>> series(torch.zeros(2, 1, 64)).shape
    torch.Size([2, 2])
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from optnas.space.blocks import Inferred, OneOf, decide
from optnas.trial import Trial


def network(
    trial: Trial,
    *,
    depth: OneOf[int] = range(1, 10),
    width: OneOf[int] = (8, 16, 32, 64),
    kernel: OneOf[int] = (10, 20, 40, 80),
    bottleneck: OneOf[int] = (16, 32, 64),
    classes: int = 10,
) -> nn.Sequential:
    """Series `(n, channels, length)` to `(n, classes)`.

    `depth` modules; every third one ends with a shortcut from three modules before. Each module concatenates
    three convolutions, with the longest `kernel`, half and a quarter of it, and a pooled one, each of `width`
    channels, after a projection to `bottleneck` channels.
    """
    n_modules, wide = decide(trial, "depth", depth), decide(trial, "width", width)
    longest, narrow = decide(trial, "kernel", kernel), decide(trial, "bottleneck", bottleneck)
    layers: list[nn.Module] = []
    waiting: list[nn.Module] = []
    for _ in range(n_modules):
        waiting.append(Module(wide, longest, narrow))
        if len(waiting) == 3:
            layers.append(Shortcut(nn.Sequential(*waiting), 4 * wide))
            waiting = []
    return nn.Sequential(
        *layers, *waiting, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4 * wide, classes)
    )


class Module(Inferred):
    """An inception module: `(n, any, length)` to `(n, 4 * width, length)`."""

    def __init__(self, width: int, kernel: int, bottleneck: int) -> None:
        super().__init__()
        self.width = width
        self.kernels = [max(1, kernel // 2**i) for i in range(3)]
        self.bottleneck = bottleneck
        self.pool = nn.MaxPool1d(3, 1, 1)
        self.norm = nn.BatchNorm1d(4 * width)
        self.activation = nn.ReLU()

    def make(self, *inputs: Tensor) -> None:
        given = inputs[0].shape[1]
        narrow = self.bottleneck if given > 1 else given
        self.project: nn.Module = nn.Identity()
        if given > 1:
            self.project = nn.Conv1d(given, narrow, 1, bias=False)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.ConstantPad1d(((size - 1) // 2, size // 2), 0.0),
                nn.Conv1d(narrow, self.width, size, bias=False),
            )
            for size in self.kernels
        )
        self.pooled = nn.Conv1d(given, self.width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        self.infer(x)
        narrow = self.project(x)
        parts = [*(branch(narrow) for branch in self.branches), self.pooled(self.pool(x))]
        y: Tensor = self.activation(self.norm(torch.cat(parts, 1)))
        return y


class Shortcut(nn.Module):
    """Adds the input, projected and normalized, to what the body makes of it; activated."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Sequential(nn.LazyConv1d(width, 1, bias=False), nn.BatchNorm1d(width))
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return y


INCEPTION: dict[str, Any] = {"depth": 6, "width": 32, "kernel": 40, "bottleneck": 32}
