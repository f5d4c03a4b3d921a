"""ResNet (He et al., CVPR 2016, arXiv:1512.03385), ResNeXt and Wide ResNet among its variants.

Four stages; depths and the kind of block are asked. Published networks and their parameters, as torchvision
documents them: `R18` 11,689,512, `R34` 21,797,672, `R50` 25,557,032, `R101` 44,549,160, `R152` 60,192,808,
`X50` (ResNeXt-50 32x4d, arXiv:1611.05431) 25,028,904, `WIDE50` (Wide ResNet-50-2, arXiv:1605.07146)
68,883,240.

Examples:
    >>> from optnas.hub import resnet
    >>> with torch.device("meta"):
    ...     r18 = optnas.facts.materialize(resnet.network(replay(resnet.R18)), (1, 3, 64, 64))
    >>> optnas.count_params(r18)
    11689512
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from optnas.space.blocks import OneOf, decide
from optnas.trial import Trial, scope

BLOCKS = ("basic", "bottleneck")
GROUPS = {"1x64": (1, 64), "1x128": (1, 128), "32x4": (32, 4)}
"""How a bottleneck's 3x3 convolution is cut: groups x channels of each, in the first stage."""


def network(
    trial: Trial,
    *,
    depth: OneOf[int] = range(1, 37),
    block: OneOf[str] = BLOCKS,
    groups: OneOf[str] = tuple(GROUPS),
    width: int = 64,
    classes: int = 1000,
    small_images: bool = False,
) -> nn.Sequential:
    """The classifier: `(n, channels, height, width)` to `(n, classes)`.

    `block` for all stages, `groups` where it is a bottleneck, `stage.<i>.depth` for each. `small_images`: a
    3x3 convolution instead of one of stride 2 and a pooling.
    """
    return nn.Sequential(
        Features(trial, depth=depth, block=block, groups=groups, width=width, small_images=small_images),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LazyLinear(classes),
    )


class Features(nn.Module):
    """All stages. With `every` it returns the outputs of all four, from large to small, else the last one."""

    def __init__(
        self,
        trial: Trial,
        *,
        depth: OneOf[int] = range(1, 37),
        block: OneOf[str] = BLOCKS,
        groups: OneOf[str] = tuple(GROUPS),
        width: int = 64,
        small_images: bool = False,
        every: bool = False,
    ) -> None:
        super().__init__()
        kind = decide(trial, "block", block)
        cut = decide(trial, "groups", groups) if kind == "bottleneck" else "1x64"
        self.every = every
        kernel, stride = (3, 1) if small_images else (7, 2)
        self.stem = nn.Sequential(
            nn.LazyConv2d(width, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.pool = nn.Identity() if small_images else nn.MaxPool2d(3, 2, 1)
        self.stages = nn.ModuleList()
        given, wide = width, width
        for i in range(4):
            blocks: list[nn.Module] = []
            for j in range(decide(scope(trial, "stage", i), "depth", depth)):
                blocks.append(Block(given, wide, 2 if i and j == 0 else 1, kind, cut))
                given = wide * (1 if kind == "basic" else 4)
            self.stages.append(nn.Sequential(*blocks))
            wide *= 2

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        x = self.pool(self.stem(x))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps if self.every else x


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1 to four times the width; normalized; and a shortcut."""

    def __init__(self, given: int, width: int, stride: int, kind: str, cut: str) -> None:
        super().__init__()
        if kind == "basic":
            out = width
            self.body = nn.Sequential(
                *_conv_bn(given, width, 3, stride), nn.ReLU(), *_conv_bn(width, width, 3)
            )
        else:
            n, each = GROUPS[cut]
            inner, out = max(1, width * each // 64) * n, 4 * width
            self.body = nn.Sequential(
                *_conv_bn(given, inner, 1),
                nn.ReLU(),
                *_conv_bn(inner, inner, 3, stride, n),
                nn.ReLU(),
                *_conv_bn(inner, out, 1),
            )
        changes = stride > 1 or given != out
        self.shortcut = nn.Sequential(*_conv_bn(given, out, 1, stride)) if changes else nn.Identity()
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return y


def _conv_bn(given: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(given, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out)]


def params_of(block: str, depths: tuple[int, int, int, int], groups: str = "1x64") -> dict[str, Any]:
    """The answers for a kind of block and the depth of each stage."""
    kinds = {"block": block} if block == "basic" else {"block": block, "groups": groups}
    return {**kinds, **{f"stage.{i}.depth": depth for i, depth in enumerate(depths)}}


R18 = params_of("basic", (2, 2, 2, 2))
R34 = params_of("basic", (3, 4, 6, 3))
R50 = params_of("bottleneck", (3, 4, 6, 3))
R101 = params_of("bottleneck", (3, 4, 23, 3))
R152 = params_of("bottleneck", (3, 8, 36, 3))
X50 = params_of("bottleneck", (3, 4, 6, 3), "32x4")
WIDE50 = params_of("bottleneck", (3, 4, 6, 3), "1x128")
