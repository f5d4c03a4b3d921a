"""Temporal convolution of `(n, channels, length)`: dilated, causal or centered."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from optnas.space.blocks.decisions import Activation, OneOf, decide
from optnas.space.blocks.parts import Inferred
from optnas.space.blocks.shortcuts import Residual
from optnas.trial import Trial


def temporal_block(
    trial: Trial,
    *,
    width: OneOf[int] = (16, 32, 64),
    kernel: OneOf[int] = (3, 5, 7),
    dilation: OneOf[int] = (1, 2, 4, 8),
    causal: OneOf[bool] = True,
    dropout: OneOf[float] = 0.0,
    activation: OneOf[Activation] = nn.ReLU,
) -> TemporalBlock:
    """Two dilated convolutions and a shortcut: `(n, any, length)` to `(n, width, length)`.

    See `TemporalBlock`.

    Examples:
        >>> blocks.temporal_block(trial, width=8, kernel=(3, 5))(torch.zeros(2, 1, 50)).shape
        torch.Size([2, 8, 50])
    """
    return TemporalBlock(
        decide(trial, "width", width),
        decide(trial, "kernel", kernel),
        decide(trial, "dilation", dilation),
        causal=decide(trial, "causal", causal),
        dropout=decide(trial, "dropout", dropout),
        activation=decide(trial, "activation", activation),
    )


class TemporalBlock(nn.Module):
    """The residual block of a temporal convolutional network (Bai et al., 2018, arXiv:1803.01271).

    Twice: a dilated convolution with weight normalization, the activation, dropout; the shortcut projects
    where the width changes, with a bias as in the paper's code; the sum is activated.

    Examples:
        >>> blocks.TemporalBlock(8, kernel=3, dilation=2)(torch.zeros(2, 1, 50)).shape
        torch.Size([2, 8, 50])
    """

    def __init__(
        self,
        width: int,
        kernel: int,
        dilation: int = 1,
        *,
        causal: bool = True,
        dropout: float = 0.0,
        activation: Activation = nn.ReLU,
    ) -> None:
        super().__init__()

        def half() -> list[nn.Module]:
            conv = TemporalConv(width, kernel, dilation, causal=causal, weight_normalized=True)
            return [conv, activation(), *([nn.Dropout(dropout)] if dropout else [])]

        self.body = Residual(nn.Sequential(*half(), *half()), bias=True)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.body(x))
        return y


class TemporalConv(Inferred):
    """A convolution of `(n, any, length)` to `(n, width, ceil(length / stride))`, dilated.

    Args:
        causal: an output reads its own position and earlier ones; otherwise its kernel is centered, with one
            more position after than before where the kernel is even.
        weight_normalized: direction and length of each channel's weights are separate parameters (Salimans &
            Kingma, 2016, arXiv:1602.07868).

    Examples:
        >>> blocks.TemporalConv(8, kernel=3, stride=2)(torch.zeros(2, 1, 50)).shape
        torch.Size([2, 8, 25])
    """

    def __init__(
        self,
        width: int,
        kernel: int,
        dilation: int = 1,
        *,
        stride: int = 1,
        causal: bool = True,
        bias: bool = True,
        weight_normalized: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.kernel = kernel
        self.dilation = dilation
        self.stride = stride
        self.bias = bias
        self.weight_normalized = weight_normalized
        reach = (kernel - 1) * dilation
        self.before = reach if causal else reach // 2
        self.after = reach - self.before

    def make(self, *inputs: Tensor) -> None:
        conv = nn.Conv1d(
            inputs[0].shape[1], self.width, self.kernel, self.stride, dilation=self.dilation, bias=self.bias
        )
        self.conv = conv
        if self.weight_normalized:
            self.scale = nn.Parameter(_length(conv.weight.detach()))

    def forward(self, x: Tensor) -> Tensor:
        self.infer(x)
        x = functional.pad(x, (self.before, self.after))
        weight = self.conv.weight
        if self.weight_normalized:
            weight = weight * (self.scale / _length(weight))
        y: Tensor = functional.conv1d(x, weight, self.conv.bias, self.stride, dilation=self.dilation)
        return y


def _length(weight: Tensor) -> Tensor:
    """Of each output channel's weights, `(channels, 1, 1)`."""
    length: Tensor = weight.flatten(1).norm(dim=1)
    return length[:, None, None]
