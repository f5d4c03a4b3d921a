"""RetinaNet, a one-stage detector (Lin et al., Focal Loss, ICCV 2017, arXiv:1708.02002).

A ResNet, a feature pyramid and two heads that all its maps share; depths and widths are asked. `R50`,
ResNet-50 with a pyramid of 256 channels and heads of four convolutions, has 34,014,999 parameters for 91
classes as torchvision documents `retinanet_resnet50_fpn`, which freezes the backbone's batch normalization
and so does not count its 53,120 scales and shifts. The paper gives no count.

Examples:
    >>> from optnas.hub import retinanet
    >>> retinanet.anchors(64, 64).shape[1]
    4
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from optnas.hub import resnet
from optnas.space.blocks import FeaturePyramid, OneOf, decide
from optnas.trial import Trial, scope

SCALES = tuple(2 ** (i / 3) for i in range(3))
RATIOS = (0.5, 1.0, 2.0)
"""Sizes relative to the smallest anchor of a map, and height through width."""


def network(
    trial: Trial,
    *,
    classes: int = 91,
    depth: OneOf[int] = range(1, 24),
    block: OneOf[str] = resnet.BLOCKS,
    groups: OneOf[str] = tuple(resnet.GROUPS),
    backbone_width: int = 64,
    width: OneOf[int] = range(64, 257, 64),
    head_depth: OneOf[int] = range(1, 5),
    bottom_up: OneOf[bool] = (False, True),
    smallest: float = 32.0,
) -> Detector:
    """The detector of images `(n, 3, height, width)`; see `Detector` for what it returns.

    `smallest` is the side in pixels of the smallest square anchor, as `anchors` says. An object much smaller
    than that is learned from hardly any anchor, so small images need a smaller one.
    """
    features = resnet.Features(
        scope(trial, "backbone"), depth=depth, block=block, groups=groups, width=backbone_width, every=True
    )
    wide = decide(trial, "width", width)
    pyramid = FeaturePyramid(wide, bottom_up=decide(trial, "bottom_up", bottom_up), extra=2)
    return Detector(features, pyramid, wide, decide(trial, "head_depth", head_depth), classes, smallest)


class Detector(nn.Module):
    """Scores `(n, anchors, classes)`, offsets `(n, anchors, 4)` and the `anchors` `(anchors, 4)` of all maps.

    Scores are logits of a sigmoid each; `optnas.tasks.Detection` says what offsets are and trains it, and
    `optnas.tasks.detect` says which boxes that are.
    """

    def __init__(
        self,
        features: nn.Module,
        pyramid: nn.Module,
        width: int,
        head_depth: int,
        classes: int,
        smallest: float = 32.0,
    ) -> None:
        super().__init__()
        if not smallest > 0:
            raise ValueError(f"smallest={smallest} must be above 0, in pixels.")
        self.smallest = smallest
        self.features = features
        self.pyramid = pyramid
        n_anchors = len(SCALES) * len(RATIOS)
        self.scores = _head(width, head_depth, n_anchors, classes)
        self.offsets = _head(width, head_depth, n_anchors, 4)
        # In the beginning every anchor is background with probability 0.99, as in section 4.1.
        nn.init.constant_(self.scores.get_parameter(f"{len(self.scores) - 1}.bias"), -math.log(99))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.pyramid(self.features(x)[1:])
        n_anchors = len(SCALES) * len(RATIOS)

        def listed(head: nn.Module) -> Tensor:
            parts = [head(one).unflatten(1, (n_anchors, -1)).permute(0, 3, 4, 1, 2) for one in maps]
            return torch.cat([part.flatten(1, 3) for part in parts], 1)

        places = anchors(x.shape[2], x.shape[3], self.smallest).to(x)
        return listed(self.scores), listed(self.offsets), places


def anchors(height: int, width: int, smallest: float = 32.0) -> Tensor:
    """Boxes `(anchors, 4)` as x1, y1, x2, y2 in pixels of an image of that size, in `Detector`'s order.

    Nine for each place of each map, whose strides are 8, 16, 32, 64 and 128 pixels; `smallest` is the side of
    the smallest square of the first map and doubles with each.
    """
    shapes = torch.tensor([[s / r**0.5, s * r**0.5] for s, r in product(SCALES, RATIOS)]) * smallest / 2
    boxes = []
    for level in range(5):
        stride = 8 * 2**level
        # Three convolutions or poolings of stride 2 come before the first map, then one for each map.
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        middle = (torch.stack([x, y], -1).flatten(0, 1)[:, None] + 0.5) * stride
        half = shapes * 2**level
        boxes.append(torch.cat([middle - half, middle + half], -1).flatten(0, 1))
    return torch.cat(boxes)


def _head(width: int, depth: int, n_anchors: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    layers.append(nn.Conv2d(width, n_anchors * outputs, 3, padding=1))
    # The 0.01 of the paper belongs to its 256 channels. Fewer channels add up to less, and after five layers
    # almost nothing of the image is left. So each layer shrinks what it is given as much as in the paper.
    std = 0.01 * (256 / width) ** 0.5
    for layer in layers[::2]:
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def params_of(
    depths: Sequence[int], *, block: str = "bottleneck", groups: str = "1x64", width: int = 256
) -> dict[str, Any]:
    """The answers for a backbone, a pyramid's width, and heads of four convolutions."""
    backbone = resnet.params_of(block, (depths[0], depths[1], depths[2], depths[3]), groups)
    return {
        **{f"backbone.{name}": answer for name, answer in backbone.items()},
        "width": width,
        "bottom_up": False,
        "head_depth": 4,
    }


R50 = params_of((3, 4, 6, 3))
R101 = params_of((3, 4, 23, 3))
