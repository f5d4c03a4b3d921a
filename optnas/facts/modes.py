"""Whether a model may do in eval mode what its pass in train mode does not tell.

Of torch's own modules it does: a Dropout's probability and a BatchNorm's statistics are in the record. Of
others the code is read. It tells where nothing that it mentions can know the mode: torch's functions,
arithmetic, other such code. Whatever is not known to be so may know it.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optnas.facts.describe import is_of_framework, members, names_in
from optnas.facts.hidden import forward_hooks, is_trusted

_TELLTALE = frozenset(
    (
        *("training", "eval", "train", "is_grad_enabled", "is_inference_mode_enabled", "is_inference"),
        *("requires_grad", "grad_fn", "is_leaf", "grad", "getattr", "hasattr", "vars", "__dict__", "globals"),
        *("locals", "exec", "compile", "__import__", "_getframe", "__getattribute__", "__getattr__"),
        *("modules", "named_modules", "apply", "state_dict", "open", "input", "trainer", "_forward_hooks"),
    )
)
_INFERENCE = frozenset(("is_inference_mode_enabled", "is_inference"))
_MODULES = {"torch", "math", "cmath", "operator", "functools", "itertools", "numpy", "collections", "typing"}
_PLAIN = (bool, int, float, complex, str, bytes, type(None), Tensor, nn.Module, torch.dtype, torch.device)
_PLAIN_TOO = (torch.Size, range, slice, np.ndarray, np.generic, torch.memory_format)
_BUILT_IN = (BuiltinFunctionType, type(Tensor.add), type(str.join))


def knows_its_mode(model: nn.Module) -> bool:
    """Whether some code of the model may behave in eval mode in a way that train mode does not show."""
    reader = _Reader()
    for module in model.modules():
        kind = type(module)
        if any(map(reader.may_know, forward_hooks(module))):
            return True
        if "forward" in vars(module) and reader.may_know(vars(module)["forward"]):
            return True
        if not is_trusted(kind) and reader.may_know_of(module):
            return True
    return False


def asks_for_inference_mode(model: nn.Module) -> bool:
    """Whether evaluation under `torch.inference_mode()` and under `torch.no_grad()` may differ."""
    for module in model.modules():
        code = [value for _, value in members(type(module))]
        code += [*vars(module).values(), *module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        functions = (value for value in code if isinstance(value, FunctionType))
        if any(not _INFERENCE.isdisjoint(names_in(function.__code__)) for function in functions):
            return True
    return False


class _Reader:
    """Reads code once, however many modules and functions lead to it."""

    def __init__(self) -> None:
        self._read: set[Any] = set()  # what was found not to know, or is being read
        self._methods: dict[type, tuple[bool, frozenset[str]]] = {}

    def may_know_of(self, module: nn.Module) -> bool:
        kind = type(module)
        if kind not in self._methods:
            self._methods[kind] = self._class(kind)
        knows, mentioned = self._methods[kind]
        return knows or any(self.may_know(v) for name, v in vars(module).items() if name in mentioned)

    def _class(self, kind: type) -> tuple[bool, frozenset[str]]:
        """Whether `forward`, or what it mentions of its class, may know; and all that is mentioned."""
        own: dict[str, list[Any]] = {}
        for name, value in members(kind):
            own.setdefault(name, []).append(value)
        if "forward" not in own:
            return True, frozenset()
        if not {"__getattr__", "__call__", "__getattribute__", "training"}.isdisjoint(own):
            return True, frozenset()
        mentioned, waiting = {"forward"}, ["forward"]
        while waiting:
            for value in own.get(waiting.pop(), ()):
                if self.may_know(value):
                    return True, frozenset()
                if isinstance(value, FunctionType):
                    new = names_in(value.__code__) - mentioned
                    mentioned |= new
                    waiting += new
        # What a framework's class beside torch.nn adds (a LightningModule's trainer) knows the mode.
        for base in kind.__mro__:
            if is_of_framework(base) and not is_trusted(base) and not mentioned.isdisjoint(vars(base)):
                return True, frozenset()
        return False, frozenset(mentioned)

    def may_know(self, value: Any) -> bool:
        """Whether what code has from outside may know the mode, or code that this leads to."""
        if isinstance(value, _PLAIN + _PLAIN_TOO):
            return False
        if isinstance(value, ModuleType):
            return value.__name__.partition(".")[0] not in _MODULES
        if isinstance(value, _BUILT_IN):
            return str(value.__name__) in _TELLTALE
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            return self.may_know(value.__func__) or self.may_know(value.__self__)
        if isinstance(value, partial):
            return any(map(self.may_know, (value.func, *value.args, *value.keywords.values())))
        if isinstance(value, type):
            known = issubclass(value, nn.Module) or value.__module__ in ("builtins", "functools", "itertools")
            return not known
        if isinstance(value, Mapping):
            return any(map(self.may_know, value.values()))
        if isinstance(value, tuple | list | set | frozenset):
            return any(map(self.may_know, value))
        return True

    def _function(self, function: FunctionType) -> bool:
        code = function.__code__
        if function in self._read:
            return False
        self._read.add(function)
        if is_of_framework(function):
            return function.__name__ in _TELLTALE
        mentioned = names_in(code)
        if mentioned & _TELLTALE:
            return True
        outer = function.__globals__
        from_outside = [outer[name] for name in mentioned & outer.keys()]
        from_outside += [vars(builtins)[name] for name in mentioned - outer.keys() & vars(builtins).keys()]
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__":
                try:
                    from_outside.append(cell.cell_contents)
                except ValueError:  # not there yet
                    return True
        from_outside += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        return any(map(self.may_know, from_outside))
