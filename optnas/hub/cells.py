"""Operations that the cells of DARTS and NASNet are made of; sizes become `ceil(size / stride)`.

Examples:
    >>> from optnas.hub import cells
    >>> cells.separable(8, 16, kernel=3, stride=2)(torch.zeros(1, 8, 9, 9)).shape
    torch.Size([1, 16, 5, 5])
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def relu_conv_bn(width: int, out: int, kernel: int = 1, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """ReLU, convolution, batch normalization."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(width, out, kernel, stride, dilation * (kernel // 2), dilation, bias=False),
        nn.BatchNorm2d(out),
    )


def separable(width: int, out: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """ReLU, depthwise convolution, pointwise convolution, batch normalization."""
    reach = dilation * (kernel // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(width, width, kernel, stride, reach, dilation, groups=width, bias=False),
        nn.Conv2d(width, out, 1, bias=False),
        nn.BatchNorm2d(out),
    )


def two_steps(width: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """ReLU, a 1 x k and a k x 1 convolution, batch normalization."""
    pad = kernel // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(width, out, (1, kernel), (1, stride), (0, pad), bias=False),
        nn.Conv2d(out, out, (kernel, 1), (stride, 1), (pad, 0), bias=False),
        nn.BatchNorm2d(out),
    )


def pool(kind: str, kernel: int, stride: int) -> nn.Module:
    """The largest value ("max") or the mean ("avg") of what lies under the kernel; padding does not count."""
    if kind == "max":
        return nn.MaxPool2d(kernel, stride, kernel // 2)
    return nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)


class FactorizedReduction(nn.Module):
    """ReLU, two strided 1x1 convolutions, one of them moved by a pixel, batch normalization of both."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, out // 2, 1, 2, bias=False)
        self.second = nn.Conv2d(width, out - out // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x)
        moved = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        y: Tensor = self.norm(torch.cat([self.first(x), self.second(moved)], 1))
        return y
