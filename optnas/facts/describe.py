"""Values and code as plain data: equal exactly where the content is, the same in every process."""

from __future__ import annotations

import dis
import enum
import inspect
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GeneratorType,
    GenericAlias,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
    UnionType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optnas.facts.trace import digest

MOST_VALUES = 20_000
FRAMEWORKS = ("torch", "optnas", "pytorch_lightning", "lightning", "lightning_fabric")

_PLAIN = (bool, int, float, complex, str, bytes, type(None), range, slice, type(Ellipsis))
_SHOWN = (torch.dtype, torch.device, torch.Size, torch.memory_format, torch.layout, np.generic, np.dtype)
_SHOWN_TOO = (PurePath, inspect.Signature)
_BUILT_IN = (BuiltinFunctionType, type(Tensor.add), type(str.join), type(object().__str__))


class _Empty:
    """As small as an object of a Python class can be."""


# What libraries of Hugging Face keep of the process, which differs in every one and says nothing of a model.
_OF_THE_PROCESS = {"SESSION_ID", "_original_object_hash"}
_WORD = struct.calcsize("P")


class UnseenError(Exception):
    """What something holds cannot be told; the message says where."""


class Describer:
    """Describes values of one model; tensors are gathered by the name of their place, not described.

    Args:
        paths: of the model's modules, which are described by their path.
    """

    def __init__(self, paths: Mapping[nn.Module, str]) -> None:
        self.paths = paths
        self.tensors: list[tuple[str, Tensor]] = []
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # identities are of living objects only

    def value(self, value: Any, where: str) -> Any:
        """A description of nested tuples and strings.

        Raises:
            UnseenError: nobody knows what is in it.
        """
        kind = type(value)
        if kind in _PLAIN:
            return kind.__name__, repr(value)
        if isinstance(value, _SHOWN + _SHOWN_TOO):
            return kind.__name__, str(value)
        if isinstance(value, enum.Enum):
            return kind.__qualname__, value.name
        if isinstance(value, Tensor):
            self.tensors.append((where, value))
            return "tensor"
        if isinstance(value, nn.Module) and value in self.paths:
            return "module", self.paths[value]
        if isinstance(value, ModuleType):
            return "import", value.__name__
        if isinstance(value, MemberDescriptorType):
            return "slot", value.__name__
        if isinstance(value, UnionType | GenericAlias) or kind.__module__ == "typing":
            return "annotation", repr(value)
        if isinstance(value, _BUILT_IN):
            return "built in", str(value.__qualname__)
        if id(value) in self._seen:
            return "again", self._seen[id(value)]
        self._seen[id(value)] = len(self._seen)
        self._alive.append(value)
        if len(self._seen) > MOST_VALUES:
            raise UnseenError(f"{where} holds more than {MOST_VALUES} values")
        return self._compound(value, where)

    def _compound(self, value: Any, where: str) -> Any:
        kind = type(value)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return digest(value)
        if isinstance(value, SimpleNamespace):
            return "namespace", self.value(vars(value), where)
        if isinstance(value, Mapping):
            items = [(self.value(k, where), self.value(v, f"{where}.{k}")) for k, v in value.items()]
            return "mapping", tuple(items)
        if isinstance(value, tuple | list):
            return kind.__name__, tuple(self.value(item, where) for item in value)
        if isinstance(value, set | frozenset):
            return "set", tuple(sorted(repr(self.value(item, where)) for item in value))
        if isinstance(value, partial):
            return "partial", self.value((value.func, value.args, value.keywords), where)
        if isinstance(value, MethodType):
            return "method", self.value(value.__self__, where), self.code(value.__func__, where)
        if isinstance(value, FunctionType):
            return self.code(value, where)
        if isinstance(value, type):
            return "class", self.functions(value, where)
        if isinstance(value, torch.Generator):
            return "generator", value.initial_seed()
        if isinstance(value, GeneratorType) and inspect.getgeneratorstate(value) == inspect.GEN_CREATED:
            given = inspect.getgeneratorlocals(value)
            return "not begun", code_digest(value.gi_code), self.value(given, where)
        # `vars` and slots tell all of an object of a Python class, but not what one keeps in C.
        slots = _slots(kind)
        room = object.__basicsize__ + _WORD * len(slots)
        if kind.__basicsize__ > room + (_Empty.__basicsize__ - object.__basicsize__) * bool(
            kind.__dictoffset__
        ):
            raise UnseenError(f"{where} holds a {kind.__name__}, whose content cannot be seen")
        held = dict(vars(value)) if kind.__dictoffset__ else {}
        for name, slot in slots:
            with suppress(AttributeError):  # nothing is in it
                held[name] = slot.__get__(value)
        names = sorted(held.keys() - _OF_THE_PROCESS)
        items = [(name, self.value(held[name], f"{where}.{name}")) for name in names]
        return "object", self.value(kind, where), tuple(items)

    def code(self, function: Any, where: str) -> Any:
        """A function by what it does, whatever its name: code, defaults, and values it has from outside."""
        if is_of_framework(function):
            return "function", f"{function.__module__}.{function.__qualname__}"
        defaults = [*(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items())]
        closed: list[tuple[str, Any]] = []
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name == "__class__":  # what `super()` needs
                continue
            try:
                closed.append((name, self.value(cell.cell_contents, f"{where}, variable {name}")))
            except ValueError:
                closed.append((name, "empty"))
        outer = [
            (name, self._global(function.__globals__[name], f"{where}, global {name}"))
            for name in sorted(globals_in(function.__code__) & function.__globals__.keys() - _OF_THE_PROCESS)
        ]
        return "function", code_digest(function.__code__), self.value(defaults, where), closed, outer

    def _global(self, value: Any, where: str) -> Any:
        """A global by its content where an answer may have been put into it, else by its class."""
        plain = isinstance(value, _PLAIN)
        if isinstance(value, tuple | list):
            plain = all(isinstance(item, _PLAIN) for item in value)
        elif isinstance(value, dict):
            plain = all(isinstance(item, _PLAIN) for item in value.values())
        try:
            if plain or (isinstance(value, FunctionType) and not is_of_framework(value)):
                return self.value(value, where)
        except UnseenError:
            pass
        return type(value).__qualname__

    def functions(self, kind: type, where: str) -> Any:
        """A class by all functions and values of its own, without those of frameworks above it."""
        if is_of_framework(kind) or kind.__module__ == "builtins":
            return f"{kind.__module__}.{kind.__qualname__}"
        rows: list[Any] = []
        for name, value in members(kind):
            place = f"{where}.{name}" if where else f"{kind.__name__}.{name}"
            rows.append((name, self.code(value, place) if is_code(value) else self.value(value, place)))
        return tuple(rows)


def _slots(kind: type) -> list[tuple[str, MemberDescriptorType]]:
    """The slots that a class and its bases declare, each of one word."""
    values = [(name, value) for base in kind.__mro__ for name, value in vars(base).items()]
    return [(name, value) for name, value in values if isinstance(value, MemberDescriptorType)]


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """What a class and its bases define, outermost first, frameworks left out; functions are unwrapped."""
    for base in kind.__mro__:
        if is_of_framework(base) or base.__module__ in ("builtins", "abc", "typing", "collections.abc"):
            continue
        for name, value in vars(base).items():
            if name.startswith("_abc_") or name in _OF_EVERY_CLASS:
                continue
            if isinstance(value, staticmethod | classmethod):
                value = value.__func__
            if isinstance(value, property):
                for part in (value.fget, value.fset):
                    if part is not None:
                        yield name, part
            else:
                yield name, value


_OF_EVERY_CLASS = {
    *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__"),
    *("__parameters__", "__orig_bases__", "__static_attributes__", "__firstlineno__", "__repr__"),
    *("extra_repr", "__slots__", "__abstractmethods__", "__jit_unused_properties__", "__class_getitem__"),
    *("__dataclass_params__", "__dataclass_fields__", "__match_args__", "__hash__"),
}


def is_of_framework(thing: Any) -> bool:
    """Whether a class or function is torch's, Lightning's or ours: one that a trial does not change."""
    return str(thing.__module__).partition(".")[0] in FRAMEWORKS


def is_code(thing: Any) -> bool:
    return isinstance(thing, FunctionType)


@lru_cache(4096)
def names_in(code: CodeType) -> frozenset[str]:
    """The globals and attributes that code mentions, functions within it included."""
    inner = (names_in(const) for const in code.co_consts if isinstance(const, CodeType))
    return frozenset(code.co_names).union(*inner)


@lru_cache(4096)
def globals_in(code: CodeType) -> frozenset[str]:
    """The names that code looks up in its module; a name after a dot is none of them."""
    here = (i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    inner = (globals_in(const) for const in code.co_consts if isinstance(const, CodeType))
    return frozenset(here).union(*inner)


@lru_cache(4096)
def code_digest(code: CodeType) -> str:
    """Of what the code does, not of where it stands."""
    consts = [code_digest(c) if isinstance(c, CodeType) else _const(c) for c in code.co_consts]
    parts = (code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, consts)
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _const(value: Any) -> str:
    if isinstance(value, frozenset):  # in an order that is the same in every process
        return repr(sorted(map(repr, value)))
    return f"{type(value).__name__} {value!r}"
