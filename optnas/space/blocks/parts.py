"""What blocks are made of: modules that infer what they get, layers in sequence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter


class Inferred(nn.Module, ABC):
    """A module that makes its layers at its first forward pass, when it sees what it gets.

    Until then it holds one parameter without a shape, as torch's lazy modules do: code that counts or saves
    parameters notices, and `.to(...)` decides where and in which type the layers are made. Call `infer` first
    in `forward`.

    Examples:
        >>> class Scale(blocks.Inferred):
        ...     def make(self, x):
        ...         self.factor = nn.Parameter(torch.ones(x.shape[-1]))
        ...
        ...     def forward(self, x):
        ...         self.infer(x)
        ...         return x * self.factor
        >>> Scale()(torch.zeros(2, 7)).shape
        torch.Size([2, 7])
    """

    def __init__(self) -> None:
        super().__init__()
        self.not_yet_made: Tensor | None = UninitializedParameter()

    @abstractmethod
    def make(self, *inputs: Tensor) -> None:
        """Make the layers for such inputs.

        Nothing made here may depend on the training mode, as dropout and batch normalization do: callers
        that run a first pass in eval mode restore the modes of the modules that they saw before.
        """

    def infer(self, *inputs: Tensor) -> None:
        """Make the layers, unless they are there."""
        like = self.not_yet_made
        if like is None:
            return
        self.not_yet_made = None
        with like.device:
            self.make(*inputs)
        if like.dtype != torch.get_default_dtype():
            self.to(like.dtype)

    def _load_from_state_dict(self, state: Any, prefix: str, *args: Any) -> None:
        if self.not_yet_made is not None and f"{prefix}not_yet_made" not in state:
            raise ValueError(
                f"{prefix.rstrip('.') or 'The model'} has not seen an input yet, so that it has no layers to "
                "load a state into; call materialize(model, example) first."
            )
        super()._load_from_state_dict(state, prefix, *args)


class Stack(nn.Sequential):
    """Blocks in sequence, all of which get the further arguments, such as `mask`: `stack(x, mask=mask)`.

    Examples:
        >>> stack = blocks.Stack(blocks.encoder_block(trial), blocks.encoder_block(trial))
        >>> stack(torch.zeros(2, 10, 32), mask=torch.ones(2, 10, dtype=torch.bool)).shape
        torch.Size([2, 10, 32])
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]  # more of them
        for block in self:
            x = block(x, *args, **kwargs)
        return x


def sequential(**layers: nn.Module | None) -> nn.Sequential:
    """Layers by name; None is left out.

    Examples:
        >>> list(blocks.sequential(first=nn.Linear(4, 8), norm=None, act=nn.ReLU()))
        [Linear(in_features=4, out_features=8, bias=True), ReLU()]
    """
    return nn.Sequential(OrderedDict((name, layer) for name, layer in layers.items() if layer is not None))


def mask_of(lengths: Tensor, length: int) -> Tensor:
    """`(n, length)`, True at the first `lengths[i]` positions of sample i.

    Examples:
        >>> blocks.mask_of(torch.tensor([1, 3]), 3)
        tensor([[ True, False, False],
                [ True,  True,  True]])
    """
    return torch.arange(length, device=lengths.device) < lengths[:, None]
