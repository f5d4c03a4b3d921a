"""What of a model no record of its operations shows: attributes, code beside `forward`, hooks on gradients.

A loss may read `model.beta`, an optimizer `model.lr`; a LightningModule brings training code of its own.
What torch itself sets on its modules is in the operations, so of those only what somebody added counts; of a
class of somebody else's, every attribute does. Two models may so be told apart needlessly, never mixed up.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from types import FunctionType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import loss

from optnas.facts.describe import Describer, UnseenError, is_code, is_of_framework, members, names_in

TRUSTED = ("torch.nn.", "optnas.")
_SAVED_BY_LIGHTNING = {"_hparams"}
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_OF_BUFFERS = {"persistent", "_is_buffer"}


@dataclass
class Hidden:
    """Rows that are equal where nothing hidden differs, and tensors that code beside the model may read."""

    rows: list[Any] = field(default_factory=list)
    tensors: list[tuple[str, Tensor]] = field(default_factory=list)
    why: str = ""
    """Why it is not all here, if so."""


def hidden(model: nn.Module, *, recorded: bool = True) -> Hidden:
    """All that is hidden in a model as it is now.

    Unless the code of `forward` counts as `recorded`, it is hidden, too, in all classes but torch's: another
    step may run what the recorded one did not.
    """
    found = Hidden()
    paths = {module: _shape_of(path) for path, module in model.named_modules()}
    describer = Describer(paths)
    classes: set[type] = set()
    try:
        for module, path in paths.items():
            kind = type(module)
            if vars(module).keys() <= attributes_of(kind) and is_trusted(kind):
                row = _row_of_trusted(describer, module, path)
            else:
                beside = not recorded or _has_code_beside_forward(kind)
                row = _row(describer, module, path, beside)
                if beside and kind not in classes and not is_trusted(kind):
                    classes.add(kind)
                    row += _code(describer, module, kind)
            if not recorded and (hooks := forward_hooks(module)):
                row.append(describer.value(hooks, f"a hook of {path or 'the model'}"))
            row += _on_tensors(describer, module, path)
            if row:
                found.rows.append((path, *row))
            found.tensors += _tensors_of_its_own(module, path)
    except UnseenError as error:
        found.why = str(error)
    found.tensors += describer.tensors
    return found


def is_plain(model: nn.Module) -> bool:
    """Whether all code of a model is torch's, with nothing added, so that only operations can tell."""
    return all(
        is_trusted(type(module))
        and vars(module).keys() <= attributes_of(type(module))
        and not forward_hooks(module)
        for module in model.modules()
    )


def unused(model: nn.Module, is_used: Callable[[Tensor], bool]) -> Iterator[tuple[str, nn.Module]]:
    """Layers that a module has by name and that its call leaves alone: a loss may be what they are for.

    A class that is torch's holds candidates, not parts with a name.
    """
    for path, module in model.named_modules():
        if not is_trusted(type(module)):
            for name, child in module.named_children():
                own = list(child.parameters())
                if own and not any(map(is_used, own)):
                    yield _place(_shape_of(path), name), child


def structure(module: nn.Module) -> list[Any]:
    """The modules within a module, in words."""
    return [
        (_shape_of(path), type(inner).__qualname__, inner.extra_repr())
        for path, inner in module.named_modules()
    ]


def is_trusted(kind: type) -> bool:
    """Whether all that modules of this class do is in the record of one pass in train mode."""
    return kind.__module__.startswith(TRUSTED)


def attributes_of(kind: type) -> frozenset[str]:
    """Names of attributes that the framework's classes in `kind` set on their instances."""
    if is_of_framework(kind):
        return _names_of(kind)[0]
    bases = (_names_of(base)[0] for base in kind.__mro__ if is_of_framework(base))
    return frozenset().union(*bases)


@lru_cache(4096)  # torch makes classes, too
def _names_of(kind: type) -> tuple[frozenset[str], frozenset[str]]:
    """Of a framework's class: attributes that it sets, and these with possible names of its own tensors."""
    names, strings = set(_OF_EVERY_MODULE), set()
    for base in filter(is_of_framework, kind.__mro__):
        names |= inspect.get_annotations(base).keys()
        for value in vars(base).values():
            parts = (value.fget, value.fset) if isinstance(value, property) else (value,)
            for code in (part.__code__ for part in parts if isinstance(part, FunctionType)):
                names |= {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_ATTR"}
                strings |= {c for c in code.co_consts if isinstance(c, str)}
    names -= _SAVED_BY_LIGHTNING
    return frozenset(names), frozenset(names | strings)


def _row_of_trusted(describer: Describer, module: nn.Module, path: str) -> list[Any]:
    row = _hooks_and_compilation(describer, module, path)
    if type(module).__module__ == loss.__name__:  # whoever calls it sees its result, not the model's
        own = {n: v for n, v in vars(module).items() if n not in _OF_EVERY_MODULE}
        row.append((type(module).__name__, describer.value(own, path)))
    return row


def _row(describer: Describer, module: nn.Module, path: str, code_beside_forward: bool) -> list[Any]:
    row = _hooks_and_compilation(describer, module, path)
    kind = type(module)
    if kind.__module__ == "torch._dynamo.eval_frame":
        return [*row, "compiled"]
    # A function that `forward` calls is in the record, like the rest of `forward`.
    called = frozenset() if code_beside_forward else names_reached(kind, "forward")
    for name in sorted(vars(module).keys() - attributes_of(kind)):
        value = vars(module)[name]
        if name != "forward" and not (callable(value) and name in called and not isinstance(value, type)):
            row.append((name, describer.value(value, _place(path, name))))
    if not is_trusted(kind):  # what Lightning sets, such as whether it optimizes on its own
        by_frameworks = vars(module).keys() & attributes_of(kind) - _OF_EVERY_MODULE
        values = [(name, vars(module)[name]) for name in sorted(by_frameworks)]
        row += [(name, value) for name, value in values if isinstance(value, bool | int | float | str)]
    return row


def forward_hooks(module: nn.Module) -> list[Any]:
    """Those that are not torch's own, such as the one that gives a lazy module its shape."""
    if not module._forward_hooks and not module._forward_pre_hooks:
        return []
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return [hook for hook in hooks if not is_trusted(type(hook)) and not is_of_framework(hook)]


def _hooks_and_compilation(describer: Describer, module: nn.Module, path: str) -> list[Any]:
    row: list[Any] = []
    if module._backward_hooks or module._backward_pre_hooks:
        hooks = [*module._backward_hooks.values(), *module._backward_pre_hooks.values()]
        row.append(("backward hooks", describer.value(hooks, f"a hook of {path or 'the model'}")))
    if module._compiled_call_impl is not None:
        row.append("compiled")
    return row


def _on_tensors(describer: Describer, module: nn.Module, path: str) -> list[Any]:
    """Attributes and hooks of a module's own parameters and buffers, which an optimizer may read."""
    rows: list[Any] = []
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is None:
            continue
        place = _place(path, name)
        added = {key: value for key, value in vars(tensor).items() if key not in _OF_BUFFERS}
        if added:
            rows.append((name, describer.value(added, place)))
        for hooks in (tensor._backward_hooks, tensor._post_accumulate_grad_hooks):
            if hooks:
                rows.append((name, describer.value(list(hooks.values()), f"a hook of {place}")))
    return rows


def _beside_forward(kind: type) -> dict[str, Any]:
    """What a class defines that does not run when the model is made and called, and values in it."""
    reached = names_reached(kind, "forward", "__init__")
    return {name: value for name, value in members(kind) if name not in reached or not is_code(value)}


def _has_code_beside_forward(kind: type) -> bool:
    return not is_trusted(kind) and bool(_beside_forward(kind))


def _code(describer: Describer, module: nn.Module, kind: type) -> list[Any]:
    """The code of a class, values in it, and what of its children runs in a way that no record shows."""
    row: list[Any] = ["code", describer.functions(kind, kind.__name__)]
    beside = _beside_forward(kind)
    mentioned = frozenset().union(*(names_in(v.__code__) for v in beside.values() if is_code(v)))
    for name, child in module.named_children():
        if name in mentioned:
            row.append((name, structure(child)))
    return row


def names_reached(kind: type, *start: str) -> frozenset[str]:
    """All that the code of a class mentions which runs under the names in `start`, and these names."""
    code: dict[str, list[FunctionType]] = {}
    for name, value in members(kind):
        if is_code(value):
            code.setdefault(name, []).append(value)
    reached, waiting = set(start), list(start)
    while waiting:
        for function in code.get(waiting.pop(), ()):
            new = names_in(function.__code__) - reached
            reached |= new
            waiting += new
    return frozenset(reached)


def _tensors_of_its_own(module: nn.Module, path: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers that torch's own classes do not have."""
    kind: type = type(module)
    known: frozenset[str] = _names_of(kind)[1] if is_trusted(kind) else frozenset()
    for tensors in (module._parameters, module._buffers):
        for name, tensor in tensors.items():
            if tensor is not None and name not in known:
                yield _place(path, name), tensor


def _place(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shape_of(path: str) -> str:
    """A path without the numbers in it: a layer that computes nothing may stand before."""
    return ".".join(part for part in path.split(".") if not part.isdigit())
