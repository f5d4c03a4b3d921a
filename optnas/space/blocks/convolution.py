"""Convolutions with normalization and activation: plain, separable, inverted residuals."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from optnas.space.blocks.decisions import Activation, OneOf, decide
from optnas.space.blocks.normalization import Norm, batch_norm
from optnas.space.blocks.parts import Inferred, sequential
from optnas.trial import Trial


def conv(
    trial: Trial,
    *,
    width: OneOf[int] = (16, 32, 64),
    kernel: OneOf[int] = (3, 5),
    stride: OneOf[int] = 1,
    activation: OneOf[Activation] = nn.ReLU,
    norm: OneOf[Norm] = batch_norm,
    dims: int = 2,
) -> nn.Sequential:
    """Convolution, normalization, activation. `width` is the number of output channels.

    Shapes: (n, any, height, width) to (n, width, ceil(height / stride), ceil(width / stride)); with `dims=1`
    (n, any, length) to (n, width, ceil(length / stride)), and with `dims=3` volumes alike. `norm=NORMS` asks
    for the kind of normalization.

    Examples:
        >>> layer = blocks.conv(trial, width=16, kernel=(3, 5), stride=2)  # asks for `kernel`
        >>> layer(torch.zeros(2, 3, 9, 9)).shape
        torch.Size([2, 16, 5, 5])
    """
    filters = decide(trial, "width", width)
    size = decide(trial, "kernel", kernel)
    step = decide(trial, "stride", stride)
    act = decide(trial, "activation", activation)
    normalize = decide(trial, "norm", norm)
    return conv_norm(dims, size, step, act, normalize, width=filters)


def separable_conv(
    trial: Trial,
    *,
    width: OneOf[int] = (16, 32, 64),
    kernel: OneOf[int] = (3, 5),
    stride: OneOf[int] = 1,
    activation: OneOf[Activation] = nn.ReLU,
    norm: OneOf[Norm] = batch_norm,
    dims: int = 2,
) -> nn.Sequential:
    """A depthwise convolution, then a pointwise one, each normalized and activated. Shapes as in `conv`.

    Howard et al., MobileNets, 2017 (arXiv:1704.04861).

    Examples:
        >>> blocks.separable_conv(trial, width=8)(torch.zeros(2, 3, 9, 9)).shape
        torch.Size([2, 8, 9, 9])
    """
    filters = decide(trial, "width", width)
    size = decide(trial, "kernel", kernel)
    step = decide(trial, "stride", stride)
    act = decide(trial, "activation", activation)
    normalize = decide(trial, "norm", norm)
    return sequential(
        depthwise=conv_norm(dims, size, step, act, normalize, depthwise=True),
        pointwise=conv_norm(dims, 1, 1, act, normalize, width=filters),
    )


def mbconv(
    trial: Trial,
    *,
    width: OneOf[int] = (16, 32, 64),
    kernel: OneOf[int] = (3, 5),
    stride: OneOf[int] = 1,
    expansion: OneOf[int] = (3, 6),
    se_ratio: OneOf[float] = 0.25,
    activation: OneOf[Activation] = nn.SiLU,
    norm: OneOf[Norm] = batch_norm,
    dims: int = 2,
) -> nn.Module:
    """An inverted residual with squeeze-excitation. Shapes as in `conv`.

    The input is widened `expansion` times, convolved depthwise, and projected to `width` channels; with
    stride 1 and equal widths the input is added. `se_ratio` is the width of the squeeze as a fraction of the
    block's input width; 0 leaves squeeze-excitation out.

    Sandler et al., MobileNetV2, 2018 (arXiv:1801.04381); Tan and Le, EfficientNet, 2019 (arXiv:1905.11946).

    Examples:
        >>> blocks.mbconv(trial, width=16, expansion=(2, 4))(torch.zeros(2, 16, 9, 9)).shape
        torch.Size([2, 16, 9, 9])
    """
    filters = decide(trial, "width", width)
    size = decide(trial, "kernel", kernel)
    step = decide(trial, "stride", stride)
    times = decide(trial, "expansion", expansion)
    ratio = decide(trial, "se_ratio", se_ratio)
    act = decide(trial, "activation", activation)
    normalize = decide(trial, "norm", norm)
    body = sequential(
        expand=conv_norm(dims, 1, 1, act, normalize, expansion=times) if times != 1 else None,
        depthwise=conv_norm(dims, size, step, act, normalize, depthwise=True),
        squeeze_excitation=SqueezeExcitation(ratio / times) if ratio else None,
        project=conv_norm(dims, 1, 1, None, normalize, width=filters),
    )
    return _AddIfSame(body) if step == 1 else body


class SqueezeExcitation(Inferred):
    """Scales each channel by a gate in 0..1 that sees all channels' means.

    The squeeze is `ratio` times the number of channels wide, at least 1.
    Hu et al., Squeeze-and-Excitation Networks, 2018 (arXiv:1709.01507).

    Examples:
        >>> blocks.SqueezeExcitation(0.25)(torch.zeros(2, 16, 5, 5)).shape
        torch.Size([2, 16, 5, 5])
    """

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio

    def make(self, *inputs: Tensor) -> None:
        channels = inputs[0].shape[1]
        squeezed = max(1, round(self.ratio * channels))
        self.gate = sequential(
            reduce=nn.Linear(channels, squeezed),
            activation=nn.ReLU(),
            expand=nn.Linear(squeezed, channels),
            sigmoid=nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        self.infer(x)
        scale: Tensor = self.gate(x.flatten(2).mean(2))
        return x * scale.reshape(*scale.shape, *[1] * (x.dim() - 2))


class _AddIfSame(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if x.shape[1:] == y.shape[1:] else y


class _RelativeWidth:
    """Mixed into torch's lazy convolutions: output channels are a multiple of the input's."""

    multiple: int
    depthwise: bool

    def initialize_parameters(self, x: Tensor, *args: Any, **kwargs: Any) -> None:
        # Attributes of the plain convolution that this becomes; ours go.
        self.out_channels = x.shape[1] * self.multiple
        self.groups = x.shape[1] if self.depthwise else 1
        del self.multiple, self.depthwise
        super().initialize_parameters(x, *args, **kwargs)  # type: ignore[misc]  # the lazy convolution's


class _RelativeConv1d(_RelativeWidth, nn.LazyConv1d):  # type: ignore[misc]  # torch ignores its own bases too
    pass


class _RelativeConv2d(_RelativeWidth, nn.LazyConv2d):  # type: ignore[misc]  # as above
    pass


class _RelativeConv3d(_RelativeWidth, nn.LazyConv3d):  # type: ignore[misc]  # as above
    pass


_PADS: tuple[Any, ...] = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
_CONVS = (nn.LazyConv1d, nn.LazyConv2d, nn.LazyConv3d)
_RELATIVE = (_RelativeConv1d, _RelativeConv2d, _RelativeConv3d)


def conv_norm(
    dims: int,
    kernel: int,
    stride: int,
    activation: Activation | None,
    norm: Norm,
    *,
    width: int | None = None,
    expansion: int = 1,
    depthwise: bool = False,
) -> nn.Sequential:
    """`width` output channels; without it, `expansion` times those of the input."""
    if dims not in (1, 2, 3):
        raise ValueError(
            f"dims={dims} is not supported; use 1 for (n, channels, length), 2 for images, 3 for volumes."
        )
    # A convolution alone pads evenly, which keeps the size for odd kernels only.
    odd = kernel % 2 == 1
    low, high = (kernel - 1) // 2, kernel // 2
    padding = low if odd else 0
    normalization = norm(dims)
    bias = normalization is None
    layer: nn.Module
    if width is not None:
        layer = _CONVS[dims - 1](width, kernel, stride, padding, bias=bias)
    else:
        relative = _RELATIVE[dims - 1](0, kernel, stride, padding, bias=bias)
        relative.multiple, relative.depthwise = expansion, depthwise
        layer = relative
    return sequential(
        pad=None if odd else _PADS[dims - 1]((low, high) * dims, 0.0),
        conv=layer,
        norm=normalization,
        activation=activation() if activation is not None else None,
    )
