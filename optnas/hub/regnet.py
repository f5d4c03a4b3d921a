"""RegNet, widths on a quantized line (Radosavovic et al., Designing Network Design Spaces, CVPR 2020).

arXiv:2003.13678. Depth, the line and the groups are asked. Published networks and their parameters, as
torchvision documents them: `X_400MF` 5,495,976, `X_800MF` 7,259,656, `X_1_6GF` 9,190,136, `Y_400MF`
4,344,144, `Y_800MF` 6,432,512, `Y_1_6GF` 11,202,430; in millions, tables 2 and 3 of the paper say the same
but for rounding.

Examples:
    >>> from optnas.hub import regnet
    >>> with torch.device("meta"):
    ...     small = optnas.facts.materialize(regnet.network(replay(regnet.Y_400MF)), (1, 3, 64, 64))
    >>> optnas.count_params(small)
    4344144
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from optnas.hub.mobilenetv3 import divisible
from optnas.trial import Trial


def network(
    trial: Trial, *, classes: int = 1000, max_depth: int = 28, max_width: int = 256, max_slope: float = 48.0
) -> nn.Sequential:
    """The classifier: `(n, 3, height, width)` to `(n, classes)`.

    Block j would be `initial_width + slope * j` wide; that is rounded to the nearest power of `multiplier`
    times `initial_width` and then to a multiple of 8, and blocks of equal width make a stage, of which the
    first block has stride 2. `group_width` is that of the 3x3 convolutions, and where `squeeze` is true,
    RegNetY, a gate follows them. (The paper's intervals are wider: depth below 64, widths and slope up to
    256.)
    """
    depth = trial.suggest_int("depth", 4, max_depth)
    initial = trial.suggest_int("initial_width", 8, max_width, step=8)
    slope = trial.suggest_float("slope", 8.0, max_slope)
    multiplier = trial.suggest_float("multiplier", 2.0, 3.0)
    group = trial.suggest_int("group_width", 8, 64, step=8)
    squeeze = trial.suggest_categorical("squeeze", [False, True])
    given, layers = 32, [*_conv_bn(3, 32, 3, 2), nn.ReLU()]
    last = 0
    for width in widths(depth, initial, slope, multiplier, group):
        layers.append(Block(given, width, 1 if width == last else 2, min(group, width), squeeze))
        given = last = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(given, classes))


def widths(depth: int, initial: int, slope: float, multiplier: float, group: int) -> list[int]:
    """The width of each block: on the quantized line, and a multiple of the group width."""
    found = []
    for j in range(depth):
        exponent = round(math.log((initial + slope * j) / initial) / math.log(multiplier))
        width = round(initial * multiplier**exponent / 8) * 8
        found.append(divisible(width, min(group, width)))
    return found


class Block(nn.Module):
    """1x1, grouped 3x3, gate, 1x1, all of one width, and a shortcut."""

    def __init__(self, given: int, width: int, stride: int, group: int, squeeze: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_bn(given, width, 1),
            nn.ReLU(),
            *_conv_bn(width, width, 3, stride, width // group),
            nn.ReLU(),
            *([SqueezeExcitation(width, round(given / 4))] if squeeze else []),
            *_conv_bn(width, width, 1),
        )
        changes = stride > 1 or given != width
        self.shortcut = nn.Sequential(*_conv_bn(given, width, 1, stride)) if changes else nn.Identity()
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return y


class SqueezeExcitation(nn.Module):
    """A gate for each channel."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu())
        y: Tensor = x * gate.sigmoid()
        return y


def _conv_bn(given: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(given, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out)]


def params_of(
    depth: int,
    initial_width: int,
    slope: float,
    multiplier: float,
    group_width: int,
    *,
    squeeze: bool = False,
) -> dict[str, Any]:
    """The answers for the numbers of the paper: d, w_0, w_a, w_m, g."""
    return {
        "depth": depth,
        "initial_width": initial_width,
        "slope": slope,
        "multiplier": multiplier,
        "group_width": group_width,
        "squeeze": squeeze,
    }


X_400MF = params_of(22, 24, 24.48, 2.54, 16)
X_800MF = params_of(16, 56, 35.73, 2.28, 16)
X_1_6GF = params_of(18, 80, 34.01, 2.25, 24)
Y_400MF = params_of(16, 48, 27.89, 2.09, 8, squeeze=True)
Y_800MF = params_of(14, 56, 38.84, 2.4, 16, squeeze=True)
Y_1_6GF = params_of(27, 48, 20.71, 2.65, 24, squeeze=True)
