"""Record what a model computes: its construction and one forward pass, operation by operation.

Both run on the meta device, where tensors have shapes and no values; or, where that cannot be, on the CPU.
What Python code reads out of tensors there may decide which operations follow: the record says where that
was, unless the same would be read in every pass. A value is what a storage holds between two writes. A view
is no operation but a way to read a value (size, stride, offset, dtype), and a write into part of a storage
makes a new value out of the old one; so aliasing and in-place operations need no cases of their own further
on. Initialization is recorded like any other operation.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from types import FrameType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode, _pop_mode, _push_mode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from optnas.facts.inputs import Inputs, tensors_in

# How a tensor reads its storage: dtype, size, stride, offset, conjugated, negated.
Geometry: TypeAlias = tuple[torch.dtype, tuple[int, ...], tuple[int, ...], int, bool, bool]


class Read(NamedTuple):
    """An edge: argument `role` of a node reads output `port` of node `source`."""

    role: str
    source: int
    port: int
    geometry: Geometry
    gradient: bool  # whether training sends a gradient back along this edge


@dataclass(slots=True)
class Node:
    """An operation, with its non-tensor arguments and the geometry of each of its outputs."""

    op: str
    args: tuple[tuple[str, Any], ...]
    reads: list[Read]
    outputs: list[Geometry]
    lasting: bool  # made by the construction, or held by a parameter or buffer: training may change it
    storages: list[int] = field(default_factory=list)  # of the outputs
    held_as: str = ""  # "parameter" or "buffer"


UNSEEN = "unseen"  # the op of a tensor whose values or initialization no record shows
_VARYING = {"input", UNSEEN}

# Operations that ignore what the tensor held before, under one name each.
_FILLS = {"zero_": 0.0, "zeros": 0.0, "zeros_like": 0.0, "new_zeros": 0.0}
_FILLS |= {"ones": 1.0, "ones_like": 1.0, "new_ones": 1.0}
_FILL_WITH = {"fill_": 1, "full": 1, "full_like": 1, "new_full": 2}
_OVERWRITES = {
    *("uniform_", "normal_", "random_", "bernoulli_", "exponential_", "cauchy_", "log_normal_", "geometric_"),
    *("copy_", "empty_like", "new_empty", "new_empty_strided", "rand_like", "randn_like", "randint_like"),
}
_IGNORED = {"device", "pin_memory", "layout", "memory_format", "non_blocking"}
_PLACED = {"device", "pin_memory"}
_READS = (Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__)
_DECIDED_BY_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
_PARTS_OF_SPARSE = ("_values", "_indices", "values", "indices", "crow_indices", "col_indices")
_MADE_FROM_VALUES = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
_IS_META = vars(torch._C.TensorBase)["is_meta"].__get__
_DEVICE = vars(torch._C.TensorBase)["device"].__get__
_HOOKS = (Tensor.register_hook, Tensor.register_post_accumulate_grad_hook)
_PLAIN = (int, type(None), bool, float, complex, str, torch.dtype, torch.memory_format, torch.layout)
_SEVERAL = (tuple, list)  # `tuple | list` would be made anew for each argument of each operation


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its __init_subclass__ untyped
    """Records every operation under it. `blind` says why the record does not show everything, if so.

    Attributes:
        looks: where Python code reads values that the data, the weights or random numbers decide.
        minds_meta: the model does something else on the meta device than on others.
        failed: an operation raised.
        fault: an error of the tracer itself.
        hooks: the functions that were registered to see gradients, each with the node and port they sit at.
        under: what else decides what operations do: autocast, checkpointing, a seed.
    """

    def __init__(self, device: str = "meta") -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.device = device
        self.looks = ""
        self.minds_meta = False
        self.nodes: list[Node] = []
        self.building = True
        self.failed = False
        self.fault: Exception | None = None
        self.blind = ""
        self.flops = 0
        self.hooks: list[tuple[Any, Read]] = []
        self.under: tuple[tuple[str, Any], ...] = ()
        self.seed = torch.default_generator.initial_seed()
        self._current: dict[int, tuple[int, int]] = {}  # storage -> the node and port it holds now
        self._varying: set[int] = set()  # nodes whose values another pass need not repeat
        self._settled = 0  # of how many nodes `_varying` says whether they are of that kind
        self._alive: list[Any] = []  # an address names a storage only as long as the storage lives

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: nothing is compiled under it (see `eager`), and preventing it costs time at each operation."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), keywords: Mapping[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunction():  # neither the device context nor Constants are for what follows
            try:
                return self._dispatch(func, args, dict(keywords or {}))
            except _OperationError as refused:
                self.failed = True
                raise refused.error from None
            except Exception as error:
                self.fault = error
                raise

    def _dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, written, moves, draws, decided = _schema(func)
        # The same storage; a lazy parameter has no shape yet.
        if moves or (name == "detach" and args[0].layout == torch.strided):
            return func(*args, **kwargs)
        given = [*((str(i), arg) for i, arg in enumerate(args)), *kwargs.items()]
        plain: list[tuple[str, Any]] = []
        tensors: list[tuple[str, Tensor]] = []
        for role, value in given:
            self._sort(role, value, plain, tensors)
        overwrites = name in _OVERWRITES or name in _FILLS or name in _FILL_WITH
        targets = [given[i][1] for i in written if i < len(given)]
        for tensor in targets:
            if _storage(tensor) not in self._current:
                self._found(tensor)
        shapes = tuple((role, _geometry(t)) for role, t in tensors)
        reads = [
            Read(role, *self._source(tensor), geometry, tensor.requires_grad)
            for (_, tensor), (role, geometry) in zip(tensors, shapes, strict=True)
            if not (overwrites and role == "0")
        ]
        metas = [t.is_meta for _, t in tensors]
        on_meta = all(metas)
        if self.device == "meta" and not on_meta and any(metas):
            args, kwargs = _on_meta(args), _on_meta(kwargs)
            if any(not tensor.is_meta for tensor in targets):
                self.blind = f"{func} writes a meta tensor into one on another device"
                self.minds_meta = True
        matters = decided or self.device != "meta"
        varies = matters and any(self._varies(read.source) for read in reads)
        if decided and varies and (name != "index" or _has_mask(tensors)):
            self.looked()
        key = None
        if (on_meta or varies) and tensors and _IGNORED.isdisjoint(kwargs):
            key = (func, shapes, tuple((role, type(v), v) for role, v in plain), torch.get_default_dtype())
        try:
            out = _run(func, args, kwargs, key if on_meta else None)
        except Exception as error:
            raise _OperationError(error) from error
        if (
            varies
            and self.device != "meta"
            and not self.looks
            and not _is_sized_by_shapes(func, args, kwargs, key, out)
        ):
            self.looked()
        if (formula := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        op, plain_args = _named(name, func, plain)
        first = len(self.nodes)
        self._record((op, plain_args + self.under if self.under else plain_args), reads, out, targets)
        if draws:
            self._varying.update(range(first, len(self.nodes)))
        return out

    def looked(self, tensor: Tensor | None = None) -> None:
        """Python code gets to know values, those of `tensor` or of an operation; note whose code it is."""
        if not self.looks and (tensor is None or self._varies(self._source(tensor)[0])):
            frame, _ = _caller(sys._getframe(1), _OF_TORCH)
            place = f"{frame.f_code.co_qualname} (line {frame.f_lineno} of {frame.f_globals.get('__name__')})"
            self.looks = f"{place} looks at values that the data, the weights or random numbers decide"

    def read(self, role: str, tensor: Tensor) -> Read:
        """The edge by which `tensor`, as it is now, enters an operation."""
        node, port = self._source(tensor)
        return Read(role, node, port, _geometry(tensor), tensor.requires_grad)

    def made(self, tensor: Tensor) -> bool:
        """Whether a recorded operation made `tensor`."""
        return _storage(tensor) in self._current

    def _source(self, tensor: Tensor) -> tuple[int, int]:
        """The node and the port that made what `tensor` holds now."""
        key = _storage(tensor)
        if key not in self._current:
            self._found(tensor)
        return self._current[key]

    def _varies(self, node: int) -> bool:
        """Whether another pass may find other values at a node; followed as far as anybody asks."""
        for i in range(self._settled, len(self.nodes)):
            later = self.nodes[i]
            if later.op in _VARYING or any(read.source in self._varying for read in later.reads):
                self._varying.add(i)
        self._settled = len(self.nodes)
        return node in self._varying

    def leaf(self, op: str, tensor: Tensor, *values: Any) -> None:
        """Make `tensor` a value without inputs."""
        self._hold(self._add(op, tuple((str(i), v) for i, v in enumerate(values)), [], [tensor]), [tensor])

    def initialize(self, how: str, tensor: Tensor, *values: Any) -> None:
        """`tensor` is initialized in a way that has a name, whatever it held before."""
        if _storage(tensor) not in self._current:
            self._found(tensor)
        args: list[tuple[str, Any]] = []
        for i, value in enumerate(values):
            self._sort(str(i), value, args, [])
        self._record((how, (*args, *self.under)), [], None, [tensor])
        self._varying.add(len(self.nodes) - 1)

    def hooked(self, hook: Any, tensor: Tensor) -> None:
        """Somebody wants to see, or change, the gradient of `tensor`."""
        read = self.read("hook", tensor)
        self.nodes[read.source].lasting = True  # what the hook is attached to is not passed over
        self.hooks.append((hook, read))

    def start(self, inputs: Inputs, mode: str = "", trained: Iterable[Tensor] = ()) -> None:
        """The construction is over; a forward pass on `inputs` follows, in a mode that has a name.

        `trained`: tensors that another pass may find with other values.
        """
        self.building, self.flops = False, 0
        sources = {self._source(tensor)[0] for tensor in trained if not is_lazy(tensor)}
        self._varies(0)  # what the construction computed from them stays as it is
        self._varying |= sources
        args, kwargs = inputs
        for role, value in (*enumerate(args), *kwargs.items()):
            held = tensors_in(value)
            for i, tensor in enumerate(held):
                within = [] if value is tensor else [i]
                self.leaf("input", tensor, role, *within, *([mode] if mode else []))

    def mark(self, role: str, tensors: Iterable[Tensor]) -> None:
        """Mark the values that parameters or buffers have held."""
        held = {_storage(tensor) for tensor in tensors}
        for node in self.nodes:
            if not held.isdisjoint(node.storages):
                node.held_as, node.lasting = role, True

    def _record(self, op: tuple[str, Any], reads: list[Read], out: Any, written: list[Tensor]) -> None:
        outputs = [o for o in (out if isinstance(out, _SEVERAL) else (out,)) if isinstance(o, Tensor)]
        fresh = [o for o in outputs if _storage(o) not in self._current]
        if not fresh and not written:
            return  # a view
        node = self._add(*op, reads, [*written, *fresh])
        for port, tensor in enumerate(written):
            key, geometry = self.nodes[node].storages[port], self.nodes[node].outputs[port]
            before, before_port = self._current[key]
            if self.nodes[before].op.partition(".")[0] in _PARTS_OF_SPARSE:
                self.blind = "the model writes into the parts of a sparse tensor"
            whole = self.nodes[before].outputs[before_port]
            if whole == geometry:
                self._current[key] = (node, port)
                continue
            base = Read("base", before, before_port, whole, tensor.requires_grad)
            part = Read("part", node, port, geometry, tensor.requires_grad)
            merged = self._add("write", (("geometry", geometry),), [base, part], [])
            self.nodes[merged].outputs.append(whole)
            self.nodes[merged].storages.append(key)
            self._current[key] = (merged, 0)
        self._hold(node, fresh, len(written))

    def _add(
        self, op: str, args: tuple[tuple[str, Any], ...], reads: list[Read], outputs: list[Tensor]
    ) -> int:
        storages = [_storage(tensor) for tensor in outputs]
        self.nodes.append(Node(op, args, reads, [_geometry(t) for t in outputs], self.building, storages))
        return len(self.nodes) - 1

    def _hold(self, node: int, tensors: list[Tensor], first_port: int = 0) -> None:
        for port, tensor in enumerate(tensors, first_port):
            self._current[self.nodes[node].storages[port]] = (node, port)
            self._alive.append(tensor.untyped_storage() if tensor.layout == torch.strided else tensor)

    def _found(self, tensor: Tensor) -> None:
        """A tensor that no recorded operation made."""
        if tensor.is_meta:
            self.blind = (
                "the model holds a meta tensor whose making was not seen; build the model in the call"
            )
            self.leaf(UNSEEN, tensor)
            return
        if tensor.layout != torch.strided:
            self.blind = (
                f"the model holds a {tensor.layout} tensor whose making was not seen; make it in `build`"
            )
            self.leaf(UNSEEN, tensor)
            return
        # A wrapper around the whole storage, whatever part of it `tensor` shows.
        content = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
        self.leaf("content", tensor, digest(content.cpu().numpy()))
        self.nodes[-1].lasting = True

    def _sort(self, role: str, value: Any, plain: list[Any], tensors: list[tuple[str, Tensor]]) -> None:
        if isinstance(value, Tensor):
            tensors.append((role, value))
        elif isinstance(value, _PLAIN):
            if role not in _IGNORED:
                plain.append((role, value))
        elif isinstance(value, _SEVERAL):
            plain.append((role, len(value)))
            for i, item in enumerate(value):
                self._sort(f"{role}.{i}", item, plain, tensors)
        elif isinstance(value, torch.Generator):
            plain.append((role, value.initial_seed()))
        elif not isinstance(value, torch.device):
            self.blind = f"an operation has an argument of type {type(value).__name__}"


class _OperationError(Exception):
    """An operation raised: no fault of the tracer."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Constants(TorchFunctionMode):
    """Tells a tracer what dispatch does not see: values made from numbers, hooks, autocast and the like."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _WATCHED:
            return self._watched(func, args, kwargs or {})
        if _autocast() or _saved(True) is not None or _seed() != self.tracer.seed:
            self.tracer.under = _surroundings(self.tracer.seed)
        elif self.tracer.under:
            self.tracer.under = ()
        return func(*args, **(kwargs or {}))

    def _watched(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in _READS:
            self.tracer.looked(args[0])
            return func(*args, **kwargs)
        asking, module = _caller(sys._getframe(2))
        if func == _IS_META:
            if self.tracer.device != "meta":
                return func(*args, **kwargs)
            if module == "torch.nn.init":
                self._initialized(asking, args[0])
                return True
            # Whoever is not torch's own kernels asks because a meta tensor has no values: it is to go on.
            return module.startswith("torch.") and not module.startswith("torch.nn.") and args[0].is_meta
        if func == _DEVICE:
            minds = "meta" in asking.f_code.co_consts and not module.startswith("torch.")
            if minds and self.tracer.device == "meta":
                self.tracer.minds_meta = True
                self.tracer.blind = f"{asking.f_code.co_qualname} asks whether it is on the meta device"
            return func(*args, **kwargs)
        if func in _HOOKS:
            if not module.startswith("torch."):
                hook = args[1] if len(args) > 1 else kwargs["hook"]
                self.tracer.hooked(hook, args[0])
            return func(*args, **kwargs)
        out = func(*args, **kwargs)
        if out.is_meta:
            self._constant(out, (*args, *kwargs.values())[int(func is Tensor.new_tensor)])
        return out

    def _constant(self, out: Tensor, data: Any) -> None:
        if isinstance(data, bool | int | float):
            self.tracer.leaf("constant", out, data)
        elif not isinstance(data, Tensor):
            try:
                self.tracer.leaf("constant", out, digest(np.asarray(data)))
            except (TypeError, ValueError, RuntimeError, NotImplementedError):
                # Ragged, or tensors without values: what is in it cannot be recorded.
                self.tracer.leaf(UNSEEN, out)

    def _initialized(self, init: FrameType, tensor: Tensor) -> None:
        """A function of torch.nn.init is about to leave a meta tensor as it is: its name and arguments do.

        What it would do otherwise (loops until random numbers fit, for example) needs values.
        """
        code, given = init.f_code, init.f_locals
        values = [given[name] for name in code.co_varnames[: code.co_argcount]]
        self.tracer.initialize(code.co_name, tensor, *(v for v in values if not isinstance(v, Tensor)))


_WATCHED = {_IS_META, _DEVICE, *_HOOKS, *_MADE_FROM_VALUES, *_READS}


_autocast = torch._C._is_any_autocast_enabled
_saved: Callable[[bool], Any] = torch._C._autograd._top_saved_tensors_default_hooks
_seed = torch.default_generator.initial_seed
_PASSES_ON = re.compile(r"torch\.(utils\._device|overrides|_tensor)$")
_OF_TORCH = re.compile(r"torch(\.|$)|optnas\.facts\.")


def _caller(frame: FrameType | None, passes_on: re.Pattern[str] = _PASSES_ON) -> tuple[FrameType, str]:
    """Whose code called a torch function, from the frame that handed the call on, and its module's name."""
    assert frame is not None
    while passes_on.match(module := str(frame.f_globals.get("__name__", ""))) and frame.f_back is not None:
        frame = frame.f_back
    return frame, module


def _surroundings(seed: int) -> tuple[tuple[str, Any], ...]:
    """What a pass on the meta device does not show.

    Autocast, hooks on saved tensors (checkpointing), and a seed that the model itself has set.
    """
    hooks, set_by_model = _saved(True), _seed()
    devices = [d for d in torch._C._autocast_supported_devices() if torch.is_autocast_enabled(d)]
    found: list[tuple[str, Any]] = [(f"autocast {d}", torch.get_autocast_dtype(d)) for d in devices]
    if set_by_model != seed:
        found.append(("seed", set_by_model))
    if hooks is not None:
        found.append(("saved by", f"{hooks[0].__module__}.{hooks[0].__qualname__}"))
    return tuple(found)


@contextmanager
def untraced() -> Iterator[None]:
    """A context that leaves every recording and every `torch.device(...)`: for work that is no part of a
    model.

    A trial that is asked while its model is built may build other models, or compute with tensors of its own.

    Examples:
        >>> def linear(trial):
        ...     with optnas.facts.untraced():
        ...         n = optnas.count_params(
        ...             nn.Linear(4, 8)
        ...         )  # a model of its own, which is not part of the network
        ...     return nn.Linear(4, n)
        >>> linear(trial)
        Linear(in_features=4, out_features=40, bias=True)
    """
    with ExitStack() as stack:
        modes = []
        while torch._C._len_torch_function_stack():
            modes.append(_pop_mode())  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for mode in modes:
            stack.callback(_push_mode, mode)  # the last one first
        stack.enter_context(_disable_current_modes())
        yield


@contextmanager
def eager() -> Iterator[None]:
    """Compiled parts run as they were written; nothing is imported for it where nothing is compiled."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


_outputs: dict[Any, list[Geometry]] = {}  # what operations made of shapes before; bounded below


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], key: Any) -> Any:
    """Run an operation, or repeat on the meta device what it made of the same shapes and arguments before.

    Many meta kernels are Python: a BatchNorm takes a millisecond, and blocks and trials repeat themselves.
    """
    if key is not None and (known := _outputs.get(key)) is not None:
        if not known:
            return args[0]
        made = [
            torch.empty_strided(size, stride, dtype=dtype, device="meta") for dtype, size, stride, *_ in known
        ]
        return made[0] if len(made) == 1 else tuple(made)
    out = func(*args, **kwargs)
    if key is not None:
        if len(_outputs) >= 20_000:
            _outputs.clear()
        inputs = {_storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = list(out) if isinstance(out, tuple) and len(out) > 1 else [out]
        if args and out is args[0]:
            _outputs[key] = []
        elif all(
            isinstance(t, Tensor) and _storage(t) not in inputs and t.storage_offset() == 0 for t in made
        ):
            _outputs[key] = [_geometry(t) for t in made]
    return out


def _is_sized_by_shapes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], key: Any, out: Any) -> bool:
    """Whether shapes alone decide those of what an operation made on the CPU: on meta they are equal."""
    made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
    elsewhere = {name: value for name, value in kwargs.items() if name not in _PLACED}
    try:
        expected = tree_leaves(_run(func, _on_meta(args), _on_meta(elsewhere), key))
    except Exception:  # whatever an operation raises that has no form on meta
        return False
    return [t.shape for t in made] == [t.shape for t in expected if isinstance(t, Tensor)]


def _has_mask(tensors: list[tuple[str, Tensor]]) -> bool:
    """Whether indices select by true or false, so that their values decide how many are selected."""
    return any(t.dtype in (torch.bool, torch.uint8) for role, t in tensors if role != "0")


@cache
def _schema(func: Any) -> tuple[str, tuple[int, ...], bool, bool, bool]:
    """Of an operation: its bare name, the positions it writes to, whether it only moves a tensor, whether it
    draws random numbers, and whether values decide what Python sees of its result."""
    schema = func._schema
    written = tuple(
        i for i, a in enumerate(schema.arguments) if a.alias_info is not None and a.alias_info.is_write
    )
    tags = func.tags
    decided = any(tag in tags for tag in _DECIDED_BY_VALUES)
    draws = torch.Tag.nondeterministic_seeded in tags
    return schema.name.removeprefix("aten::"), written, torch.Tag.inplace_view in tags, draws, decided


def _named(name: str, func: Any, plain: list[tuple[str, Any]]) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """One name for an operation and its in-place twin, and for all ways to fill a tensor with a number."""
    if name in _FILLS:
        return "fill", (("0", _FILLS[name]),)
    if name in _FILL_WITH:
        value = dict(plain).get(str(_FILL_WITH[name]))
        if isinstance(value, bool | int | float):
            return "fill", (("0", float(value)),)
    in_place = name.endswith("_") and not name.endswith("__")
    return f"{name[:-1] if in_place else name}.{func._overloadname}", tuple(plain)


def _storage(tensor: Tensor) -> int:
    if tensor.layout != torch.strided:  # it has none; nothing shares its memory but its parts
        return int(tensor._cdata)
    return int(tensor.untyped_storage()._cdata)


def _geometry(t: Tensor) -> Geometry:
    if t.layout != torch.strided:
        return (t.dtype, tuple(t.shape), (), 0, False, False)
    return (t.dtype, tuple(t.shape), t.stride(), int(t.storage_offset()), t.is_conj(), t.is_neg())


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor) and not value.is_meta:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, dict):
        return {name: _on_meta(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_on_meta(item) for item in value)
    return value


def digest(array: np.ndarray[Any, Any]) -> str:
    if array.dtype.hasobject:
        raise TypeError("not an array of numbers")
    return f"{array.dtype}{array.shape}{blake2b(array.tobytes(), digest_size=16).hexdigest()}"
