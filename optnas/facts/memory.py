"""What a network needs of memory, found on the meta device: parameters, activations, a training step."""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from optnas.facts.cost import inference, modes_kept, refuse_lazy
from optnas.facts.fact import Fact, preferred_device
from optnas.facts.inputs import Example, Inputs, as_inputs
from optnas.facts.inputs import batch_size as batch_size_of


@dataclass(frozen=True)
class Memory:
    """Bytes that a pass holds at its peak.

    `activations` is what the pass makes beyond what was there before it: intermediate and kept tensors, and
    in training the gradients.

    Examples:
        >>> memory = optnas.facts.estimate_memory(nn.Linear(4, 3), (2, 4))
        >>> memory.parameters  # 15 numbers of 4 bytes
        60
    """

    parameters: int
    buffers: int
    inputs: int
    activations: int
    optimizer: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.buffers + self.inputs + self.activations + self.optimizer


def estimate_memory(
    model: nn.Module,
    example: Example,
    *,
    batch_size: int | None = None,
    training: bool = False,
    optimizer_states: int = 0,
) -> Memory:
    """The memory that one pass needs at its peak: a forward pass in eval mode without gradients, or a
    training step.

    The pass runs on the meta device and allocates nothing; a model that cannot run there is run for real, on
    a copy, where it is. A step of training is a forward pass in train mode and the backward pass of the sums
    of its outputs. Memory that kernels use for a moment is not counted: on the CPU a training step of
    convolutions, linear layers and attention takes what is estimated within 5 %, a forward pass up to a third
    more or less, and fused recurrent layers three times as much.

    Args:
        batch_size: batch size of the pass; by default that of the example.
        optimizer_states: numbers that an optimizer keeps for each trained parameter: 2 for Adam, 1 for SGD
            with momentum.

    Raises:
        ValueError: the model is lazy and has not seen an input yet.

    Examples:
        >>> optnas.facts.estimate_memory(
        ...     model, example, batch_size=64, training=True, optimizer_states=2
        ... ).total > 0
        True
    """
    refuse_lazy(model)
    try:
        return _estimate(model, _at(as_inputs(example, "meta"), batch_size), training, optimizer_states)
    except Exception:
        device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        if device.type == "meta":
            raise
        with torch.random.fork_rng():
            inputs = _at(as_inputs(example, device), batch_size)
            return _estimate(copy.deepcopy(model), inputs, training, optimizer_states)


def memory_of_device() -> int:
    """Bytes that the device of trainings has: the accelerator that torch finds, else this machine.

    1 where the system does not tell, so that what is compared with it is compared as it is.
    """
    device = preferred_device()
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no POSIX
        return 1


def bytes_by_dtype(model: nn.Module) -> dict[str, int]:
    """Bytes of parameters and buffers by their dtype, such as `{"float32": 4000}`; shared ones count once.

    Examples:
        >>> optnas.facts.bytes_by_dtype(nn.Linear(4, 3))
        {'float32': 60}
    """
    found: dict[str, int] = {}
    for tensor in {id(t): t for t in (*model.parameters(), *model.buffers())}.values():
        name = str(tensor.dtype).removeprefix("torch.")
        found[name] = found.get(name, 0) + tensor.numel() * tensor.itemsize
    return found


def count_bytes(model: nn.Module, dtype: torch.dtype | None = None) -> int:
    """Bytes of parameters and buffers; with `dtype`, as if all floating-point numbers were stored in it.

    Examples:
        >>> (
        ...     optnas.facts.count_bytes(nn.Linear(4, 3)),
        ...     optnas.facts.count_bytes(nn.Linear(4, 3), torch.float16),
        ... )
        (60, 30)
    """
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}.values()
    return sum(
        t.numel() * (dtype.itemsize if dtype is not None and t.is_floating_point() else t.itemsize)
        for t in tensors
    )


def size(dtype: torch.dtype | None = None, *, name: str = "n_bytes") -> Fact:
    """Bytes of parameters and buffers as a fact; see `count_bytes`.

    Examples:
        >>> optnas.facts.size(torch.int8).of(nn.Linear(4, 3), (2, 4))
        15
    """
    return Fact(name, lambda model, example: count_bytes(model, dtype), "size", "bytes", "lower")


def activation_memory(
    batch_size: int | None = None, *, training: bool = False, name: str = "activation_memory"
) -> Fact:
    """Bytes that a pass makes at its peak, as a fact; see `Memory.activations` and `estimate_memory`.

    Examples:
        >>> activations = optnas.facts.activation_memory(32, training=True)
        >>> fits = optnas.Objective(
        ...     space, training, facts=[activations], limits={"activation_memory": 2e9}
        ... )
    """

    def measure(model: nn.Module, example: Any) -> int:
        return estimate_memory(model, example, batch_size=batch_size, training=training).activations

    return Fact(name, measure, "activation memory", "bytes", "lower")


def training_memory(
    batch_size: int | None = None, *, optimizer_states: int = 2, name: str = "training_memory"
) -> Fact:
    """Bytes that a step of training holds at its peak, everything counted, as a fact: `Memory.total`.

    Examples:
        >>> memory = optnas.facts.training_memory(64)
        >>> fits = optnas.Objective(space, training, facts=[memory], limits={"training_memory": 8e9})
    """

    def measure(model: nn.Module, example: Any) -> int:
        return estimate_memory(
            model, example, batch_size=batch_size, training=True, optimizer_states=optimizer_states
        ).total

    return Fact(name, measure, "training memory", "bytes", "lower")


# ---- a pass under watch ----


def _estimate(model: nn.Module, inputs: Inputs, training: bool, optimizer_states: int) -> Memory:
    tensors = [t for t in tree_leaves(inputs) if isinstance(t, Tensor)]
    on_meta = all(t.is_meta for t in tensors)
    own = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    # One stand-in for each tensor, so that tied weights stay tied.
    stand_ins = {id(t): _stand_in(t) if on_meta else t for _, t in own}
    watch = _Watch([*stand_ins.values(), *tensors])
    args, kwargs = inputs
    with _in_training(model) if training else inference(model), watch:
        output = functional_call(model, {name: stand_ins[id(t)] for name, t in own}, args, kwargs)
        if training:
            numbers = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
            torch.autograd.backward([t.sum() for t in numbers])
        del output
    parameters = list(model.parameters())
    return Memory(
        parameters=sum(map(_bytes, parameters)),
        buffers=sum(map(_bytes, model.buffers())),
        inputs=sum(map(_bytes, tensors)),
        activations=watch.peak,
        optimizer=optimizer_states * sum(_bytes(p) for p in parameters if p.requires_grad),
    )


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its __init_subclass__ untyped
    """How many bytes the tensors take that are made under it and not yet gone; `peak` is the most."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.now = self.peak = 0
        self._seen = weakref.WeakSet(t.untyped_storage() for t in known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        n = storage.nbytes()
        self.now += n
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, n)

    def _gone(self, n: int) -> None:
        self.now -= n


def _stand_in(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta", requires_grad=tensor.requires_grad)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.itemsize


def _at(inputs: Inputs, batch_size: int | None) -> Inputs:
    """The inputs with another number of samples: the first ones, again and again."""
    before = batch_size_of(inputs)
    if batch_size is None or batch_size == before:
        return inputs

    def resized(tensor: Tensor) -> Tensor:
        if not tensor.dim() or len(tensor) != before:
            return tensor
        return tensor[torch.arange(batch_size, device=tensor.device) % before]

    changed: Inputs = tree_map(resized, inputs)
    return changed


@contextmanager
def _in_training(model: nn.Module) -> Iterator[None]:
    """Train mode with gradients; every module's own mode comes back afterwards."""
    with modes_kept(model), torch.enable_grad():
        model.train()
        yield
