"""What a model costs: parameters, floating-point operations, latency.

An `example` describes the inputs wherever one is asked for: a shape with the batch dimension (float32), a
tensor, a tuple of tensors (positional arguments), a dict of tensors (keyword arguments), or a tuple of
tensors that ends with such a dict.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

Example: TypeAlias = tuple[int, ...] | Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]
M = TypeVar("M", bound=AbstractContextManager[Any])
Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

_FORMS = (
    "a shape with the batch dimension like (8, 3, 32, 32), a tensor, a tuple of tensors, a dict of tensors"
)


def as_inputs(example: Example, device: torch.device | str) -> Inputs:
    """The arguments and keyword arguments that `example` stands for, on `device`.

    A shape becomes zeros; tensors keep their dtype and, except on the meta device, their values. They are
    copies, for a model may write into its inputs.

    Raises:
        TypeError: not one of the four forms.
        ValueError: a shape without dimensions, or with one that is not positive.
    """
    if isinstance(example, Tensor):
        return (example.to(device, copy=True),), {}
    if isinstance(example, Mapping):
        if example and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in example.items()):
            return (), {name: value.to(device, copy=True) for name, value in example.items()}
    elif isinstance(example, tuple | list) and example:
        if len(example) > 1 and isinstance(example[-1], Mapping):
            args, _ = as_inputs(tuple(example[:-1]), device)
            return args, as_inputs(example[-1], device)[1]
        tensors = [value for value in example if isinstance(value, Tensor)]
        if len(tensors) == len(example):
            return tuple(tensor.to(device, copy=True) for tensor in tensors), {}
        sizes = [size for size in example if isinstance(size, int) and not isinstance(size, bool)]
        if len(sizes) == len(example):
            if min(sizes) < 1:
                raise ValueError(
                    f"The shape example={example!r} has a size below 1; every size is at least 1."
                )
            return (torch.zeros(sizes, device=device),), {}
    raise TypeError(f"example={_brief(example)} is not a description of inputs; give {_FORMS}.")


def batch_size(inputs: Inputs) -> int:
    """The first dimension of the first tensor that has one."""
    args, kwargs = inputs
    return next((value.shape[0] for value in (*args, *kwargs.values()) if value.dim()), 1)


def count_params(model: nn.Module) -> int:
    """The number of parameters, trainable or not; one that is shared counts once, buffers do not count.

    Raises:
        ValueError: the model is lazy and has not seen an input yet.
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
    """
    counter, _ = run_recorded(model, example, lambda: FlopCounterMode(display=False))
    return int(counter.get_total_flops())


def flops_by_operator(model: nn.Module, example: Example) -> dict[str, int]:
    """The same by operator, such as `{"convolution": 900, "addmm": 100}`; the most first.

    Raises:
        ValueError: the model is lazy and has not seen an input yet.
    """
    counter, _ = run_recorded(model, example, lambda: FlopCounterMode(display=False))
    found = {op.__name__: int(flops) for op, flops in counter.get_flop_counts().get("Global", {}).items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def measure_latency(model: nn.Module, example: Example, *, repeats: int = 20) -> float:
    """Seconds that one forward pass in eval mode takes on the model's device: the median of `repeats`.

    Three passes warm up first. Other work on the machine disturbs the figure: compare latencies that were
    measured side by side.
    """
    device = _device(model)
    args, kwargs = as_inputs(example, device)
    seconds = []
    with inference(model, fused=True):
        for _ in range(repeats + 3):
            _synchronize(device)
            start = time.perf_counter()
            model(*args, **kwargs)
            _synchronize(device)
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[3:]))


def materialize(model: nn.Module, example: Example) -> nn.Module:
    """Run one forward pass on `example`, so that lazy modules get their shapes; return the model.

    The pass also shows whether the model accepts such inputs at all: its errors pass through. It runs in
    eval mode and without gradients, so BatchNorm statistics stay as they are, and so does the random state,
    except for what the initialization of lazy parameters draws.
    """
    args, kwargs = as_inputs(example, _device(model))
    with inference(model):
        model(*args, **kwargs)
    return model


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
            with torch.random.fork_rng(), recorder() as on_device:
                return on_device, model(*args, **kwargs)


def run_on_meta(model: nn.Module, example: Example) -> Any:
    """The output of one forward pass on the meta device, which neither copies nor computes anything."""
    state = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    # One stand-in for each tensor, so that tied weights stay tied.
    stand_ins = {id(tensor): torch.empty_like(tensor, device="meta") for _, tensor in state}
    args, kwargs = as_inputs(example, "meta")
    return functional_call(model, {name: stand_ins[id(tensor)] for name, tensor in state}, args, kwargs)


@contextmanager
def inference(model: nn.Module, *, fused: bool = False) -> Iterator[None]:
    """Eval mode without gradients; every module's own mode comes back afterwards.

    Unless `fused`, attention goes the way it goes in training: FlopCounterMode does not know the fused
    layers of torch.nn.TransformerEncoder, and they refuse the meta device.
    """
    modes = [(module, module.training) for module in model.modules()]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fused and fastpath)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for module, training in modes:
            module.training = training


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


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _brief(example: object) -> str:
    text = repr(example)
    return text if len(text) <= 80 else f"{text[:77]}..."
