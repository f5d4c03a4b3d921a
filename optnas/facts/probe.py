"""What a zero-cost score lets an untrained model do: one batch, its loss, what of the model is alive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from optnas.facts.cost import refuse_lazy
from optnas.facts.inputs import Example, Inputs, as_inputs, batch_size

Loss = Callable[[Tensor, Tensor], Tensor]

_RECTIFIERS = {
    *(F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh, F.hardtanh_),
    *(F.leaky_relu, F.leaky_relu_, F.prelu, torch.prelu, F.rrelu, F.elu, F.elu_, F.selu, F.celu),
    *(F.gelu, F.silu, F.mish, F.hardswish, F.softplus),
}
_NORMALIZATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)


@dataclass(frozen=True)
class Probe:
    """One batch and the loss on it.

    `inputs` are positional and keyword arguments; `targets` None: classes drawn at random. `loss` averages
    over the samples.
    """

    inputs: Inputs
    targets: Tensor | None
    loss: Loss
    seed: int

    def __len__(self) -> int:
        return batch_size(self.inputs)

    def chunks(self, n: int) -> Iterator[Probe]:
        """The batch in `n` parts of equal size, one after the other; what is left over is left out."""
        size = len(self) // n
        for i in range(n):
            part = slice(i * size, (i + 1) * size)
            inputs = tree_map(lambda t, part=part: t[part] if _has_rows(t) else t, self.inputs)
            yield Probe(
                inputs, None if self.targets is None else self.targets[part], self.loss, self.seed + i
            )

    def floating(self) -> list[Tensor]:
        """Its tensors of floating-point numbers, one row a sample."""
        args, kwargs = self.inputs
        return [t for t in (*args, *kwargs.values()) if _has_rows(t) and t.is_floating_point()]

    def check_floating(self, who: str) -> None:
        """Raises ValueError where it has none."""
        if not self.floating():
            raise ValueError(f"{who} needs inputs of floating-point numbers.")

    def map(self, change: Callable[[Tensor], Tensor]) -> Probe:
        """The same batch with its tensors of floating-point numbers changed."""
        inputs = tree_map(lambda t: change(t) if _has_rows(t) and t.is_floating_point() else t, self.inputs)
        return Probe(inputs, self.targets, self.loss, self.seed)

    def output(self, model: nn.Module) -> Tensor:
        """The model's output, or of several the first that gradients can go through.

        Raises:
            ValueError: there is none.
        """
        args, kwargs = self.inputs
        values, _ = tree_flatten(model(*args, **kwargs))
        for value in values:
            if isinstance(value, Tensor) and value.is_floating_point():
                return value
        raise ValueError(f"{type(model).__name__} returns no tensor of floating-point numbers.")

    def loss_of(self, model: nn.Module) -> Tensor:
        """The loss on the batch.

        Raises:
            ValueError: no targets are given, and the outputs are not class scores.
        """
        output = self.output(model)
        if self.targets is not None:
            return self.loss(output, self.targets)
        if output.dim() < 2 or output.shape[1] < 2:
            raise ValueError(
                f"Outputs of shape {tuple(output.shape)} are not class scores: give targets= and loss=, "
                "for example zero_cost(snip, x, y, loss=torch.nn.functional.mse_loss)."
            )
        generator = torch.Generator().manual_seed(self.seed)
        shape = (len(output), *output.shape[2:])
        return self.loss(output, torch.randint(output.shape[1], shape, generator=generator))


def draw(example: Example, n: int, seed: int) -> Inputs:
    """`n` random samples like those of an example: standard normal, or of whole numbers those it has."""
    generator = torch.Generator().manual_seed(seed)

    def like(tensor: Any) -> Any:
        if not _has_rows(tensor):
            return tensor
        shape = (n, *tensor.shape[1:])
        if tensor.is_floating_point():
            return torch.randn(shape, generator=generator, dtype=tensor.dtype)
        values = tensor.flatten()
        return values[torch.randint(len(values), shape, generator=generator)]

    inputs: Inputs = tree_map(like, as_inputs(example, "cpu"))
    return inputs


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def prepare(model: nn.Module) -> nn.Module:
    """The model in train mode, so that BatchNorm normalizes by the batch, but without dropout."""
    refuse_lazy(model)
    model.train()
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.eval()
    return model


def without_normalization(model: nn.Module) -> None:
    """Let every normalization pass on what it gets."""
    for module in model.modules():
        if isinstance(module, _NORMALIZATIONS):
            module.forward = _same  # type: ignore[method-assign]  # of a copy that is thrown away


def normalizations(model: nn.Module) -> list[nn.Module]:
    """Its normalization layers."""
    return [module for module in model.modules() if isinstance(module, _NORMALIZATIONS)]


def weights(model: nn.Module) -> list[nn.Parameter]:
    """What is trained of matrices and kernels: no biases, no scales of normalizations.

    Raises:
        ValueError: there is none.
    """
    found = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
    if not found:
        raise ValueError(f"{type(model).__name__} has no trainable matrix or kernel.")
    return found


def gradients(of: Tensor, tensors: list[Any], *, create_graph: bool = False) -> list[tuple[Any, Tensor]]:
    """Each tensor that `of` depends on, with its gradient: dead branches are left out.

    Raises:
        ValueError: it depends on none.
    """
    found = torch.autograd.grad(of, tensors, create_graph=create_graph, allow_unused=True)
    alive = [(t, g) for t, g in zip(tensors, found, strict=True) if g is not None]
    if not alive:
        raise ValueError("The output depends on nothing that is trained.")
    return alive


class Rectifiers(TorchFunctionMode):
    """Calls `seen(index, x)` with what each rectifier (ReLU and its smooth relatives) gets, in their order.

    `outputs` notes where each result stands in the graph of gradients.
    """

    def __init__(self, seen: Callable[[int, Tensor], None] = lambda index, x: None) -> None:
        super().__init__()
        self.seen = seen
        self.outputs: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _RECTIFIERS:
            return func(*args, **(kwargs or {}))
        x = args[0] if args else (kwargs or {})["input"]
        self.seen(len(self.outputs), x.detach())
        result = func(*args, **(kwargs or {}))
        self.outputs.append(result.grad_fn)
        return result


class LastMap(TorchFunctionMode):
    """Keeps the last tensor of the batch that still has positions: what a network has before it pools."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.found: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (
            isinstance(result, Tensor)
            and result.is_floating_point()
            and result.dim() > 2
            and len(result) == self.batch
            and result.shape[2:].numel() > 1
        ):
            self.found = result
        return result


def reached(output: Tensor) -> set[Any]:
    """All functions in the graph of gradients that lead to the output."""
    seen: set[Any] = set()
    waiting = [output.grad_fn]
    while waiting:
        function = waiting.pop()
        if function is not None and function not in seen:
            seen.add(function)
            waiting += [following for following, _ in function.next_functions]
    return seen


def _same(x: Tensor) -> Tensor:
    return x
