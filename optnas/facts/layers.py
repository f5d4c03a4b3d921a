"""How many layers a network has, and how deep it is: what it computes, not what its modules are called."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from optnas.facts.cost import Example, run_recorded
from optnas.facts.fact import Fact


def count_layers(model: nn.Module, example: Example) -> int:
    """Matrix products, convolutions and attentions of a forward pass that the output depends on."""
    return _pass(model, example)[0]


def count_depth(model: nn.Module, example: Example) -> int:
    """The same, on the longest chain of them; the steps of a recurrent layer follow one another."""
    return _pass(model, example)[1]


N_LAYERS = Fact("n_layers", count_layers, "layers")
DEPTH = Fact("depth", count_depth, "depth")


def _pass(model: nn.Module, example: Example) -> tuple[int, int]:
    """How many layers, and how many on the longest chain."""
    recorder, output = run_recorded(model, example, _Recorder)
    return recorder.read([t for t in tree_leaves(output) if isinstance(t, Tensor)])


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its __init_subclass__ untyped
    """Every operation of a pass: which memory it reads and writes, and whether it is a layer."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.rows: list[tuple[set[int], set[int], bool]] = []
        self.kept: list[Any] = []  # so that no memory's number is given to another

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        name = func._schema.name.rpartition("::")[2]
        by_shape = name.endswith("_like") or name.startswith("new_")  # values are not read
        reads = set() if by_shape else self._memory((args, kwargs))
        self.rows.append((reads, self._memory(result), packet in flop_registry))
        return result

    def _memory(self, values: Any) -> set[int]:
        storages = [t.untyped_storage() for t in tree_leaves(values) if isinstance(t, Tensor)]
        self.kept += storages
        return {storage._cdata for storage in storages}

    def read(self, outputs: list[Tensor]) -> tuple[int, int]:
        depth: dict[int, int] = {}
        for reads, writes, layer in self.rows:
            reached = max((depth.get(memory, 0) for memory in reads | writes), default=0) + layer
            depth.update((memory, reached) for memory in writes)
        needed = self._memory(outputs)
        longest = max((depth.get(memory, 0) for memory in needed), default=0)
        layers = 0
        for reads, writes, layer in reversed(self.rows):
            if not needed.isdisjoint(writes):
                needed |= reads
                layers += layer
        return layers, longest
