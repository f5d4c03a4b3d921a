"""How data flows through a network: its operations by family, and the points where paths part and meet.

One pass on the meta device is watched from above, where a convolution is one call. That takes a tenth of the
time of a sketch, which sees every ATen operation and what initializes the weights, and can prove two networks
equal; a flow cannot. It is for looking at some hundred networks between two trainings.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias
from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils._device import DeviceContext
from torch.utils._pytree import tree_leaves

from optnas.facts.cost import call_on_meta, inference
from optnas.facts.inputs import Example, as_inputs, batch_size, tensors_in
from optnas.facts.trace import eager, untraced

KERNELS = (1, 3, 5, 7)
"""Convolutions are told apart by their largest extent; one between two of these counts as the larger, and
everything above as the last."""

FAMILIES = (
    *(f"convolution {k}" for k in KERNELS),
    *(f"depthwise {k}" for k in KERNELS),
    *("linear", "attention", "recurrent", "gather", "pool", "norm", "activation"),
)
"""What operations are: weighted sums of a window, of everything, of what a query finds, of the past;
selections (embeddings, messages along the edges of a graph); means and maxima; and what has no weights."""

_REDUCES = ("mean", "sum", "amax", "amin", "max", "min", "logsumexp")
_POOLS = [f"{how}_pool{n}d" for how in ("max", "avg", "adaptive_max", "adaptive_avg", "lp") for n in "123"]
_CALLS = {
    "linear": "linear bilinear mm addmm bmm baddbmm matmul einsum mv tensordot",
    "attention": "scaled_dot_product_attention multi_head_attention_forward",
    "recurrent": "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
    "gather": "embedding embedding_bag index_select gather index_add scatter scatter_add scatter_reduce take",
    "pool": " ".join([*_POOLS, *_REDUCES]),
    "norm": "batch_norm instance_norm layer_norm group_norm rms_norm local_response_norm normalize",
    "activation": "relu relu6 elu selu celu gelu silu mish leaky_relu prelu rrelu glu sigmoid tanh hardswish "
    "hardsigmoid hardtanh hardshrink softplus softshrink softsign softmax log_softmax logsigmoid softmin "
    "tanhshrink threshold clamp erf",
}
_FAMILY_OF = {name: family for family, names in _CALLS.items() for name in names.split()}
_CONVOLUTIONS = {f"conv{t}{n}d" for t in ("", "_transpose") for n in "123"}
_SUMS = {"add", "sub", "radd", "iadd"}
_PRODUCTS = {"mul", "rmul", "imul"}
_ASKS = {"get", "set", "dim", "size", "numel", "stride", "is_contiguous", "_set_grad_enabled", "len"}
_SHAPE_ONLY = {
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "rand_like",
    "randn_like",
    "randint_like",
}
_SHAPE_ONLY |= {"new_zeros", "new_ones", "new_full", "new_empty", "new_tensor"}
_OVERWRITES = {"zero_", "fill_", "normal_", "uniform_", "bernoulli_"}
_WRITES = {"setitem", "iadd", "isub", "imul", "itruediv"}

Geometry: TypeAlias = tuple[torch.dtype, torch.Size, tuple[int, ...]]


@dataclass(slots=True)
class Operation:
    """What made one value out of others; `family` is "" for what only moves or combines values."""

    family: str
    reads: list[int]
    is_sum: bool
    width: int
    """Channels or features that it makes; 0 where it has no weights."""
    flops: int


@dataclass(frozen=True, slots=True)
class Edge:
    """A chain of operations, each with one reader, from one point to another; of no family: a shortcut."""

    start: int
    end: int
    families: tuple[str, ...]


@dataclass
class Flow:
    """Points and the chains of operations between them, of what lies between inputs and outputs."""

    points: list[str]
    """In an order in which each comes after what it depends on. An input, an output, a value with several
    readers, or one that joins several; then the family of the operation that joins them, if it has one."""
    edges: list[Edge]
    """Ordered by their ends."""
    inputs: list[int]
    outputs: list[int]
    made: Counter[str]
    """How often each family was called, whether or not an output depends on it."""
    widths: list[int]
    """Of the operations with weights that outputs depend on, in the order of the calls."""
    flops: int
    """Of one sample."""
    live_flops: int
    """The part that outputs depend on."""


def flow(model: nn.Module, example: Example) -> Flow:
    """Watch one pass of the model in eval mode, so that nothing is left out by chance.

    It runs on the meta device, where the model may be already; modes and random states stay as they are.

    Raises:
        Exception: whatever the model raises; one that looks at values cannot run on the meta device.
    """
    args, kwargs = inputs = as_inputs(example, "meta")
    given = tensors_in([*args, *kwargs.values()])
    watch = _Watch(given)
    with untraced(), eager(), inference(model), watch:
        out = call_on_meta(model, inputs)
    outputs = [watch.of(tensor) for tensor in _tensors(out)]
    return _between(watch, len(given), {i for i in outputs if i is not None}, batch_size(inputs))


def flow_of_new(model: nn.Module, example: Example) -> Flow:
    """`flow` of a model that was just built and that nobody changes: asked again, it makes no second pass."""
    global _newest
    if _newest is None or _newest[0]() is not model or _newest[1] is not example:
        _newest = ref(model), example, flow(model, example)
    return _newest[2]


_newest: tuple[ref[nn.Module], Example, Flow] | None = None  # of one candidate come both costs and structure


class _Watch(DeviceContext):
    """Notes every call of a torch function that depends on the inputs.

    A value is what a storage holds between two writes, as for `Tracer`: views are no operations, and a write
    into a part of a value makes a new one.
    """

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        super().__init__("meta")
        self.operations: list[Operation] = []
        self.made: Counter[str] = Counter()
        self.flops = 0
        self._at: dict[int, int] = {}  # storage -> the operation whose output it holds
        self._alive: list[Any] = []  # an address names a storage only as long as the storage lives
        for tensor in inputs:
            self._hold(len(self.operations), [tensor])
            self.operations.append(Operation("", [], False, 0, 0))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        call = _call(func)
        if call.asks:
            return func(*args, **kwargs)
        tensors: list[Tensor] = []
        key: list[Any] = [func, *kwargs]
        for value in (*args, *kwargs.values()):
            _sort(value, tensors, key)
        made = None if call.writes or not tensors else _outputs_before(key)
        if made is not None:
            dtype, size, stride = made
            out = torch.empty_strided(size, stride, dtype=dtype, device="meta")
            self._note(call, tensors, [out], args, kwargs)
            return out
        out = super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]  # torch's
        outs = [
            leaf
            for leaf in tree_leaves(args[0] if call.name == "setitem" else out)
            if isinstance(leaf, Tensor)
        ]
        inputs = {_storage(tensor) for tensor in tensors}
        fresh = inputs.isdisjoint(map(_storage, outs))
        if fresh and type(out) is Tensor and tensors and not call.writes:
            _remember(key, out)
        if outs and (fresh or call.writes or call.family or "out" in kwargs):  # else a view
            self._note(call, tensors, outs, args, kwargs)
        return out

    def of(self, tensor: Tensor) -> int | None:
        """The operation that made this value; None where it does not depend on the inputs."""
        return self._at.get(_storage(tensor))

    def _note(self, call: _Call, tensors: list[Tensor], outs: list[Tensor], args: Any, kwargs: Any) -> None:
        reads = [i for tensor in tensors if (i := self.of(tensor)) is not None]
        if call.shape_only or (call.is_product and _is_zero(args)):
            reads = []
        family, width, flops = _cost(call, tensors, outs[0], len(reads), args, kwargs)
        if family:
            self.made[family] += 1
        self.flops += flops
        if not reads:
            for tensor in outs:
                self._at.pop(_storage(tensor), None)
        elif len(reads) == 1 and not family:  # moved, padded, scaled: the same value
            self._hold(reads[0], outs)
        else:
            self._hold(len(self.operations), outs)
            self.operations.append(Operation(family, reads, call.is_sum, width, flops))

    def _hold(self, operation: int, outs: Iterable[Tensor]) -> None:
        for tensor in outs:
            storage = tensor.untyped_storage()
            self._at[storage._cdata] = operation
            self._alive.append(storage)


@dataclass(frozen=True, slots=True)
class _Call:
    """What the name of a torch function says."""

    name: str
    asks: bool
    writes: bool
    shape_only: bool
    is_sum: bool
    is_product: bool
    family: str


@cache
def _call(func: Callable[..., Any]) -> _Call:
    given = getattr(func, "__name__", "")  # C functions and method wrappers have one, too
    name = given.strip("_")
    writes = name in _WRITES or (given.endswith("_") and not given.endswith("__"))
    family = "convolution" if name in _CONVOLUTIONS else _FAMILY_OF.get(name, "")
    return _Call(
        name,
        asks=name in _ASKS or given in _ASKS,
        writes=writes,
        shape_only=name in _SHAPE_ONLY or given in _OVERWRITES,
        is_sum=name in _SUMS,
        is_product=name in _PRODUCTS,
        family=family,
    )


def _cost(
    call: _Call, tensors: list[Tensor], out: Tensor, n_read: int, args: Any, kwargs: Any
) -> tuple[str, int, int]:
    """The family, the width and the FLOPs of a call."""
    if call.family == "convolution":
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        extent = max(weight.shape[2:])
        kernel = next((k for k in KERNELS if extent <= k), KERNELS[-1])
        per_output = math.prod(weight.shape[1:])
        if "transpose" in call.name:
            return f"convolution {kernel}", out.shape[1], 2 * tensors[0].numel() * per_output
        kind = "depthwise" if weight.shape[1] == 1 and weight.shape[0] > 1 else "convolution"
        return f"{kind} {kernel}", out.shape[1], 2 * out.numel() * per_output
    if call.family == "linear":
        family = "linear" if n_read < 2 else "attention"  # a product of two values that depend on the inputs
        return family, _last(out), 2 * out.numel() * _last(tensors[0])
    if call.name == "multi_head_attention_forward":  # reads (length, n, features), and projects four times
        return "attention", _last(out), 4 * out.numel() * (2 * _last(out) + len(tensors[1]))
    if call.family == "attention":
        return "attention", _last(out), 4 * out.numel() * tensors[1].shape[-2]
    if call.family == "recurrent":
        weights = sum(tensor.numel() for tensor in tensors if tensor.ndim == 2)
        return "recurrent", _last(out), 2 * weights * out.numel() // max(_last(out), 1)
    if call.name in _REDUCES and out.numel() == tensors[0].numel():  # of two tensors, for example
        return "", 0, 0
    return call.family, 0, 0


def _last(tensor: Tensor) -> int:
    return tensor.shape[-1] if tensor.ndim else 1


def _is_zero(args: Iterable[Any]) -> bool:
    return any(isinstance(value, int | float) and value == 0 for value in args)


def _sort(value: Any, tensors: list[Tensor], key: list[Any]) -> None:
    if isinstance(value, Tensor):
        tensors.append(value)
        key.append((value.dtype, value.shape, value.stride()))
    elif isinstance(value, tuple | list):
        key.append(len(value))
        for item in value:
            _sort(item, tensors, key)
    else:
        key += type(value), value


_made: dict[Any, Geometry] = {}  # what calls made of the same shapes and arguments before; bounded below


def _outputs_before(key: list[Any]) -> Geometry | None:
    try:
        return _made.get(tuple(key))
    except TypeError:  # an argument that has no hash
        return None


def _remember(key: list[Any], out: Tensor) -> None:
    if len(_made) >= 20_000:
        _made.clear()
    with suppress(TypeError):
        _made[tuple(key)] = (out.dtype, out.shape, out.stride())


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _between(watch: _Watch, n_inputs: int, ends: set[int], batch: int) -> Flow:
    """What lies between the inputs and the ends, with a sum of sums as one sum."""
    operations = watch.operations
    readers = [0] * len(operations)
    feeds_sum = [False] * len(operations)
    for end in ends:
        readers[end] += 1
    for i in reversed(range(len(operations))):
        if readers[i]:
            for read in operations[i].reads:
                readers[read] += 1
                feeds_sum[read] = operations[i].is_sum
    result = Flow([], [], [], [], watch.made, [], watch.flops // batch, 0)
    at: dict[int, tuple[int, tuple[str, ...]]] = {}  # an operation to the last point and the chain since
    terms: dict[int, list[int]] = {}  # a sum that only another sum reads, to what it adds
    for i, operation in enumerate(operations):
        if not readers[i]:
            continue
        if operation.width:
            result.widths.append(operation.width)
        result.live_flops += operation.flops
        reads = [term for read in operation.reads for term in terms.get(read, [read])]
        if operation.is_sum and feeds_sum[i] and readers[i] == 1 and i not in ends:
            terms[i] = reads
            continue
        own = (operation.family,) if operation.family else ()
        if len(reads) == 1 and readers[i] == 1 and i not in ends:
            start, chain = at[reads[0]]
            at[i] = start, chain + own
            continue
        point = len(result.points)
        for start, chain in (at[read] for read in reads):
            result.edges.append(Edge(start, point, chain + own if len(reads) == 1 else chain))
        at[i] = point, ()
        result.points.append(operation.family if len(reads) > 1 else "")
        if i < n_inputs:
            result.inputs.append(point)
        if i in ends:
            result.outputs.append(point)
    result.live_flops //= batch
    return result
