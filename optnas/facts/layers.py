"""What a network computes, operation by operation: how many layers, how deep, which operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from optnas.facts.cost import run_recorded
from optnas.facts.fact import Fact
from optnas.facts.inputs import Example


def count_layers(model: nn.Module, example: Example) -> int:
    """How many matrix products, convolutions and attentions of a forward pass the output depends on.

    Examples:
        >>> optnas.facts.count_layers(
        ...     nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (2, 4)
        ... )
        2
    """
    return sum(operation.layer and operation.live for operation in operations(model, example))


def count_depth(model: nn.Module, example: Example) -> int:
    """How many matrix products, convolutions and attentions follow one another on the longest path of a
    forward pass. The steps of a recurrent layer follow one another.

    Examples:
        >>> optnas.facts.count_depth(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (2, 4))
        2
    """
    return max((operation.depth for operation in operations(model, example)), default=0)


N_LAYERS = Fact("n_layers", count_layers, "layers")
"""The number of layers that compute; see `count_layers`.

Examples:
    >>> optnas.facts.N_LAYERS.of(model, example)
    2
"""

DEPTH = Fact("depth", count_depth, "depth")
"""The number of layers on the longest path; see `count_depth`.

Examples:
    >>> optnas.facts.DEPTH.of(model, example)
    2
"""


@dataclass(frozen=True)
class Operation:
    """One operation of a forward pass that computes something from what it reads: views are none.

    `kind` is the operator with what its cost depends on most, such as `convolution 3x3`; `layer`: whether it
    is a matrix product, a convolution or an attention. `live`: whether the output depends on it. `depth`: the
    layers on the longest chain that ends with it, 0 unless live. `elements`: numbers that it writes. `flops`:
    of the whole batch.
    """

    kind: str
    layer: bool
    live: bool
    depth: int
    elements: int
    flops: int


def operations(model: nn.Module, example: Example) -> list[Operation]:
    """The operations of one forward pass in eval mode, in their order, found on the meta device.

    Raises:
        ValueError: the model is lazy and has not seen an input yet.
    """
    recorder, output = run_recorded(model, example, _Recorder)
    return recorder.read([t for t in tree_leaves(output) if isinstance(t, Tensor)])


@dataclass(frozen=True)
class _Row:
    kind: str
    layer: bool
    reads: set[int]
    writes: set[int]
    elements: int
    flops: int


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its __init_subclass__ untyped
    """Every operation of a pass: which memory it reads and writes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.rows: list[_Row] = []
        self.kept: list[Any] = []  # so that no memory's number is given to another

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet, name = func._overloadpacket, func._schema.name.rpartition("::")[2]
        by_shape = name.endswith("_like") or name.startswith("new_")  # values are not read
        count = flop_registry.get(packet)
        self.rows.append(
            _Row(
                kind=_kind(name, args),
                layer=count is not None,
                reads=set() if by_shape else self._memory((args, kwargs)),
                writes=self._memory(result),
                elements=sum(t.numel() for t in tree_leaves(result) if isinstance(t, Tensor)),
                flops=int(count(*args, **kwargs, out_val=result)) if count is not None else 0,
            )
        )
        return result

    def _memory(self, values: Any) -> set[int]:
        storages = [t.untyped_storage() for t in tree_leaves(values) if isinstance(t, Tensor)]
        self.kept += storages
        return {storage._cdata for storage in storages}

    def read(self, outputs: list[Tensor]) -> list[Operation]:
        """What was recorded, of a pass with these outputs."""
        needed = self._memory(outputs)
        live: list[bool] = []
        for row in reversed(self.rows):
            live.append(not needed.isdisjoint(row.writes))
            needed |= row.reads if live[-1] else set()
        found, depths = [], dict[int, int]()
        for row, lives in zip(self.rows, reversed(live), strict=True):
            depth = max((depths.get(m, 0) for m in row.reads | row.writes), default=0) + row.layer
            depths.update((memory, depth) for memory in row.writes)
            computes = not row.writes <= row.reads or row.kind.endswith("_")
            if computes and row.reads:
                found.append(Operation(row.kind, row.layer, lives, depth * lives, row.elements, row.flops))
        return found


def _kind(name: str, args: Any) -> str:
    """The operator, of convolutions and pools with its kernel."""
    if name == "convolution":
        kernel, groups = args[1].shape[2:], args[8]
        return f"convolution {'x'.join(map(str, kernel))}{' grouped' if groups > 1 else ''}"
    if "pool" in name and len(args) > 1 and isinstance(args[1], list | tuple):
        return f"{name} {'x'.join(map(str, args[1]))}"
    return name
