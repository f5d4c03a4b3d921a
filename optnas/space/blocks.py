"""Blocks for convolutional networks: functions of a trial whose input width is never asked for.

A block infers what it gets at its first forward pass, as torch's lazy modules do, so any block may follow
any other. Run a model once on an example (any device, meta included) before its parameters are used or
counted; from then on it consists of plain torch layers. Spatial sizes follow one rule: a block of stride s
turns a size n into ceil(n / s).

Every argument that shapes a block is a decision: one value is fixed, several are asked of the trial under the
argument's name (see `decide`). As candidates and parts of nodes, use `functools.partial(conv, width=32)`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn

from optnas.trial import Space, Trial

T = TypeVar("T")
OneOf: TypeAlias = T | Sequence[T] | Mapping[str, T]
Activation = Callable[[], nn.Module]


def decide(trial: Trial, name: str, value: OneOf[T]) -> T:
    """The value of a decision: asked of the trial under `name` where there are several, else `value` itself.

    - `32`: fixed, nothing is asked
    - `(16, 32, 64)`, a tuple or list: one of them, without an order
    - `range(16, 65, 16)`: an integer on that grid, in order; the end is excluded, as ever in Python
    - `{"relu": nn.ReLU, "silu": nn.SiLU}`: one of the dict's values, stored under its key

    Raises:
        ValueError: there is nothing to choose from.
        TypeError: a tuple or list holds what a study cannot store (use a dict).
    """
    options: Any = value
    if not isinstance(options, tuple | list | range | Mapping):
        return cast(T, options)
    if not options:
        raise ValueError(f"{name}={options!r} offers nothing to choose from; give one value, or several.")
    if isinstance(options, Mapping):
        return cast(T, options[trial.suggest_categorical(name, list(options))])
    if isinstance(options, range):
        return cast(T, trial.suggest_int(name, min(options), max(options), step=abs(options.step)))
    for choice in options:
        if not (choice is None or isinstance(choice, bool | int | float | str)):
            raise TypeError(
                f"{name} offers {choice!r}, which a study cannot store. "
                f"Give a dict of names: {name}={{'some_name': {choice!r}}}."
            )
    return cast(T, trial.suggest_categorical(name, options))


def conv(
    trial: Trial,
    *,
    width: OneOf[int] = (16, 32, 64),
    kernel: OneOf[int] = (3, 5),
    stride: OneOf[int] = 1,
    activation: OneOf[Activation] = nn.ReLU,
    dims: int = 2,
) -> nn.Sequential:
    """Convolution, batch normalization, activation. `width` is the number of output channels.

    Shapes: (n, any, height, width) to (n, width, ceil(height / stride), ceil(width / stride)); with `dims=1`
    (n, any, length) to (n, width, ceil(length / stride)).
    """
    filters = decide(trial, "width", width)
    size = decide(trial, "kernel", kernel)
    step = decide(trial, "stride", stride)
    act = decide(trial, "activation", activation)
    return _conv_norm(dims, size, step, act, width=filters)


def separable_conv(
    trial: Trial,
    *,
    width: OneOf[int] = (16, 32, 64),
    kernel: OneOf[int] = (3, 5),
    stride: OneOf[int] = 1,
    activation: OneOf[Activation] = nn.ReLU,
    dims: int = 2,
) -> nn.Sequential:
    """A depthwise convolution, then a pointwise one, each normalized and activated. Shapes as in `conv`.

    Howard et al., MobileNets, 2017 (arXiv:1704.04861).
    """
    filters = decide(trial, "width", width)
    size = decide(trial, "kernel", kernel)
    step = decide(trial, "stride", stride)
    act = decide(trial, "activation", activation)
    return _sequential(
        depthwise=_conv_norm(dims, size, step, act, depthwise=True),
        pointwise=_conv_norm(dims, 1, 1, act, width=filters),
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
    dims: int = 2,
) -> nn.Module:
    """An inverted residual with squeeze-excitation. Shapes as in `conv`.

    The input is widened `expansion` times, convolved depthwise, and projected to `width` channels; with
    stride 1 and equal widths the input is added. `se_ratio` is the width of the squeeze as a fraction of the
    block's input width; 0 leaves squeeze-excitation out.

    Sandler et al., MobileNetV2, 2018 (arXiv:1801.04381); Tan and Le, EfficientNet, 2019 (arXiv:1905.11946).
    """
    filters = decide(trial, "width", width)
    size = decide(trial, "kernel", kernel)
    step = decide(trial, "stride", stride)
    times = decide(trial, "expansion", expansion)
    ratio = decide(trial, "se_ratio", se_ratio)
    act = decide(trial, "activation", activation)
    body = _sequential(
        expand=_conv_norm(dims, 1, 1, act, expansion=times) if times != 1 else None,
        depthwise=_conv_norm(dims, size, step, act, depthwise=True),
        squeeze_excitation=SqueezeExcitation(ratio / times) if ratio else None,
        project=_conv_norm(dims, 1, 1, None, width=filters),
    )
    return _AddIfSame(body) if step == 1 else body


def residual(trial: Trial, body: Space[nn.Module]) -> Residual:
    """`body(x) + shortcut(x)`, where the shortcut projects if the body changes the shape. See `Residual`."""
    return Residual(body(trial))


def head(
    trial: Trial,
    *,
    n_classes: int,
    hidden: OneOf[int | None] = None,
    dropout: OneOf[float] = 0.0,
    activation: OneOf[Activation] = nn.ReLU,
) -> nn.Sequential:
    """Global average pooling, a hidden layer unless `hidden` is None, and a linear layer.

    Shapes: (n, channels, *sizes) to (n, n_classes). `dropout` is the probability of dropping a feature before
    the last layer. The activation is asked only where there is a hidden layer.
    """
    units = decide(trial, "hidden", hidden)
    rate = decide(trial, "dropout", dropout)
    return _sequential(
        flatten=nn.Flatten(2),
        pool=nn.AdaptiveAvgPool1d(1),
        squeeze=nn.Flatten(1),
        hidden=nn.LazyLinear(units) if units is not None else None,
        activation=decide(trial, "activation", activation)() if units is not None else None,
        dropout=nn.Dropout(rate) if rate else None,
        classifier=nn.LazyLinear(n_classes),
    )


class Residual(nn.Module):
    """`body(x) + shortcut(x)`, with a shortcut that is decided at the first forward pass.

    It is the identity where the body keeps the shape. Otherwise it is a linear projection: for (n, channels,
    *sizes) a 1x1 convolution, strided where the sizes shrink by a stride, after average pooling where they
    change otherwise; for (n, features) a linear layer. As in He et al., Identity Mappings in Deep Residual
    Networks, 2016 (arXiv:1603.05027), the projection is not normalized.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut: nn.Module | None
        self.register_module("shortcut", None)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        if self.shortcut is None:
            # Nothing made here may depend on the training mode: callers that run a first pass in eval mode
            # restore the modes of the modules that they saw before.
            like = next(self.body.parameters(), x)
            with like.device:
                self.shortcut = _projection(x.shape, y.shape).to(like.dtype)
        shortcut: Tensor = self.shortcut(x)
        return y + shortcut


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate in 0..1 that sees all channels' means.

    The squeeze is `ratio` times the number of channels wide, at least 1.
    Hu et al., Squeeze-and-Excitation Networks, 2018 (arXiv:1709.01507).
    """

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.gate: nn.Module | None
        self.register_module("gate", None)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        if self.gate is None:
            squeezed = max(1, round(self.ratio * channels))
            with x.device:
                reduce, expand = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)
            gate = _sequential(reduce=reduce, activation=nn.ReLU(), expand=expand, sigmoid=nn.Sigmoid())
            self.gate = gate.to(x.dtype)
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


def _conv_norm(
    dims: int,
    kernel: int,
    stride: int,
    activation: Activation | None,
    *,
    width: int | None = None,
    expansion: int = 1,
    depthwise: bool = False,
) -> nn.Sequential:
    """`width` output channels; without it, `expansion` times those of the input."""
    if dims not in (1, 2):
        raise ValueError(f"dims={dims} is not supported; use 1 for (n, channels, length), 2 for images.")
    # A convolution alone pads evenly, which keeps the size for odd kernels only.
    odd = kernel % 2 == 1
    low, high = (kernel - 1) // 2, kernel // 2
    image = dims == 2
    pad = nn.ConstantPad2d((low, high, low, high), 0.0) if image else nn.ConstantPad1d((low, high), 0.0)
    padding = low if odd else 0
    layer: nn.Module
    if width is not None:
        layer = (nn.LazyConv2d if image else nn.LazyConv1d)(width, kernel, stride, padding, bias=False)
    else:
        relative = (_RelativeConv2d if image else _RelativeConv1d)(0, kernel, stride, padding, bias=False)
        relative.multiple, relative.depthwise = expansion, depthwise
        layer = relative
    return _sequential(
        pad=None if odd else pad,
        conv=layer,
        norm=nn.LazyBatchNorm2d() if image else nn.LazyBatchNorm1d(),
        activation=activation() if activation is not None else None,
    )


def _projection(before: torch.Size, after: torch.Size) -> nn.Module:
    if before[1:] == after[1:]:
        return nn.Identity()
    if len(before) != len(after) or not 2 <= len(before) <= 4:
        raise ValueError(
            f"A residual cannot add an input of shape {tuple(before)} to its body's output of shape "
            f"{tuple(after)}; the body must keep the number of dimensions (2 to 4, batch included)."
        )
    if len(before) == 2:
        return nn.Linear(before[1], after[1], bias=False)
    sizes = list(zip(before[2:], after[2:], strict=True))
    strides: Any = [math.ceil(n / m) for n, m in sizes]
    strided = all(math.ceil(n / stride) == m for (n, m), stride in zip(sizes, strides, strict=True))
    image = len(before) == 4
    target: Any = tuple(after[2:])
    return _sequential(
        pool=None if strided else (nn.AdaptiveAvgPool2d if image else nn.AdaptiveAvgPool1d)(target),
        conv=(nn.Conv2d if image else nn.Conv1d)(
            before[1], after[1], 1, strides if strided else 1, bias=False
        ),
    )


def _sequential(**layers: nn.Module | None) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, layer) for name, layer in layers.items() if layer is not None))
