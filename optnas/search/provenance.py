"""What a study's results depend on besides its trials: versions, source of the space, data, device, seed."""

from __future__ import annotations

import hashlib
import inspect
import platform
from collections.abc import Mapping
from importlib.metadata import version
from types import FunctionType, ModuleType
from typing import Any

import torch

from optnas.errors import is_users_code
from optnas.objective import Objective

_PACKAGES = ("optnas", "optuna", "torch", "pytorch-lightning")


def provenance(objective: Objective) -> dict[str, Any]:
    """A flat, JSON-able record of what the results of a search depend on.

    The estimator adds to it what its own `provenance()`, if it has one, returns (for `Training`: a
    fingerprint of the data).
    """
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "space": source_hash(objective.space),
        "device": torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu",  # type: ignore[union-attr]  # there is one
        "threads": torch.get_num_threads(),
        **objective.estimator.provenance(),
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two provenance records, one readable line each."""
    return [
        f"{name}: {before.get(name)} when the study began, {now.get(name)} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def source_hash(obj: Any) -> str:
    """A hash of the source code of a space, and of the user's own functions and classes that it uses."""
    parts: dict[str, None] = {}
    _collect(obj, parts, set())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _collect(obj: Any, parts: dict[str, None], seen: set[int]) -> None:
    """Follow names from function to function, and the fields of nodes, without leaving the user's code."""
    if id(obj) in seen or isinstance(obj, ModuleType):
        return
    seen.add(id(obj))
    if isinstance(obj, FunctionType | type):
        try:
            if not is_users_code(inspect.getfile(obj)):
                return
            parts[inspect.getsource(obj)] = None
        except (OSError, TypeError):  # defined at a prompt, or built in: its name must suffice
            parts[obj.__qualname__] = None
        if isinstance(obj, FunctionType):
            used = inspect.getclosurevars(obj)
            reached = [*used.globals.values(), *used.nonlocals.values()]
        else:
            reached = [value for value in vars(obj).values() if isinstance(value, FunctionType)]
        for value in reached:
            _collect(value, parts, seen)
    elif isinstance(obj, Mapping):
        for name, value in obj.items():
            if isinstance(name, str):  # what else a key may be need not even have words
                parts[f"{name}:"] = None
            _collect(value, parts, seen)
    elif isinstance(obj, list | tuple):
        for value in obj:
            _collect(value, parts, seen)
    elif obj is None or isinstance(obj, bool | int | float | str):
        parts[repr(obj)] = None
    elif hasattr(obj, "__dict__"):
        _collect(type(obj), parts, seen)
        _collect(vars(obj), parts, seen)
