"""ConvNeXt (Liu et al., A ConvNet for the 2020s, CVPR 2022, arXiv:2201.03545).

Four stages of large depthwise convolutions; width, depths and kernel are asked. Published networks and their
parameters, as torchvision documents them: `TINY` 28,589,128, `SMALL` 50,223,688, `BASE` 88,591,464, `LARGE`
197,767,336; 29, 50, 89 and 198 million in the paper's table 1.

Examples:
    >>> from optnas.hub import convnext
    >>> with torch.device("meta"):
    ...     tiny = optnas.facts.materialize(convnext.network(replay(convnext.TINY)), (1, 3, 64, 64))
    >>> optnas.count_params(tiny)
    28589128
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from optnas.space.blocks import ChannelNorm, OneOf, StochasticDepth, decide
from optnas.trial import Trial, scope


def network(
    trial: Trial,
    *,
    width: OneOf[int] = range(32, 193, 32),
    depth: OneOf[int] = range(1, 28),
    kernel: OneOf[int] = (3, 5, 7, 9),
    patch: int = 4,
    classes: int = 1000,
    drop_path: float = 0.0,
) -> nn.Module:
    """The classifier: `(n, 3, height, width)` to `(n, classes)`; at least `8 * patch` pixels a side.

    `width` is that of the first stage, which doubles with each; `kernel` is that of all blocks,
    `stage.<i>.depth` is asked for each stage. `drop_path` is the probability of dropping the last block's
    branch; earlier ones are dropped less, in proportion.
    """
    wide = decide(trial, "width", width)
    size = decide(trial, "kernel", kernel)
    depths = [decide(scope(trial, "stage", i), "depth", depth) for i in range(4)]
    layers: list[nn.Module] = [nn.Conv2d(3, wide, patch, patch), ChannelNorm()]
    n_blocks, done = sum(depths), 0
    for i, blocks in enumerate(depths):
        if i:
            layers += [ChannelNorm(), nn.Conv2d(wide, 2 * wide, 2, 2)]
            wide *= 2
        for _ in range(blocks):
            layers.append(Block(wide, size, drop_path * done / max(1, n_blocks - 1)))
            done += 1
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), ChannelNorm(), nn.Flatten(), nn.Linear(wide, classes)
    )


class Block(nn.Module):
    """Depthwise convolution, layer normalization, an inverted bottleneck, a scale, a shortcut."""

    def __init__(self, width: int, kernel: int, drop_path: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.widen = nn.Linear(width, 4 * width)
        self.activation = nn.GELU()
        self.project = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))
        self.drop = StochasticDepth(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).movedim(1, -1))
        y = self.scale * self.project(self.activation(self.widen(y)))
        out: Tensor = x + self.drop(y.movedim(-1, 1))
        return out


def params_of(width: int, depths: tuple[int, int, int, int], kernel: int = 7) -> dict[str, Any]:
    """The answers for a width and the depth of each stage."""
    return {
        "width": width,
        "kernel": kernel,
        **{f"stage.{i}.depth": depth for i, depth in enumerate(depths)},
    }


TINY = params_of(96, (3, 3, 9, 3))
SMALL = params_of(96, (3, 3, 27, 3))
BASE = params_of(128, (3, 3, 27, 3))
LARGE = params_of(192, (3, 3, 27, 3))
