"""What a model costs: parameters, floating-point operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from operator import methodcaller
from typing import Any, TypeVar

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from optnas.facts.inputs import Arguments, Example, Inputs, as_inputs, copied, tensors_in

M = TypeVar("M", bound=AbstractContextManager[Any])


def count_params(model: nn.Module) -> int:
    """The number of parameters, trainable or not; one that is shared counts once, buffers do not count.

    Raises:
        ValueError: the model is lazy and has not seen an input yet.

    Examples:
        >>> optnas.count_params(nn.Linear(4, 3))
        15
    """
    refuse_lazy(model)
    return sum(parameter.numel() for parameter in model.parameters())


def count_flops(model: nn.Module, example: Example) -> int:
    """Floating-point operations of one forward pass in eval mode on the whole batch; a multiply-add is 2.

    Matrix products, convolutions and attention count, as in torch's FlopCounterMode; the rest does not. The
    pass runs on the meta device and neither copies nor computes anything; a model that cannot run there,
    because its Python code looks at values, is run where it is.

    Raises:
        ValueError: the model is lazy and has not seen an input yet.

    Examples:
        >>> optnas.count_flops(
        ...     nn.Linear(4, 3), (2, 4)
        ... )  # 2 rows, 4 * 3 multiply-adds each, which count 2
        48
    """
    counter, _ = run_recorded(model, example, lambda: FlopCounterMode(display=False))
    return int(counter.get_total_flops())


def flops_by_operator(model: nn.Module, example: Example) -> dict[str, int]:
    """What `count_flops` counts, by operator, such as `{"convolution": 900, "addmm": 100}`; the largest
    first.

    Raises:
        ValueError: the model is lazy and has not seen an input yet.

    Examples:
        >>> optnas.facts.flops_by_operator(nn.Linear(4, 3), (2, 4))
        {'addmm': 48}
    """
    counter, _ = run_recorded(model, example, lambda: FlopCounterMode(display=False))
    found = {op.__name__: int(flops) for op, flops in counter.get_flop_counts().get("Global", {}).items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def materialize(model: nn.Module, example: Example) -> nn.Module:
    """Run one forward pass on `example`, so that lazy modules get their shapes; return the model.

    The pass also shows whether the model accepts such inputs at all: its errors pass through. It runs in
    eval mode and without gradients, so BatchNorm statistics stay as they are, and so does the random state,
    except for what the initialization of lazy parameters draws.

    Examples:
        >>> lazy = nn.LazyLinear(3)
        >>> optnas.facts.materialize(lazy, (2, 4)).in_features
        4
    """
    args, kwargs = as_inputs(example, _device(model))
    with inference(model):
        model(*args, **kwargs)
    return model


def other_numbers(model: nn.Module, example: Example) -> str:
    """What to do where a model that does not run on an example would run on other numbers; "" elsewhere.

    Examples:
        >>> images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
        >>> optnas.facts.cost.other_numbers(nn.Conv2d(3, 4, 3), images)[:40]
        'its inputs are numbers of torch.uint8, a'
    """
    args, kwargs = as_inputs(example, _device(model))
    kinds = {tensor.dtype for value in (*args, *kwargs.values()) for tensor in tensors_in(value)}
    ways = {
        torch.float32: "convert images with x.float() / 255, other numbers with x.float(), everywhere",
        torch.int64: "give tokens and categories as whole numbers, x.long(), everywhere",
    }
    for wanted, way in ways.items():
        if kinds <= {wanted}:
            continue
        try:
            with inference(model):
                others, named = copied(Arguments(*args, **kwargs), methodcaller("to", wanted))
                model(*others, **named)
        except Exception:  # it runs on these as little; what it says of the given ones is told
            continue
        given = ", ".join(sorted(map(str, kinds)))
        return f"its inputs are numbers of {given}, and on {wanted} it runs: {way}, or let the model do so"
    return ""


def run_recorded(model: nn.Module, example: Example, recorder: Callable[[], M]) -> tuple[M, Any]:
    """One forward pass in eval mode under a recorder, which is returned with the output.

    On the meta device, or where the model is if it cannot run there; then under a new recorder.

    Raises:
        ValueError: the model is lazy and has not seen an input yet.
    """
    refuse_lazy(model)
    with inference(model):
        try:
            with recorder() as on_meta:
                return on_meta, run_on_meta(model, example)
        except Exception:
            device = _device(model)
            if device.type == "meta":
                raise
            args, kwargs = as_inputs(example, device)
            with torch.random.fork_rng(), countable(), recorder() as on_device:
                return on_device, model(*args, **kwargs)


def run_on_meta(model: nn.Module, example: Example) -> Any:
    """The output of one forward pass on the meta device, which neither copies nor computes anything."""
    return call_on_meta(model, as_inputs(example, "meta"))


def call_on_meta(model: nn.Module, inputs: Inputs) -> Any:
    """`run_on_meta` with inputs that are there."""
    args, kwargs = inputs
    tensors = (t for m in model.modules() for t in (*m._parameters.values(), *m._buffers.values()))
    if all(t is None or t.is_meta for t in tensors):
        return model(*args, **kwargs)
    state = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    # One stand-in for each tensor, so that tied weights stay tied.
    stand_ins = {id(tensor): torch.empty_like(tensor, device="meta") for _, tensor in state}
    return functional_call(model, {name: stand_ins[id(tensor)] for name, tensor in state}, args, kwargs)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Train or eval: every module's own mode comes back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def inference(model: nn.Module, *, fused: bool = False) -> Iterator[None]:
    """Eval mode without gradients; every module's own mode comes back afterwards.

    Unless `fused`, attention goes the way it goes in training: FlopCounterMode does not know the fused
    layers of torch.nn.TransformerEncoder, and they refuse the meta device.
    """
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fused and fastpath)
    try:
        with modes_kept(model), torch.no_grad():
            model.eval()
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


@contextmanager
def countable() -> Iterator[None]:
    """Attention and recurrent layers on the CPU as products, which are counted, not as one kernel each."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


def _device(model: nn.Module) -> torch.device:
    tensor = next((t for ts in (model.parameters(), model.buffers()) for t in ts), None)
    return torch.get_default_device() if tensor is None else tensor.device


def refuse_lazy(model: nn.Module) -> None:
    """Raises ValueError where a parameter or buffer waits for an input to get its shape."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(
                f"{name!r} of {type(model).__name__} is lazy and has no shape yet; "
                "call materialize(model, example) first."
            )
