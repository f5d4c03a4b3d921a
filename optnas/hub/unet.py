"""U-Net (Ronneberger et al., 2015, arXiv:1505.04597), 3D U-Net (Çiçek et al., 2016, arXiv:1606.06650).

Width, depth, convolutions, normalization and the way up are asked, for images and volumes. Published
networks: `UNET` is the original; for one channel and two classes it has 31,030,658 parameters (counted by
hand in the tests; the paper gives none). `UNET_3D`, `dims=3`, has for three channels and three classes the
19,069,955 of its paper, which counts neither scale nor shift of batch normalization, 4,672 more. Convolutions
are padded here, so that the output has the size of the input, where the papers' lose a border.

Examples:
    >>> from optnas.hub import unet
    >>> with torch.device("meta"):
    ...     original = optnas.facts.materialize(unet.network(replay(unet.UNET)), (1, 1, 64, 64))
    >>> optnas.count_params(original)
    31030658
"""

from __future__ import annotations

from typing import Any

from torch import nn

from optnas.space.blocks import NORMS, Norm, OneOf, Upsample, UShape, decide, downsample
from optnas.trial import Trial, scope

_CONVS = (nn.LazyConv1d, nn.LazyConv2d, nn.LazyConv3d)


def network(
    trial: Trial,
    *,
    width: OneOf[int] = (8, 16, 32, 64),
    depth: OneOf[int] = range(1, 6),
    convs: OneOf[int] = (1, 2, 3),
    widening: OneOf[str] = ("first", "last"),
    norm: OneOf[Norm] = NORMS,
    down: OneOf[str] = ("max", "average", "conv"),
    up: OneOf[str] = ("transposed", "nearest", "linear"),
    classes: int = 2,
    dims: int = 2,
) -> nn.Module:
    """The segmenter: `(n, channels, *sizes)` to `(n, classes, *sizes)`, sizes of any kind.

    `depth` times the sizes halve and the width doubles, from `width` on; `convs` 3-wide convolutions follow
    each other on each level. `widening`: "first" doubles the width in the first convolution of a level, and
    the way up halves it, as in U-Net; "last" doubles it in the last one, and the way up keeps it, as in 3D
    U-Net.
    """
    plan = Plan(
        convs=decide(trial, "convs", convs),
        late=decide(trial, "widening", widening) == "last",
        norm=decide(trial, "norm", norm),
        down=decide(trial, "down", down),
        up=decide(trial, "up", up),
        dims=dims,
    )
    wide, levels = decide(trial, "width", width), decide(trial, "depth", depth)
    body = plan.encoder(wide * 2**levels)
    for i in reversed(range(levels)):
        here = wide * 2**i
        body = UShape(
            plan.encoder(here),
            downsample(scope(trial, "level", i), how=plan.down, dims=dims),
            body,
            Upsample(plan.up, None if plan.late else here, bias=not plan.late),
            plan.decoder(here),
        )
    return nn.Sequential(body, _CONVS[dims - 1](classes, 1))


class Plan:
    """What is the same on all levels."""

    def __init__(self, convs: int, late: bool, norm: Norm, down: str, up: str, dims: int) -> None:
        self.convs = convs
        self.late = late
        self.norm = norm
        self.down = down
        self.up = up
        self.dims = dims

    def encoder(self, width: int) -> nn.Module:
        """Convolutions on the way down, the last of which has `width` channels."""
        first = max(1, width // 2) if self.late else width
        return self._convs([first] * (self.convs - 1) + [width])

    def decoder(self, width: int) -> nn.Module:
        """Convolutions on the way up."""
        return self._convs([width] * self.convs)

    def _convs(self, widths: list[int]) -> nn.Module:
        layers: list[nn.Module | None] = []
        for width in widths:
            layers += [_CONVS[self.dims - 1](width, 3, padding=1), self.norm(self.dims), nn.ReLU()]
        return nn.Sequential(*(layer for layer in layers if layer is not None))


def params_of(width: int, depth: int, widening: str, norm: str) -> dict[str, Any]:
    """The answers for two convolutions a level, pooling, and transposed convolutions."""
    return {
        "convs": 2,
        "widening": widening,
        "norm": norm,
        "down": "max",
        "up": "transposed",
        "width": width,
        "depth": depth,
    }


UNET = params_of(64, 4, "first", "none")
UNET_3D = params_of(64, 3, "last", "batch")
