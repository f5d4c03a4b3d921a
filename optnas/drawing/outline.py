"""The modules of a model in the order in which they run, with shapes: what a drawing shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from optnas.facts.cost import inference, refuse_lazy, run_on_meta
from optnas.facts.inputs import Example

SUM = "+"
_FOLLOWERS = ("activation", "batchnorm", "normalization", "instancenorm", "dropout")
_ADDITIONS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__}


@dataclass
class Call:
    """One call of a module.

    Attributes:
        path: of the module in the model, "" for the model itself.
        kind: the name of its class.
        detail: of layers that have them: kernel size, stride, groups, probability.
        follower: whether it is one of torch's normalizations, activations or dropouts.
        given, shape: of its first input and output, without the batch dimension; None where nothing ran.
        n_params: of the module and all below it; those that an earlier call has do not count again.
        calls: of modules below it, in order.
        reads: where its first input comes from: the output of the call "before" it, the "block" that it is
            in, or "elsewhere".

    The addition of what a module was given to something within it is listed as a call of kind `SUM`.
    """

    path: str
    kind: str
    detail: str
    follower: bool = False
    n_params: int = 0
    given: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    calls: list[Call] = field(default_factory=list)
    reads: str = "before"


def outline(model: nn.Module, example: Example | None = None) -> Call:
    """What runs when `model` is given `example`, from one pass on the meta device in eval mode.

    Without an example, or where the model cannot run there, modules are listed as they were registered, and
    shapes are None. Modules that the pass does not call are left out.

    Raises:
        ValueError: the model is lazy and has not seen an input yet.
    """
    refuse_lazy(model)
    if example is not None:
        watch = _Watch(model)
        try:
            with inference(model), watch.hooks(), watch:
                run_on_meta(model, example)
        except Exception:  # its Python code looks at values, for example: facts say why, a drawing goes on
            pass
        else:
            return _counted(model, watch.root)
    return _counted(model, _registered(model, ""))


class _Watch(TorchFunctionMode):
    """Listens to modules, and to additions of what a module was given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.paths = {module: path for path, module in model.named_modules()}
        self.stack: list[tuple[Call, Tensor | None]] = []
        self.last: list[Tensor | None] = [None]  # the latest output of a call, at each depth
        self.kept: list[Any] = []  # tensors are told apart by identity, so none may go
        self.root = Call("", "", "")

    @contextmanager
    def hooks(self) -> Iterator[None]:
        handles = []
        for module in self.paths:
            handles.append(module.register_forward_pre_hook(self._begin, with_kwargs=True))
            handles.append(module.register_forward_hook(self._end))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in _ADDITIONS and self.stack:
            call, given = self.stack[-1]
            if call.calls and any(a is given for a in args if isinstance(a, Tensor)):
                call.calls.append(Call(call.path, SUM, "", given=_sizes(given), shape=_sizes(result)))
                self.kept.append(result)
                self.last[-1] = result
        return result

    def _begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        call = _call(self.paths[module], module)
        given = _first_tensor((args, kwargs))
        call.given = _sizes(given)
        if self.stack:
            parent, of_parent = self.stack[-1]
            first = not parent.calls
            if given is not of_parent:
                call.reads = "before" if given is self.last[-1] and not first else "elsewhere"
            elif not first and given is not self.last[-1]:
                call.reads = "block"
            parent.calls.append(call)
        else:
            self.root = call
        self.kept.append((args, kwargs))
        self.stack.append((call, given))
        self.last.append(None)

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        call, _ = self.stack.pop()
        result = _first_tensor(output)
        call.shape = _sizes(result)
        self.kept.append(output)
        self.last.pop()
        self.last[-1] = result


def _registered(module: nn.Module, path: str) -> Call:
    call = _call(path, module)
    for name, child in module.named_children():
        call.calls.append(_registered(child, f"{path}.{name}" if path else name))
    return call


def _counted(model: nn.Module, root: Call) -> Call:
    """Fill in the numbers of parameters; a module with parameters that was called before has none left."""
    modules = dict(model.named_modules(remove_duplicate=False))

    def visit(call: Call, seen: set[int]) -> None:
        if call.kind == SUM:
            return
        own = {id(p): p.numel() for p in modules[call.path].parameters() if id(p) not in seen}
        call.n_params = sum(own.values())
        for inner in call.calls:
            visit(inner, seen)
        seen.update(own)

    visit(root, set())
    return root


def _call(path: str, module: nn.Module) -> Call:
    leaf = next(module.children(), None) is None
    follower = leaf and type(module).__module__ in {f"torch.nn.modules.{name}" for name in _FOLLOWERS}
    return Call(path, type(module).__name__.lstrip("_"), _detail(module), follower)


def _sizes(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape[1:])


def _first_tensor(values: Any) -> Tensor | None:
    return next((value for value in tree_leaves(values) if isinstance(value, Tensor)), None)


def _detail(module: nn.Module) -> str:
    get = partial(getattr, module)
    words = []
    if kernel := get("kernel_size", None):
        words.append("×".join(map(str, kernel if isinstance(kernel, tuple) else (kernel,) * 2)))
        if isinstance(kernel, int) and type(module).__name__.endswith("1d"):
            words = [str(kernel)]
        stride = get("stride", 1)
        step = max(stride) if isinstance(stride, tuple) else stride
        if step > 1:
            words.append(f"stride {step}")
    groups = get("groups", 1)
    if isinstance(groups, int) and groups > 1:
        words.append("depthwise" if groups == get("in_channels", None) else f"{groups} groups")
    if isinstance(p := get("p", None), float):
        words.append(f"p {p:g}")
    return " ".join(words)
