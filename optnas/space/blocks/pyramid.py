"""Feature pyramids: maps of several sizes, each of which gets to know the others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from optnas.space.blocks.decisions import OneOf, decide
from optnas.space.blocks.parts import Inferred
from optnas.trial import Trial


def feature_pyramid(
    trial: Trial,
    *,
    width: OneOf[int] = (64, 128, 256),
    bottom_up: OneOf[bool] = False,
    extra: OneOf[int] = 0,
) -> FeaturePyramid:
    """Maps of any width and size to maps of `width` channels, each of its size; see `FeaturePyramid`.

    Examples:
        >>> maps = [torch.zeros(1, 8, 32, 32), torch.zeros(1, 16, 16, 16)]
        >>> len(blocks.feature_pyramid(trial, width=(4, 8), extra=1)(maps))
        3
    """
    return FeaturePyramid(
        decide(trial, "width", width),
        bottom_up=decide(trial, "bottom_up", bottom_up),
        extra=decide(trial, "extra", extra),
    )


class FeaturePyramid(Inferred):
    """Top-down fusion of maps `(n, channels, height, width)`, given from large to small.

    Each map is projected to `width`, the next smaller one, enlarged, is added, and a 3x3 convolution follows.
    Lin et al., Feature Pyramid Networks, 2017 (arXiv:1612.03144).

    Args:
        bottom_up: then the same from large to small (Liu et al., PANet, 2018, arXiv:1803.01534).
        extra: further maps, each half as large as the last one, as RetinaNet has two
            (Lin et al., 2017, arXiv:1708.02002).

    Examples:
        >>> maps = [torch.zeros(1, 8, 32, 32), torch.zeros(1, 16, 16, 16)]
        >>> [tuple(fused.shape) for fused in blocks.FeaturePyramid(4)(maps)]
        [(1, 4, 32, 32), (1, 4, 16, 16)]
    """

    def __init__(self, width: int, *, bottom_up: bool = False, extra: int = 0) -> None:
        super().__init__()
        self.width = width
        self.bottom_up = bottom_up
        self.extra = extra

    def make(self, *inputs: Tensor) -> None:
        width = self.width

        def convs(n: int, stride: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(width, width, 3, stride, 1) for _ in range(n))

        self.lateral = nn.ModuleList(nn.Conv2d(x.shape[1], width, 1) for x in inputs)
        self.smooth = convs(len(inputs), 1)
        if self.bottom_up:
            self.down = convs(len(inputs) - 1, 2)
            self.fuse = convs(len(inputs) - 1, 1)
        self.further = convs(self.extra, 2)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        self.infer(*maps)
        inner = [project(x) for project, x in zip(self.lateral, maps, strict=True)]
        for i in range(len(inner) - 2, -1, -1):
            inner[i] = inner[i] + functional.interpolate(inner[i + 1], inner[i].shape[2:], mode="nearest")
        outputs = [conv(x) for conv, x in zip(self.smooth, inner, strict=True)]
        if self.bottom_up:
            for i, (down, fuse) in enumerate(zip(self.down, self.fuse, strict=True)):
                small = functional.interpolate(down(outputs[i]), outputs[i + 1].shape[2:], mode="nearest")
                outputs[i + 1] = fuse(outputs[i + 1] + small)
        for i, conv in enumerate(self.further):
            outputs.append(conv(functional.relu(outputs[-1]) if i else outputs[-1]))
        return outputs
