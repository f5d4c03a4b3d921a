"""All that a LightningModule has learned, at one moment: kept, written as plain files, put in place again."""

from __future__ import annotations

import codecs
import copy
import enum
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import prune

from optnas.errors import ParamsMismatchError


@dataclass(frozen=True)
class Snapshot:
    """Copies, on the CPU.

    Attributes:
        module: the module's `state_dict`; what torch prunes with a mask is pruned for good.
        buffers: those that a `state_dict` leaves out, by name.
        model: name in the model's `state_dict` to name in the module's, where both are one tensor.
        beyond: what is only in the model's `state_dict`.
        built: names and shapes of what the space built, before the task got it.
    """

    module: dict[str, Any]
    buffers: dict[str, Tensor]
    model: dict[str, str]
    beyond: dict[str, Any]
    built: dict[str, list[int]]

    @property
    def weights(self) -> dict[str, Any]:
        """The model's own `state_dict`."""
        return {**{name: self.module[other] for name, other in self.model.items()}, **self.beyond}


def take(module: nn.Module, model: nn.Module, built: dict[str, list[int]]) -> Snapshot:
    """What module and model hold now."""
    whole, own = module.state_dict(), model.state_dict()
    copies: dict[Any, Tensor] = {}  # of one tensor under several names there is one copy
    places = {_place(value): name for name, value in whole.items() if isinstance(value, Tensor)}
    shared = {
        name: places[_place(value)]
        for name, value in own.items()
        if isinstance(value, Tensor) and _place(value) in places
    }
    buffers = {name: value for name, value in module.named_buffers() if name not in whole}
    of_module, of_model = _masked(whole), _masked(own)
    return Snapshot(
        _pruned({name: _copy(value, copies) for name, value in whole.items()}),
        {name: _copy(value, copies) for name, value in buffers.items()},
        {
            _bare(name, of_model): _bare(other, of_module)
            for name, other in shared.items()
            if name.removesuffix("_mask") not in of_model
        },
        _pruned({name: _copy(value, copies) for name, value in own.items() if name not in shared}),
        built,
    )


def shapes(model: nn.Module) -> dict[str, list[int]]:
    """Names and shapes of all tensors in a model's `state_dict`."""
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return {name: [] if is_lazy(value) else list(value.shape) for name, value in tensors.items()}


def put(snapshot: Snapshot, module: nn.Module) -> None:
    """Give the module what the snapshot holds; masks of torch's pruning go.

    Raises:
        RuntimeError: they do not fit each other.
    """
    for part in module.modules():
        for name in [n.removesuffix("_mask") for n, _ in part.named_buffers(recurse=False)]:
            if f"{name}_orig" in dict(part.named_parameters(recurse=False)):
                prune.remove(part, name)  # type: ignore[no-untyped-call]
    module.load_state_dict(snapshot.module)
    for name, value in snapshot.buffers.items():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        now = owner._buffers.get(leaf)
        owner._buffers[leaf] = value.to(now.device if now is not None else "cpu", copy=True)


# ---- as files ----


def files(snapshot: Snapshot) -> tuple[bytes, bytes]:
    """Two files: the model's plain `state_dict`, and everything beyond it.

    What `torch.load(..., weights_only=True)` refuses (an object of a class of the user's, in the extra state
    of a layer) is left out, and named in the second file.
    """
    back = {other: name for name, other in snapshot.model.items()}
    more: dict[str, Any] = dict(vars(snapshot))
    more["module"] = {name: value for name, value in snapshot.module.items() if name not in back}
    more["order"] = list(snapshot.module)
    more["lost"] = []
    for part in ("module", "beyond"):
        lost = [name for name, value in more[part].items() if not is_plain(value)]
        more["lost"] += lost
        more[part] = {name: value for name, value in more[part].items() if name not in lost}
    plain = {name: _plain(value) for name, value in snapshot.weights.items()}
    plain = {name: value for name, value in plain.items() if is_plain(value)}
    return _bytes(plain), _bytes(more)


def read(weights: Path, rest: Path) -> Snapshot:
    """A written snapshot.

    Raises:
        ParamsMismatchError: a part of it was no plain value.
    """
    plain = torch.load(weights, map_location="cpu", weights_only=True)
    with numpy_is_safe():
        more = torch.load(rest, map_location="cpu", weights_only=True)
    if more["lost"]:
        raise ParamsMismatchError(
            f"The state of {', '.join(map(repr, more['lost']))} holds an object that cannot be read back "
            "without running code from the file; let get_extra_state() return tensors, arrays and plain "
            "values."
        )
    back = {other: name for name, other in more["model"].items()}
    module = {name: more["module"].get(name, plain.get(back.get(name, ""))) for name in more["order"]}
    return Snapshot(module, more["buffers"], more["model"], more["beyond"], more["built"])


@contextmanager
def numpy_is_safe() -> Iterator[None]:
    """Let `weights_only` read arrays and numbers of NumPy, whose making runs no other code."""
    makers: list[Any] = [
        np.ndarray,
        np.dtype,
        np.zeros(1).__reduce__()[0],
        np.float64(0).__reduce__()[0],
        codecs.encode,
    ]
    dtypes = [type(np.dtype(name)) for name in (*"?bBhHiIlLqQefdgFDG", "U1", "S1", "M8[s]", "m8[s]")]
    with torch.serialization.safe_globals([*makers, *dtypes]):
        yield


def _bytes(value: Any) -> bytes:
    data = io.BytesIO()  # written to a full disk, torch.save says nothing of the disk
    torch.save(value, data)
    return data.getvalue()


def is_plain(value: Any) -> bool:
    """Whether `weights_only` reads it back: tensors, arrays, numbers, text, and containers of them."""
    if isinstance(value, Tensor):
        return True
    try:
        with numpy_is_safe():
            torch.load(io.BytesIO(_bytes(value)), weights_only=True)
    except Exception:  # pickle's and torch's, of which there are many
        return False
    return True


def _plain(value: Any) -> Any:
    """As `weights_only` loads it: arrays as tensors, enums and numbers of NumPy as their values."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value


# ---- of tensors ----


def _place(value: Tensor) -> Any:
    if is_lazy(value):
        return id(value)
    try:
        return value.data_ptr(), value.shape, value.stride(), value.dtype
    except (RuntimeError, NotImplementedError):  # sparse and other tensors without one place
        return id(value)


def _copy(value: Any, copies: dict[Any, Tensor]) -> Any:
    if not isinstance(value, Tensor) or is_lazy(value):
        return copy.deepcopy(value)
    place = _place(value)
    if place not in copies:
        copies[place] = value.detach().to("cpu", copy=True)
    return copies[place]


def _masked(state: Mapping[str, Any]) -> set[str]:
    """Names of the parameters that torch prunes with a mask."""
    masks = {name.removesuffix("_mask") for name in state if name.endswith("_mask")}
    return {name for name in masks if f"{name}_orig" in state}


def _bare(name: str, masked: set[str]) -> str:
    bare = name.removesuffix("_orig")
    return bare if bare in masked else name


def _pruned(state: dict[str, Any]) -> dict[str, Any]:
    """`weight_orig` times `weight_mask` as `weight`."""
    masked = _masked(state)
    plain = {}
    for name, value in state.items():
        bare = _bare(name, masked)
        if bare != name:
            plain[bare] = value * state[f"{bare}_mask"]
        elif name.removesuffix("_mask") not in masked:
            plain[name] = value
    return plain
