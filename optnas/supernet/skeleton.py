"""One sub-network without its weights, and under which names these are shared.

A weight is known by its name in the network, in which every module that a `Choice` built carries the name of
its candidate: `body.0<conv>.norm.weight`. So candidates have weights of their own, and a weight that differs
in size between networks (a width, a kernel, an expansion) is a slice of the largest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from optuna.distributions import BaseDistribution
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from optnas.answers import Pick
from optnas.errors import SpaceError
from optnas.facts.cost import materialize
from optnas.facts.inputs import Example
from optnas.space.blocks import Residual
from optnas.space.explore import on_meta
from optnas.space.nodes import Answering, Choice, Repeat, building_with
from optnas.trial import Draw, Space, Trial


@dataclass(frozen=True)
class Weight:
    """One parameter of one sub-network.

    Attributes:
        key: the name under which it is shared.
        kind: of which class its module is, and what it is there.
        shape: in this sub-network.
        kernel: whether its dimensions from the third on are those of a convolution's kernel.
        stacked: how many matrices of one size stand below each other in it: the gates of an LSTM, say.
        optional: whether it is there only where shapes ask for it (the projection of a `Residual`).
    """

    key: str
    kind: str
    shape: tuple[int, ...]
    kernel: bool
    stacked: int
    optional: bool

    def within(self, largest: Tensor) -> Tensor:
        """Its part of the shared one: the first channels, and the middle of a kernel."""
        return self.place(largest).reshape(self.shape)

    def place(self, largest: Tensor) -> Tensor:
        """The same as a view, with a dimension in front where several matrices are stacked."""
        part, shape = largest, self.shape
        if self.stacked > 1:
            part = part.view(self.stacked, -1, *part.shape[1:])
            shape = self.stacked, shape[0] // self.stacked, *shape[1:]
        for dim, (size, whole) in enumerate(zip(shape, part.shape, strict=True)):
            if size != whole:
                # The offsets of a kernel of size k begin at -((k - 1) // 2), as blocks pad.
                start = (whole - 1) // 2 - (size - 1) // 2 if self.kernel and dim > 1 else 0
                part = part.narrow(dim, start, size)
        return part


@dataclass(frozen=True)
class Skeleton:
    """A sub-network whose parameters hold nothing, or nothing that matters.

    Attributes:
        model: the network, which has run once, so that lazy modules have their shapes.
        params: the answers that lead to it.
        trial: who answered, with the distributions.
        declared: the names that nodes asked.
        weights: by the name in the model; of tied ones the first.
    """

    model: nn.Module
    trial: Draw
    declared: frozenset[str]
    weights: Mapping[str, Weight]

    @property
    def params(self) -> dict[str, Any]:
        return self.trial.params

    @property
    def n_params(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def fresh_statistics(self, device: torch.device) -> None:
        """Put the buffers on the device, and reset those of normalizations, which no sub-network owns."""
        for module in self.model.modules():
            for name, buffer in module._buffers.items():
                if buffer is None:
                    continue
                if isinstance(module, _NormBase):
                    fill = torch.ones if name == "running_var" else torch.zeros
                    module._buffers[name] = fill(buffer.shape, dtype=buffer.dtype, device=device)
                else:
                    module._buffers[name] = buffer.to(device)


def skeleton(space: Space[nn.Module], pick: Pick, example: Example) -> Skeleton:
    """The sub-network of the answers that `pick` gives, without weights where its code allows.

    Raises:
        SpaceError: weights cannot be told apart, since what a `Choice` built is taken to pieces.
    """
    notes, model = on_meta(lambda: _build(space, pick))
    try:
        with _ShapesOnly():
            materialize(model, example)
        values = any(_needs_values(module) for module in model.modules())
    except Exception:  # it may need numbers to run; a run with numbers judges
        values = True
    if values:
        with torch.random.fork_rng(devices=[]):
            notes, model = _build_for_real(space, pick, example)
    return Skeleton(model, notes.trial, frozenset(notes.declared), _weights(model, notes))


def real(space: Space[nn.Module], pick: Pick, example: Example) -> nn.Module:
    """The same network with initial weights, drawn from torch's generators."""
    return _build_for_real(space, pick, example)[1]


def _build_for_real(space: Space[nn.Module], pick: Pick, example: Example) -> tuple[_Notes, nn.Module]:
    device = torch.get_default_device()
    with torch.device("cpu" if device.type == "meta" else device):
        notes, model = _build(space, pick)
        return notes, materialize(model, example)


def _build(space: Space[nn.Module], pick: Pick) -> tuple[_Notes, nn.Module]:
    notes = _Notes(pick)
    with building_with(notes):
        return notes, space(notes.trial)


class _ShapesOnly(TorchFunctionMode):
    """Leaves out what costs most of a pass on the meta device, and changes no shape."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.batch_norm:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


class _Notes(Answering):
    """Notes which names nodes ask, and from which candidate each module is built."""

    def __init__(self, pick: Pick) -> None:
        super().__init__()
        self.declared: set[str] = set()
        self.candidates: dict[nn.Module, str] = {}
        self._given = pick

    def of_node(self, name: str, distribution: BaseDistribution) -> Any:
        self.declared.add(name)
        return self._given(name, distribution)

    def of_function(self, name: str, distribution: BaseDistribution) -> Any:
        return self._given(name, distribution)

    def choice(self, node: Choice, trial: Trial) -> nn.Module:
        candidate = self.ask(node, trial)
        module = node.build(candidate, trial)
        within = self.candidates.get(module)  # of a choice whose candidate is a choice
        self.candidates[module] = candidate if within is None else f"{candidate}/{within}"
        return module

    def repeat(self, node: Repeat, trial: Trial) -> nn.Module:
        return node.build(self.ask(node, trial), trial)


def _needs_values(module: nn.Module) -> bool:
    """Whether it holds numbers, beside parameters and statistics, that a build on the meta device lost."""
    buffers = () if isinstance(module, _NormBase) else module._buffers.values()
    held = (*buffers, *vars(module).values())
    return any(isinstance(value, Tensor) and value.is_meta for value in held)


def _weights(model: nn.Module, notes: _Notes) -> dict[str, Weight]:
    modules = dict(model.named_modules())
    for module, candidate in notes.candidates.items():
        if module not in modules.values() and next(module.parameters(), None) is not None:
            raise SpaceError(
                f"The network takes the candidate {candidate!r} of a Choice to pieces, so that its weights "
                "cannot be told from those of the others. Put what the Choice builds into the network as it "
                f"is. [parameters: {notes.trial.params}]"
            )
    residuals = [name for name, module in modules.items() if isinstance(module, Residual)]
    optional = tuple(f"{name}.shortcut.".removeprefix(".") for name in residuals)
    found = {}
    for name, parameter in model.named_parameters():
        path, _, leaf = name.rpartition(".")
        owner = modules[path]
        found[name] = Weight(
            key=_key(name, modules, notes.candidates),
            kind=f"{type(owner).__qualname__}.{leaf} of {parameter.dim()} dimensions",
            shape=tuple(parameter.shape),
            kernel=isinstance(owner, _ConvNd),
            stacked=_stacked(owner, leaf),
            optional=name.startswith(optional),
        )
    return found


def _stacked(owner: nn.Module, leaf: str) -> int:
    """Of torch's own modules; what else splits its output into parts shares the first channels of all."""
    if isinstance(owner, nn.RNNBase):
        return {"LSTM": 4, "GRU": 3}.get(owner.mode, 1) if not leaf.startswith("weight_hr") else 1
    return 3 if isinstance(owner, nn.MultiheadAttention) and leaf.startswith("in_proj") else 1


def _key(name: str, modules: Mapping[str, nn.Module], candidates: Mapping[nn.Module, str]) -> str:
    """The name, with the candidates on the way; a parameter's name in torch holds no other dot."""
    parts = name.split(".")
    shown = [_tag(modules[""], candidates)] if modules[""] in candidates else []
    for i, part in enumerate(parts[:-1]):
        shown.append(part + _tag(modules[".".join(parts[: i + 1])], candidates))
    return ".".join([*shown, parts[-1]])


def _tag(module: nn.Module, candidates: Mapping[nn.Module, str]) -> str:
    candidate = candidates.get(module)
    return "" if candidate is None else f"<{candidate}>"
