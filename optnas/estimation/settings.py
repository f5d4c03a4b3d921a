"""Describes a user's object, so that every process can tell whether it has changed.

Two things that could train differently never get one description: content is hashed whole, and code together
with all that it refers to in the user's own files. If a thing cannot be looked into, a line in the log says
so.
"""

from __future__ import annotations

import copyreg
import dis
import hashlib
import inspect
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import timedelta
from enum import Enum
from functools import cached_property, partial
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from optnas.errors import is_users_code

_PLAIN = (type(None), bool, int, float, str)
_LONG = 1000  # characters of JSON, above which a hash stands for it

# What these packages make changes while it is used, and says nothing about how a training goes.
_TOOLS = {"optuna", "sqlalchemy", "logging", "threading", "_thread", "weakref", "_weakref"}
_TOOLS_OF = ("optnas.objective", "optnas.search", "optnas.storage", "pytorch_lightning.trainer.trainer")

# Attributes that our classes got after studies had been stored, and the value with which an object does what
# it did before. With it the attribute is not described, so that such a study goes on, with its values reused.
_LATER: dict[str, dict[str, Any]] = {
    "optnas.data.tensors.TensorData": {"mix": None},
    "optnas.data.table.TableData": {"_subtracted": 0.0},
}

_log = logging.getLogger(__name__)
_told: set[str] = set()


def describe(thing: Any, *, modules: bool = True) -> Any:
    """A JSON-able description, the same in every process: values as they are, large ones by a hash.

    Functions and classes of the user are described by their code, defaults, closures and the globals that
    they name; those of installed packages by their names. Objects are described by their class and by what
    pickle would keep of them, private attributes included.

    Args:
        modules: Whether two functions or classes differ that only stand in modules of different names, as
            those of a file do that is once run and once imported.
    """
    describer = _active.get()
    if describer is not None:  # asked by an object that is being described
        return describer(thing)
    token = _active.set(_Describer(modules))
    try:
        return _active.get()(thing)  # type: ignore[misc]  # just set
    finally:
        _active.reset(token)


def contents(tensor: Tensor) -> list[Any]:
    """The bytes of a tensor's numbers, on any device; of a sparse one, of its indices and of its values."""
    if tensor.layout != torch.strided:
        return [part for each in _of_sparse(tensor) for part in contents(each)]
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return [flat.view(torch.uint8).numpy()]


def digest(thing: Any, *, modules: bool = True) -> str:
    """A hash of its description, 16 hexadecimal digits; `modules`: see `describe`."""
    return hashlib.sha256(_json(describe(thing, modules=modules)).encode()).hexdigest()[:16]


class _Describer:
    """Describes each object once; what refers to something that contains it says so many levels up."""

    def __init__(self, modules: bool) -> None:
        self._modules = modules
        self._known: dict[int, tuple[Any, Any]] = {}  # the object too: so long as it lives, its id is its own
        self._path: list[int] = []

    def __call__(self, thing: Any) -> Any:
        if type(thing) in _PLAIN:
            return thing
        key = id(thing)
        if key in self._known:
            return self._known[key][1]
        if key in self._path:
            return {"contains this": len(self._path) - self._path.index(key)}
        self._path.append(key)
        try:
            described = _short(self._look(thing))
        finally:
            self._path.pop()
        self._known[key] = thing, described
        return described

    def _look(self, thing: Any) -> Any:
        kind = type(thing)
        if kind is list or kind is tuple:
            plain = set(map(type, thing)) <= set(_PLAIN)  # long lists of indices are common
            parts = list(thing) if plain else [self(part) for part in thing]
            return parts if kind is list else {"tuple": parts}
        if kind is dict or kind is MappingProxyType:
            return self._mapping(thing)
        if kind in (set, frozenset):  # in an order that is the same in every process
            return {"set": sorted(map(self, thing), key=_json)}
        if kind in (bytes, bytearray):
            return {_name(kind): _hash_bytes(thing)}
        if isinstance(thing, PurePath | timedelta):
            return str(thing)
        if isinstance(thing, Enum):
            return {_name(kind): [thing.name, self(thing.value)]}
        if isinstance(thing, Tensor):
            return self._tensor(thing)
        if kind in (np.ndarray, np.memmap):
            return self._array(thing)
        return self._code(thing) if callable(thing) or kind is ModuleType else self._object(thing)

    def _mapping(self, thing: Mapping[Any, Any]) -> Any:
        if all(type(name) is str for name in thing):
            return {name: self(part) for name, part in thing.items()}
        return {"dict": sorted(([self(name), self(part)] for name, part in thing.items()), key=_json)}

    # ---- content ----

    def _tensor(self, tensor: Tensor) -> Any:
        about: list[Any] = [str(tensor.dtype), tensor.requires_grad, self(vars(tensor))]
        if not is_lazy(tensor):
            about.append(list(tensor.shape))
            if tensor.layout != torch.strided:
                about += [str(tensor.layout), *map(self, _of_sparse(tensor))]
            elif not tensor.is_meta:
                about += map(_hash_bytes, contents(tensor))
        return {_name(type(tensor)): about}

    def _array(self, array: np.ndarray) -> Any:
        about: list[Any] = [self(array.dtype.descr), list(array.shape)]
        file = _mapped_file(array)
        if file is not None:
            about += file
        elif array.dtype.hasobject:
            about.append(self(array.reshape(-1).tolist()))
        elif array.size and array.dtype.itemsize:
            flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            about.append(_hash_bytes(flat))
        return {_name(type(array)): about}

    # ---- code ----

    def _code(self, thing: Any) -> Any:
        if isinstance(thing, ModuleType):
            return f"module {thing.__name__}"
        if isinstance(thing, type):
            return self._class(thing)
        if isinstance(thing, FunctionType):
            return self._function(thing)
        if isinstance(thing, MethodType):
            return {"method": [self(thing.__func__), self(thing.__self__)]}
        if isinstance(thing, partial):
            return {"functools.partial": [self(thing.func), self(thing.args), self(thing.keywords)]}
        if isinstance(thing, BuiltinFunctionType) and not isinstance(thing.__self__, ModuleType | None):
            return {"method": [thing.__name__, self(thing.__self__)]}
        return self._object(thing)

    def _function(self, function: FunctionType) -> str:
        parts: list[Any] = [_instructions(function.__code__, self)]
        parts += [self(function.__defaults__), self(function.__kwdefaults__), self(vars(function))]
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        parts.append({name: self._cell(cell) for name, cell in cells})
        if is_users_code(function.__code__.co_filename):
            names = sorted(set(_names(function.__code__)))
            around = function.__globals__
            used = sorted(set(_globals(function.__code__)) & around.keys())
            parts.append({name: self._global(around[name], names) for name in used})
        return f"{self._name(function)}:{_hash(parts)}"

    def _name(self, code: FunctionType | type) -> str:
        """Of a function or a class of the user's, or of any function."""
        return _name(code) if self._modules else code.__qualname__

    def _cell(self, cell: Any) -> Any:
        try:
            return self(cell.cell_contents)
        except ValueError:
            return "not yet set"

    def _global(self, thing: Any, names: list[str]) -> Any:
        """A global, with what code that names these names may take from it, where it is a user's module."""
        file = vars(thing).get("__file__") if isinstance(thing, ModuleType) else None
        if file is None or not is_users_code(file):
            return self(thing)
        held = vars(thing)
        taken = {name: self(held[name]) for name in names if name in held and not name.startswith("__")}
        return {thing.__name__: taken}

    def _class(self, thing: type) -> str:
        if not _is_of_user(thing):
            return _name(thing)
        if issubclass(thing, Enum):
            members = [[name, self(m.value)] for name, m in thing.__members__.items()]
            return f"{self._name(thing)}:{_hash(members)}"
        own = {name: self._member(part) for name, part in sorted(vars(thing).items()) if _is_own(name, part)}
        return f"{self._name(thing)}:{_hash([[self(base) for base in thing.__bases__], own])}"

    def _member(self, part: Any) -> Any:
        if isinstance(part, staticmethod | classmethod):
            return [type(part).__name__, self(part.__func__)]
        if isinstance(part, property):
            return [self(part.fget), self(part.fset)]
        if isinstance(part, cached_property):
            return self(part.func)
        return self(part)

    # ---- any other object ----

    def _object(self, thing: Any) -> Any:
        from optnas.estimation.estimator import Estimator  # which is described by this file

        kind = type(thing)
        named = self(kind)
        name = named if isinstance(named, str) else _name(kind)  # an attribute of its own class
        module = kind.__module__
        if module.split(".")[0] in _TOOLS or module.startswith(_TOOLS_OF):
            return name
        if isinstance(thing, Estimator):
            return {name: self(thing.settings)}
        if isinstance(thing, torch.Generator):
            return {name: self(thing.get_state())}
        try:
            special = copyreg.dispatch_table.get(kind)
            kept: Any = special(thing) if special else thing.__reduce_ex__(4)
        except Exception as error:
            return self._opaque(thing, name, error)
        if isinstance(kept, str):  # a global of that name; a cached function, say, keeps the function
            inside = vars(thing) if "__wrapped__" in dir(thing) else {}
            return f"{_name(thing)} {kept}:{_hash(self(inside))}"
        made_by, arguments, *rest = kept
        state, items, pairs = (*rest, None, None, None)[:3]
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):  # with slots
            state = {**(state[0] or {}), **state[1]}
        if isinstance(state, dict):
            state = {
                at: part
                for at, part in state.items()
                if not _is_cache(kind, at) and not _says_nothing_new(kind, at, part)
            }
        described: Any = self({} if state is None else state)
        parts = [list(items or ()), [list(pair) for pair in pairs or ()]]
        if made_by in (_NEW, _NEW_EX) and arguments == (kind,) and not any(parts):
            return {name: described}
        return {name: [described, _name(made_by), *(self(part) for part in (*arguments, *parts))]}

    def _opaque(self, thing: Any, name: str, error: Exception) -> Any:
        if name not in _told:
            _told.add(name)
            _log.warning(
                "optnas cannot see what a %s holds (%s): two that differ only inside are taken for the "
                "same, so that values may be reused between them. Make it where it is used, or give "
                "its class a __reduce__ that returns what it is made from.",
                name.partition(":")[0],
                error,
            )
        return {name: re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))}


_active: ContextVar[_Describer | None] = ContextVar("describer", default=None)
_NEW, _NEW_EX = copyreg.__newobj__, copyreg.__newobj_ex__  # type: ignore[attr-defined]  # pickle's own


def _of_sparse(tensor: Tensor) -> tuple[Tensor, Tensor]:
    whole = tensor.detach().cpu().to_sparse_coo().coalesce()  # type: ignore[no-untyped-call]  # of torch
    return whole.indices(), whole.values()


def _instructions(code: CodeType, describer: _Describer) -> Any:
    """What code does, wherever it stands in its file."""
    constants = [
        _instructions(constant, describer) if isinstance(constant, CodeType) else describer(constant)
        for constant in code.co_consts
    ]
    names = [*code.co_names, None, *code.co_varnames, None, *code.co_freevars]
    return [_hash([code.co_code.hex(), code.co_exceptiontable.hex(), names, code.co_flags]), constants]


def _globals(code: CodeType) -> Iterator[str]:
    """The names that code looks up in its module; a name after a dot is none of them."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals(constant)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_of_user(thing: type) -> bool:
    # Typed at a prompt, sent by one, or of a script: the file of `__main__` may be that of what runs the
    # script (python -m cProfile study.py).
    if thing.__module__ in ("__main__", "__mp_main__"):
        return True
    try:
        return is_users_code(inspect.getfile(thing))
    except (OSError, TypeError):  # built in
        return False


def _is_own(name: str, part: Any) -> bool:
    """Whether a class's attribute was written by the user, or else is a property of every class."""
    if name.startswith("_abc_") or inspect.ismemberdescriptor(part) or inspect.isgetsetdescriptor(part):
        return False
    return not (name.startswith("__") and name.endswith("__")) or isinstance(part, FunctionType)


def _is_cache(kind: type, name: str) -> bool:
    return any(isinstance(vars(base).get(name), cached_property) for base in kind.__mro__)


def _says_nothing_new(kind: type, name: str, value: Any) -> bool:
    """Whether an attribute, which older objects of ours lack, has the value that means what they did."""
    for base in kind.__mro__:
        known = _LATER.get(f"{base.__module__}.{base.__qualname__}", {})
        if name in known and type(value) is type(known[name]) and value == known[name]:
            return True
    return False


def _mapped_file(array: np.ndarray) -> list[Any] | None:
    """Of an array that is a read-only view of a file: which file, as of when, and which part of it."""
    root: Any = array
    while isinstance(root, np.memmap) and isinstance(root.base, np.memmap):
        root = root.base
    if not isinstance(root, np.memmap) or root.filename is None or root.mode != "r":
        return None
    status = os.stat(root.filename)
    begin = root.offset + array.ctypes.data - root.ctypes.data
    return [str(root.filename), status.st_size, status.st_mtime_ns, begin, list(array.strides)]


def _name(thing: Any) -> str:
    kind = thing if isinstance(thing, type | FunctionType | BuiltinFunctionType) else type(thing)
    module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__
    return f"{module}.{kind.__qualname__}"


def _short(described: Any) -> Any:
    text = _json(described)
    return described if len(text) <= _LONG else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _hash_bytes(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()


def _hash(described: Any) -> str:
    return hashlib.sha256(_json(described).encode()).hexdigest()[:16]


def _json(described: Any) -> str:
    return json.dumps(described, sort_keys=True)
