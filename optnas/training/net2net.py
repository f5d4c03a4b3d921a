"""A network takes over the function of a smaller one: wider layers, larger kernels, further layers.

Chen, Goodfellow & Shlens, Net2Net: Accelerating Learning via Knowledge Transfer, ICLR 2016,
arXiv:1511.05641.

Which input of a layer stands for which of the smaller network is not read off the code, which may flatten,
add and concatenate as it likes, but found: both networks run on the same noise, the smaller one with random
weights, and what a layer sees is matched with what its counterpart sees. The outputs of a wider layer are
copies of the smaller one's in an order that depends on the two widths alone, so that what is added fits.
Copies share the outgoing weights unevenly, which lets them part in training without the noise of the paper.
In the end both networks are compared on real inputs: what is not preserved is not said to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_flatten

from optnas.facts.inputs import Arguments, Example, Inputs, arguments, copied
from optnas.space.blocks import Residual

TOLERANCE = 1e-5
"""So much, of the largest output, the outputs may differ by."""

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU)
_EQUAL = 1e-4  # of the largest value; rows of noise that are not copies differ by far more
_RENAMED = (10.0, 0.1)  # as much as sizes that grow by so much, as a logarithm; the second if the first fails
_SEED = 0

Layers: TypeAlias = dict[str, nn.Module]


class NotPreservedError(Exception):
    """The function cannot be taken over; the message says why."""


@dataclass(frozen=True)
class Grown:
    """What became of it: the share of the parameters that come from the smaller network, in 0..1, and the
    largest difference of an output, relative to the largest output where that is above 1."""

    share: float
    difference: float


def grow(model: nn.Module, smaller: nn.Module, example: Example) -> Grown:
    """Give `model` the function of `smaller`, in evaluation mode, to `TOLERANCE`; or leave it as it is.

    Args:
        model: a network without lazy layers.
        smaller: a trained network, which is not changed.
        example: inputs, as many as a batch has: those of new normalizations are measured on them.

    Raises:
        NotPreservedError: some layer is smaller, or of another kind, or nothing new can be neutral.
        Exception: whatever a network raises on the example.
    """
    given = arguments(example)
    generator = torch.Generator().manual_seed(_SEED)

    def noise(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor.clone()
        return torch.randn(tensor.shape, generator=generator).to(tensor)

    args, kwargs = copied(given, noise)
    noisy, old = Arguments(*args, **kwargs), deepcopy(smaller).eval()
    errors = []
    for renamed in _RENAMED:
        try:
            with torch.no_grad():
                return _grown(model, old, given, noisy, renamed)
        except NotPreservedError as error:
            errors.append(error)
    raise errors[0]


def _grown(model: nn.Module, old: nn.Module, given: Arguments, noisy: Arguments, renamed: float) -> Grown:
    scrambled, grown = _scrambled(old), deepcopy(model).eval()
    seen: dict[str, Any] = {}
    _run(scrambled, noisy, lambda name, layer, x: seen.update({name: x}))
    order: Layers = {}
    _run(grown, noisy, lambda name, layer, x: order.update({name: layer}))
    plan = _Plan.of(grown, order, {name: scrambled.get_submodule(name) for name in seen}, renamed)
    plan.apply(deepcopy(grown), scrambled, noisy, seen)
    output = plan.apply(grown, old, given, None)
    difference = _difference(output, _run(old, given, lambda name, layer, x: None))
    if not difference <= TOLERANCE:
        raise NotPreservedError(
            f"its outputs would differ by {difference:.2g}: what has no weights (an activation, a stride, a "
            "sum) is another, or what is new is not neutral"
        )
    model.load_state_dict(grown.state_dict())
    taken = sum(p.numel() for name in plan.pairs for p in order[name].parameters(recurse=False))
    return Grown(taken / max(1, sum(p.numel() for p in model.parameters())), difference)


@dataclass(frozen=True)
class _Plan:
    """How a network is made from a smaller one.

    Attributes:
        pairs: names of layers to those of their counterparts.
        idle: layers that are never called, since what is around them uses their weights.
        silent: new layers that end a residual branch, which are zero at first.
        fresh: new layers before these, which keep their initial weights.
        maps: for layers with a counterpart, the number of the smaller network's input that each of theirs
            is a copy of; None where the inputs are the same. Found when it is applied first.
    """

    pairs: Mapping[str, str]
    idle: frozenset[str]
    silent: frozenset[str]
    fresh: frozenset[str]
    maps: dict[str, Tensor | None]

    @classmethod
    def of(cls, model: nn.Module, ours: Layers, theirs: Layers, renamed: float) -> _Plan:
        branches = {
            f"{name}.".removeprefix("."): [n for n in ours if n.startswith(f"{name}.".removeprefix("."))]
            for name, module in model.named_modules()
            if isinstance(module, Residual)
        }
        within = {name for names in branches.values() for name in names}
        pairs = _aligned(ours, theirs, within, renamed)
        new = [
            names
            for prefix, names in branches.items()
            if names
            and not any(name in pairs for name in names)
            and not any(name.startswith(f"{prefix}shortcut") for name in names)
        ]
        silent = frozenset(names[-1] for names in new)
        fresh = frozenset(name for names in new for name in names) - silent
        return cls(pairs, frozenset(_layers(model)) - ours.keys(), silent, fresh, {})

    def apply(
        self, model: nn.Module, smaller: nn.Module, given: Arguments, seen: Mapping[str, Any] | None
    ) -> Any:
        """Fill the network's layers while it runs, each before it does; returns its output.

        `seen`: what the smaller network's layers saw of the same inputs, to find the maps by.
        """
        theirs = dict(smaller.named_modules())
        for name, layer in _layers(model).items():
            if name in self.idle and name in theirs and _growth(layer, theirs[name]) == 0:
                _take_over(layer, theirs[name], None)

        def fill(name: str, layer: nn.Module, x: Any) -> None:
            try:
                self._fill(name, layer, theirs, x, seen)
            except NotPreservedError as error:
                raise NotPreservedError(f"{name or 'the network'} {error}") from None

        return _run(model, given, fill)

    def _fill(
        self, name: str, layer: nn.Module, theirs: Layers, x: Any, seen: Mapping[str, Any] | None
    ) -> None:
        if name in self.pairs:
            other = theirs[self.pairs[name]]
            if seen is not None:
                self.maps[name] = _found(layer, x, seen[self.pairs[name]])
            _take_over(layer, other, self.maps[name])
        elif name in self.silent:
            _silence(layer)
        elif name not in self.fresh:
            _make_neutral(layer, x)


# ---- which layer stands for which ----


def _aligned(ours: Layers, theirs: Layers, within: set[str], renamed: float) -> dict[str, str]:
    """Pairs in the order in which they are called, so that sizes grow and names change the least.

    Raises:
        NotPreservedError: a layer of theirs has no counterpart that is as large.
    """
    names, others = list(ours), list(theirs)
    costs = [[0.0] + [math.inf] * len(others)]
    for name in names:
        above, row = costs[-1], [math.inf] * (len(others) + 1)
        skipped = 0.0 if name in within or _may_be_neutral(ours[name]) else 100.0
        for j in range(len(others) + 1):
            row[j] = above[j] + skipped
            if j:
                paired = above[j - 1] + _growth(ours[name], theirs[others[j - 1]])
                row[j] = min(row[j], paired + (0.0 if name == others[j - 1] else renamed))
        costs.append(row)
    if not math.isfinite(costs[-1][-1]):
        raise NotPreservedError("a layer is smaller than before, of another kind, or gone")
    pairs, j = {}, len(others)
    for i, (above, row) in reversed(list(enumerate(pairwise(costs)))):
        if j and row[j] < above[j] + (
            0.0 if names[i] in within or _may_be_neutral(ours[names[i]]) else 100.0
        ):
            pairs[names[i]] = others[j - 1]
            j -= 1
    return dict(reversed(pairs.items()))


def _growth(ours: nn.Module, theirs: nn.Module) -> float:
    """By how much the sizes of a layer grow, as a logarithm; infinite where it cannot stand for the other."""
    if type(ours) is not type(theirs):
        return math.inf
    own, old = dict(ours.named_parameters(recurse=False)), dict(theirs.named_parameters(recurse=False))
    if own.keys() != old.keys() or any(own[name].dim() != old[name].dim() for name in own):
        return math.inf
    sizes = [pair for name in own for pair in zip(own[name].shape, old[name].shape, strict=True)]
    if any(size < before for size, before in sizes):
        return math.inf
    return sum(math.log(size / before) for size, before in sizes if before)


def _may_be_neutral(layer: nn.Module) -> bool:
    if _mixes(layer):
        n_outputs, n_inputs = _widths(layer)
        return n_outputs >= n_inputs
    return isinstance(layer, _NormBase)


# ---- which input stands for which ----


def _found(layer: nn.Module, x: Any, theirs: Any) -> Tensor | None:
    """For each input of a layer, the number of theirs that it is a copy of; None where they are the same.

    Raises:
        NotPreservedError: it is a copy of none, or one of theirs has no copy.
    """
    if not isinstance(x, Tensor) or not isinstance(theirs, Tensor):
        return None  # the outputs will show it
    known = isinstance(layer, (nn.RNNBase, *_NORMS)) or _mixes(layer)
    if not known or x.dim() < 2 or theirs.dim() < 2:
        if x.shape == theirs.shape and torch.allclose(x.double(), theirs.double(), rtol=_EQUAL):
            return None
        raise NotPreservedError("has other inputs than before")
    channels = -1 if isinstance(layer, (nn.Linear, nn.LayerNorm, nn.RNNBase)) else 1
    ours, old = (value.movedim(channels, 0).flatten(1).double() for value in (x, theirs))
    if ours.shape[1] != old.shape[1]:
        raise NotPreservedError("has inputs of another size than before")
    directions = torch.randn(
        ours.shape[1], 16, generator=torch.Generator().manual_seed(_SEED), dtype=torch.float64
    ).to(ours)
    ours, old = ours @ directions, old @ directions
    near = _EQUAL * float(old.abs().max())
    usual = _copies(len(old), len(ours)).to(ours.device)
    if len(ours) >= len(old) and bool(((ours - old[usual]).abs() <= near).all()):
        return usual
    distances, found = torch.cdist(ours, old, p=math.inf).min(1)
    if bool((distances > near).any()):
        raise NotPreservedError("has inputs that no layer had before")
    if len(set(found.tolist())) < len(old):
        raise NotPreservedError("lacks inputs that it had before")
    return found


def _copies(before: int, now: int) -> Tensor:
    """Of which of `before` channels each of `now` is a copy: neighbors, so that groups keep their members."""
    return torch.arange(now) * before // now


# ---- what a layer gets ----


def _take_over(layer: Any, other: Any, found: Tensor | None) -> None:
    """`other` is of the same class."""
    if isinstance(layer, nn.RNNBase) and found is not None:
        _recurrent(layer, other, found)
    elif _mixes(layer) and found is not None:
        _mixing(layer, other, found)
    elif isinstance(layer, nn.Embedding):
        if len(layer.weight) != len(other.weight):
            raise NotPreservedError("has another vocabulary than before")
        layer.weight.copy_(other.weight[:, _copies(other.weight.shape[1], layer.weight.shape[1])])
    else:
        for own, old in ((layer._parameters, other._parameters), (layer._buffers, other._buffers)):
            for name, value in own.items():
                before = old.get(name)
                if value is None or before is None:
                    if value is not before:
                        raise NotPreservedError(f"has a {name}, or had one before")
                elif found is not None and value.dim() == 1 and len(value) == len(found):
                    value.copy_(before[found])
                elif value.shape == before.shape:
                    value.copy_(before)
                else:
                    raise NotPreservedError(f"({type(layer).__name__}) cannot be widened")


def _mixing(layer: Any, other: Any, found: Tensor) -> None:
    """A convolution or a linear layer."""
    weight, old = layer.weight, other.weight
    groups, before = _groups(layer), _groups(other)
    n, n_before = len(weight), len(old)
    group = torch.arange(n) // (n // groups)
    if groups == before:
        outputs = _copies(n_before, n)
    elif weight.shape[1] == old.shape[1] == 1 and n // groups == n_before // before:  # depthwise
        times = n // groups
        outputs = found.cpu()[group] * times + torch.arange(n) % times
    else:
        raise NotPreservedError("has other groups than before")
    inputs = group[:, None] * weight.shape[1] + torch.arange(weight.shape[1])
    first = outputs // (n_before // before) * old.shape[1]
    sources = found.cpu()[inputs] - first[:, None]
    if bool(((sources < 0) | (sources >= old.shape[1])).any()):
        raise NotPreservedError("has other groups than before")
    mixed = _mixed(old, outputs, sources, _shares(len(found))[inputs])
    weight.zero_()
    _middle(weight, mixed.shape).copy_(mixed)
    if layer.bias is not None:  # so had the other, or it would not be the counterpart
        layer.bias.copy_(other.bias[outputs.to(old.device)])


def _shares(n: int) -> Tensor:
    """Unequal parts, so that copies of a channel get unequal gradients."""
    return 0.5 + torch.rand(n)


def _mixed(old: Tensor, outputs: Tensor, sources: Tensor, parts: Tensor) -> Tensor:
    """Rows `outputs` of a matrix, whose column `sources[i, j]` is divided among the j that have it."""
    whole = torch.zeros(len(sources), old.shape[1]).scatter_add_(1, sources, parts)
    if bool((whole == 0).any()):
        raise NotPreservedError("lacks inputs that it had before")
    share = (parts / whole.gather(1, sources)).to(old)
    outputs, sources = outputs.to(old.device), sources.to(old.device)
    return old[outputs[:, None], sources] * share.reshape(*share.shape, *[1] * (old.dim() - 2))


def _middle(weight: Tensor, shape: torch.Size) -> Tensor:
    """The part of a larger kernel where a smaller one stands, as blocks pad."""
    for dim in range(2, weight.dim()):
        start = (weight.shape[dim] - 1) // 2 - (shape[dim] - 1) // 2
        weight = weight.narrow(dim, start, shape[dim])
    return weight


def _recurrent(layer: nn.RNNBase, other: nn.RNNBase, found: Tensor) -> None:
    if (layer.mode, layer.num_layers) != (other.mode, other.num_layers):
        raise NotPreservedError("is another recurrent layer than before")
    if layer.proj_size:
        raise NotPreservedError("has a projection, which cannot be widened")
    before, ways = other.hidden_size, 2 if layer.bidirectional else 1
    hidden = _copies(before, layer.hidden_size)
    n_gates = {"LSTM": 4, "GRU": 3}.get(layer.mode, 1)
    gates = torch.cat([hidden + i * before for i in range(n_gates)])
    both = torch.cat([hidden + i * before for i in range(ways)])
    known = dict(other.named_parameters(recurse=False))
    for name, weight in layer.named_parameters(recurse=False):
        old = known[name]
        if name.startswith("bias"):
            weight.copy_(old[gates.to(old.device)])
            continue
        first = name.startswith("weight_ih_l0")
        sources = found.cpu() if first else both if name.startswith("weight_ih") else hidden
        parts = _shares(len(sources)).expand(len(gates), -1)
        weight.copy_(_mixed(old, gates, sources.expand(len(gates), -1), parts))


def _make_neutral(layer: Any, x: Any) -> None:
    """Let a new layer hand on what it gets, of which a wider one makes copies."""
    if isinstance(layer, _NormBase) and isinstance(x, Tensor):
        if layer.running_mean is None or layer.running_var is None or not layer.affine:
            raise NotPreservedError("is new, and normalizes without statistics or weights of its own")
        rows = x.movedim(1, 0).flatten(1)
        layer.running_mean.copy_(rows.mean(1))
        layer.running_var.copy_(rows.var(1, unbiased=False))
        layer.weight.copy_((layer.running_var + layer.eps).sqrt())
        layer.bias.copy_(layer.running_mean)
        return
    if not _may_be_neutral(layer):
        raise NotPreservedError(f"({type(layer).__name__}) is new, and cannot hand on what it gets")
    weight = layer.weight
    n_outputs, n_inputs = _widths(layer)
    outputs = torch.arange(n_outputs)
    # Copies are neighbors, and so are the members of a group: each finds its source in its own.
    sources = _copies(n_inputs, n_outputs) - outputs // (n_outputs // _groups(layer)) * weight.shape[1]
    weight.zero_()
    _middle(weight, torch.Size([*weight.shape[:2], *[1] * (weight.dim() - 2)]))[outputs, sources] = 1.0
    if layer.bias is not None:
        layer.bias.zero_()


def _silence(layer: nn.Module) -> None:
    """Let a new branch add nothing, until it is trained."""
    own = dict(layer.named_parameters(recurse=False))
    if not own or not (_mixes(layer) or isinstance(layer, (_NormBase, nn.GroupNorm, nn.LayerNorm))):
        raise NotPreservedError(f"({type(layer).__name__}) ends a new branch, and cannot be zero")
    for parameter in own.values():
        parameter.zero_()


# ---- layers ----


def _mixes(layer: nn.Module) -> bool:
    """Whether each output is a sum of weighted inputs."""
    return isinstance(layer, (nn.Linear, _ConvNd)) and not isinstance(layer, _ConvTransposeNd)


def _groups(layer: Any) -> int:
    return int(layer.groups) if isinstance(layer, _ConvNd) else 1


def _widths(layer: Any) -> tuple[int, int]:
    """Outputs and inputs of a convolution or a linear layer."""
    return len(layer.weight), layer.weight.shape[1] * _groups(layer)


def _layers(model: nn.Module) -> Layers:
    """What has weights, or statistics, of its own."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(p is not None for p in module._parameters.values()) or isinstance(module, _NormBase)
    }


def _run(model: nn.Module, given: Arguments, at: Callable[[str, nn.Module, Any], None]) -> Any:
    """The output; `at(name, layer, input)` is called before each layer runs for the first time."""
    reached: set[str] = set()

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def before(layer: nn.Module, args: tuple[Any, ...]) -> None:
            if name not in reached:
                reached.add(name)
                at(name, layer, args[0] if args else None)

        return before

    hooks = [layer.register_forward_pre_hook(hook(name)) for name, layer in _layers(model).items()]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs: Inputs = copied(given, lambda tensor: tensor.detach().to(device, copy=True))
    try:
        return model(*inputs[0], **inputs[1])
    finally:
        for one in hooks:
            one.remove()


def _scrambled(model: nn.Module) -> nn.Module:
    """A copy with random weights, under which no two channels are alike and few are always zero."""
    model, generator = deepcopy(model), torch.Generator().manual_seed(_SEED)

    def normal(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator).to(tensor)

    for layer in model.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter.dim() < 2:
                scale = 0.1 * normal(parameter) if "bias" in name else 1 + 0.25 * normal(parameter).tanh()
                parameter.copy_(scale)
                continue
            drawn = normal(parameter).flatten(1)
            if drawn.shape[1] > 1:  # what all inputs have in common would decide whether an output is zero
                drawn = (drawn - drawn.mean(1, keepdim=True)) / math.sqrt(drawn.shape[1])
            parameter.copy_(drawn.reshape(parameter.shape))
        if isinstance(layer, _NormBase) and layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.copy_(0.1 * normal(layer.running_mean))
            layer.running_var.copy_(1 + 0.25 * normal(layer.running_var).tanh())
    return model


def _difference(ours: Any, theirs: Any) -> float:
    """The largest between two outputs, relative to the largest number in them where that is above 1."""
    (first, structure), (second, other) = tree_flatten(ours), tree_flatten(theirs)
    pairs = list(zip(first, second, strict=False))
    if structure != other or any(
        not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.shape != b.shape for a, b in pairs
    ):
        return math.inf
    scale = max([1.0, *(float(b.abs().max()) for _, b in pairs if b.numel())])
    return max([0.0, *(float((a - b).abs().max()) / scale for a, b in pairs if a.numel())])
