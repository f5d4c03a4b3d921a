"""MobileNetV3 (Howard et al., ICCV 2019, arXiv:1905.02244) in the space of Once-for-All (Cai et al., 2020).

Five stages of inverted residuals; depth, kernels and expansions are asked, as in Once-for-All
(arXiv:1908.09791), with the two expansions more that MobileNetV3-Large has. `network(replay(LARGE))` is
MobileNetV3-Large: 5,483,032 parameters, 5.4 million in the paper's table 3; the count is torchvision's.

Examples:
    >>> from optnas.hub import mobilenetv3
    >>> with torch.device("meta"):
    ...     large = mobilenetv3.network(replay(mobilenetv3.LARGE))
    >>> optnas.count_params(large)
    5483032
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from optnas.space.blocks import OneOf, decide
from optnas.trial import Trial, scope

STAGES = (
    (24, 2, False, False),
    (40, 2, True, False),
    (80, 2, False, True),
    (112, 1, True, True),
    (160, 2, True, True),
)
"""Width, stride of the first block, squeeze-excitation, hard swish, for each stage of MobileNetV3-Large."""


def network(
    trial: Trial,
    *,
    depth: OneOf[int] = (2, 3, 4),
    kernel: OneOf[int] = (3, 5, 7),
    expansion: OneOf[float] = (2.3, 2.5, 3, 4, 6),
    width_multiplier: float = 1.0,
    classes: int = 1000,
    dropout: float = 0.2,
) -> nn.Module:
    """The classifier: `(n, 3, height, width)` to `(n, classes)`.

    `stage.<i>.depth` blocks in each stage, `stage.<i>.<j>.kernel` and `.expansion` for each block: the hidden
    width is the expansion times the input's, rounded to a multiple of 8. The Once-for-All network asks for
    depths of 2 to 4, kernels of 3, 5, 7, expansions of 3, 4, 6.
    """

    def wide(width: float) -> int:
        return divisible(width * width_multiplier)

    width = wide(16)
    layers: list[nn.Module] = [
        _conv_bn(3, width, 3, 2, nn.Hardswish),
        InvertedResidual(width, width, width, 3, 1, False, nn.ReLU),
    ]
    for i, (out, stride, squeeze, hard) in enumerate(STAGES):
        stage = scope(trial, "stage", i)
        for j in range(decide(stage, "depth", depth)):
            block = scope(stage, j)
            size, times = decide(block, "kernel", kernel), decide(block, "expansion", expansion)
            activation = nn.Hardswish if hard else nn.ReLU
            step = stride if j == 0 else 1
            hidden = divisible(width * times)
            layers.append(InvertedResidual(width, hidden, wide(out), size, step, squeeze, activation))
            width = wide(out)
    return nn.Sequential(
        *layers,
        _conv_bn(width, 6 * width, 1, 1, nn.Hardswish),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6 * width, wide(1280)),
        nn.Hardswish(),
        nn.Dropout(dropout),
        nn.Linear(wide(1280), classes),
    )


def divisible(width: float, by: int = 8) -> int:
    """The nearest multiple of `by`, at least `by` and not below nine tenths of the width."""
    rounded = max(by, int(width + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * width else rounded


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze-excitation, projection; the input is added where it fits."""

    def __init__(
        self,
        width: int,
        hidden: int,
        out: int,
        kernel: int,
        stride: int,
        squeeze: bool,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *([_conv_bn(width, hidden, 1, 1, activation)] if hidden != width else []),
            _conv_bn(hidden, hidden, kernel, stride, activation, groups=hidden),
            *([SqueezeExcitation(hidden)] if squeeze else []),
            _conv_bn(hidden, out, 1, 1, None),
        )
        self.adds = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.adds else y


class SqueezeExcitation(nn.Module):
    """A gate for each channel, a hard sigmoid, from a quarter as many hidden units."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = divisible(width / 4)
        self.reduce = nn.Conv2d(width, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu())
        return x * functional.hardsigmoid(gate)


def _conv_bn(
    width: int,
    out: int,
    kernel: int,
    stride: int,
    activation: Callable[[], nn.Module] | None,
    groups: int = 1,
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out, eps=1e-3, momentum=0.01),
        *([activation()] if activation is not None else []),
    )


def params_of(stages: Sequence[Sequence[tuple[int, float]]]) -> dict[str, Any]:
    """The answers for (kernel, expansion) of each block of each stage."""
    params: dict[str, Any] = {}
    for i, blocks in enumerate(stages):
        params[f"stage.{i}.depth"] = len(blocks)
        for j, (kernel, expansion) in enumerate(blocks):
            params |= {f"stage.{i}.{j}.kernel": kernel, f"stage.{i}.{j}.expansion": expansion}
    return params


LARGE = params_of(
    [
        [(3, 4), (3, 3)],
        [(5, 3), (5, 3), (5, 3)],
        [(3, 6), (3, 2.5), (3, 2.3), (3, 2.3)],
        [(3, 6), (3, 6)],
        [(5, 6), (5, 6), (5, 6)],
    ]
)
"""MobileNetV3-Large."""
