"""What a model is called with, as an example says it: arguments of any kind, copied to any device.

An `example` describes the inputs wherever one is asked for:

- a shape with the batch dimension such as (8, 3, 32, 32), which stands for zeros (float32);
- a tensor, or another object that holds tensors, a batch of graphs for example: the one argument;
- a tuple of positional arguments, or a dict of keyword arguments, of which some hold tensors; or a tuple of
  positional arguments that ends with such a dict;
- `Arguments(...)`, which says it in full: `Arguments([image, image], hard=True)`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

_FORMS = (
    "a shape with the batch dimension like (8, 3, 32, 32), a tensor, a tuple of arguments, a dict of keyword "
    "arguments, or optnas.Arguments(...) with all that the model is called with"
)


class Arguments:
    """What a model is called with: `Arguments(graph, hard=True)` stands for `model(graph, hard=True)`.

    The arguments may be anything that Python can copy: batches of graphs, lists of images, None, flags.

    Examples:
        >>> class Scaled(nn.Linear):
        ...     def forward(self, x, factor=1.0):
        ...         return super().forward(x) * factor
        >>> optnas.count_flops(Scaled(4, 2), optnas.Arguments(torch.zeros(8, 4), factor=0.5))
        128
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs

    def __repr__(self) -> str:
        shown = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"Arguments({', '.join(shown)})"


Example: TypeAlias = Any  # one of the forms above, which `arguments` tells apart


def arguments(example: Example) -> Arguments:
    """The arguments that `example` stands for, themselves where it holds them.

    Raises:
        TypeError: none of the forms.
        ValueError: a shape without dimensions, or with one that is not positive.
    """
    if isinstance(example, Arguments):
        return example
    if isinstance(example, Mapping):
        if all(isinstance(name, str) for name in example) and tensors_in(dict(example)):
            return Arguments(**example)
    elif isinstance(example, tuple | list) and not isinstance(example, PackedSequence):
        sizes = [size for size in example if isinstance(size, int) and not isinstance(size, bool)]
        if example and len(sizes) == len(example):
            if min(sizes) < 1:
                raise ValueError(
                    f"The shape example={example!r} has a size below 1; every size is at least 1."
                )
            return Arguments(torch.zeros(sizes, device="cpu"))
        if tensors_in(list(example)):
            named = len(example) > 1 and isinstance(example[-1], Mapping)
            return Arguments(*example[:-1], **example[-1]) if named else Arguments(*example)
    elif tensors_in(example):
        return Arguments(example)
    raise TypeError(f"example={_brief(example)} is not a description of inputs; give {_FORMS}.")


def as_inputs(example: Example, device: torch.device | str) -> Inputs:
    """The arguments and keyword arguments that `example` stands for, with their tensors on `device`.

    A shape becomes zeros; tensors keep their dtype and, except on the meta device, their values. They are
    copies, for a model may write into its inputs.

    Raises:
        TypeError: `example` has none of the known forms, or holds an argument that cannot be copied.
        ValueError: a shape without dimensions, or with one that is not positive.

    Examples:
        >>> args, kwargs = optnas.facts.as_inputs({"x": torch.ones(2, 4)}, "cpu")
        >>> kwargs["x"].shape
        torch.Size([2, 4])
    """
    given = arguments(example)
    return copied(given, lambda tensor: tensor.detach().to(device, copy=True))


def copied(given: Arguments, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Copies of the arguments, each with `change(tensor)` for every tensor in it.

    Raises:
        TypeError: an argument cannot be copied.
    """
    args = tuple(with_tensors(value, change) for value in given.args)
    return args, {name: with_tensors(value, change) for name, value in given.kwargs.items()}


def spread(x: Any) -> Inputs:
    """How the inputs of a batch are passed to a model: a tuple as several, a dict by name, others as one."""
    if isinstance(x, Mapping) and all(isinstance(name, str) for name in x):
        return (), dict(x)
    several = isinstance(x, tuple | list) and not isinstance(x, PackedSequence)
    return (tuple(x), {}) if several else ((x,), {})


def batch_size(inputs: Inputs) -> int:
    """The length of a list of tensors, else the first dimension of the first tensor that has one.

    In a batch of graphs this may be the number of nodes.
    """
    args, kwargs = inputs
    for value in (*args, *kwargs.values()):
        if isinstance(value, list) and value and all(isinstance(item, Tensor) for item in value):
            return len(value)
        for tensor in tensors_in(value):
            if tensor.dim():
                return int(tensor.shape[0])
    return 1


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors that a value holds, however deep, each once; none of what cannot be copied."""
    if isinstance(value, Tensor):
        return [value]
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    try:
        with_tensors(value, note)
    except TypeError:
        return []
    return found


def with_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A deep copy of a value in which `change(tensor)` stands for every tensor.

    Raises:
        TypeError: something in it cannot be copied.
    """
    if isinstance(value, Tensor):
        return change(value)
    try:
        with _Replacing(change):
            return copy.deepcopy(value)
    except Exception as error:  # whatever the copying of an object of the user's raises
        raise TypeError(
            f"A model's argument of type {type(value).__name__} cannot be copied ({error}), so no model can "
            "be tried with it; call= of the task can hand over the tensors that are in it."
        ) from error


class _Replacing(TorchFunctionMode):
    """Copies made under it have other tensors."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = self.change(tensor)
        return memo[id(tensor)]


def _brief(example: object) -> str:
    text = repr(example)
    return text if len(text) <= 80 else f"{text[:77]}..."
