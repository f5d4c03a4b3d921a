"""All facts about a model from one build and one forward pass on the meta device."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_flatten

from optnas.facts.canonical import canonical_form
from optnas.facts.cost import Example, Inputs, as_inputs, batch_size, count_params
from optnas.facts.fact import Fact
from optnas.facts.graph import reduce
from optnas.facts.trace import UNSEEN, Constants, Tracer

FACTS = ("n_params", "flops", "fingerprint")


@dataclass(frozen=True)
class Sketch:
    """What is known about a model before it is trained; None for what could not be had."""

    n_params: int | None = None
    """Parameters, trainable or not; a shared one counts once."""
    flops: int | None = None
    """Floating-point operations of a forward pass in train mode, per sample; a multiply-add is 2."""
    fingerprint: str | None = None
    """Equal for equal computation graphs, see `fingerprint`."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """The name of each fact that could not be had, and why."""
    sequence: str | None = None
    """Equal where the same operations happen in the same order, initialization included; if asked for."""
    more: Mapping[str, float] = field(default_factory=dict)
    """The user's facts that need no real model, by name."""

    @property
    def facts(self) -> dict[str, float]:
        """All numbers that could be had, by name."""
        usual = {"n_params": self.n_params, "flops": self.flops}
        return {**{name: n for name, n in usual.items() if n is not None}, **self.more}


def fingerprint(build: Callable[[], nn.Module], example: Example) -> str:
    """32 hexadecimal digits that are equal when two models compute and train the same.

    The model is built on the meta device and runs once in train mode. The fingerprint identifies the graph of
    ATen operations up to isomorphism, with shapes, dtypes, arguments and how every parameter is initialized;
    names and Python structure do not count. Identities, exact zeros and dead branches are removed, sums are
    unordered, and two separate branches differ from one branch used twice. It depends on the shapes in
    `example`, so compare fingerprints of one example, and on the version of torch.

    Raises:
        ValueError: the fingerprint cannot be had, for example because the model looks at values.
    """
    found = sketch(build, example)
    if found.fingerprint is None:
        raise ValueError(f"The model has no fingerprint: {found.missing['fingerprint']}")
    return found.fingerprint


def sketch(
    build: Callable[[], nn.Module], example: Example, facts: Sequence[Fact] = (), *, ordered: bool = False
) -> Sketch:
    """All facts about the model that `build` makes, from one build and one forward pass on the meta device.

    Of `facts`, those that need the structure alone are measured on the same model. `ordered`: name the
    sequence of operations too, by which two equal networks draw their weights alike or not.

    A model that cannot run there (its Python code looks at values, an operation does not support the meta
    device, shapes do not fit) is no error here: the facts are None and `missing` says why. A real forward
    pass judges. A shape with a batch of one is run with a batch of two, because BatchNorm may refuse one.

    The process's random state stays as it is. What `build` itself raises passes through, except where the
    meta device is to blame.
    """
    args, kwargs = _stand_ins(example)
    tracer = Tracer()
    with _random_state_kept(), torch.enable_grad():
        try:
            with tracer, Constants(tracer), torch.device("meta"):
                model = build()
        except Exception as error:
            if tracer.failed or "meta" in str(error):
                return Sketch(
                    missing=dict.fromkeys(FACTS, f"cannot be built on the meta device: {_reason(error)}")
                )
            raise
        tracer.start((args, kwargs))
        if not model.training:
            model.train()
        state = _python_random_state()
        try:
            with tracer, Constants(tracer), torch.device("meta"):
                output = model(*args, **kwargs)
        except Exception as error:
            reason = f"cannot run on the meta device: {_reason(error)}"
            if any(is_lazy(parameter) for parameter in model.parameters()):
                return Sketch(missing=dict.fromkeys(FACTS, reason))
            return Sketch(count_params(model), missing=dict.fromkeys(FACTS[1:], reason))
        if _python_random_state() != state:
            tracer.blind = "the forward pass asks Python's or NumPy's random generator"
        name = _name(tracer, model, output)
        sequence = _sequence(tracer) if ordered and name is not None else None
        missing = {"fingerprint": tracer.blind} if tracer.blind else {}
        more: dict[str, float] = {}
        for fact in facts:
            if fact.needs == "meta":
                try:
                    more[fact.name] = fact.of(model, example)
                except Exception as error:
                    missing[fact.name] = _reason(error)
    flops = tracer.flops // batch_size((args, kwargs))
    return Sketch(count_params(model), flops, name, missing, sequence, more)


def _name(tracer: Tracer, model: nn.Module, output: Any) -> str | None:
    tracer.mark("buffer", model.buffers())
    tracer.mark("parameter", model.parameters())
    values, structure = tree_flatten(output)
    tensors = {str(i): value for i, value in enumerate(values) if isinstance(value, Tensor)}
    others = [value for value in values if not isinstance(value, Tensor)]
    if not all(isinstance(value, bool | int | float | str | None) for value in others):
        tracer.blind = f"the model returns a {type(others[0]).__name__}, which may hide tensors"
    note = repr((str(structure), others, _own_gradients(tracer, list(tensors.values()))))
    labels, edges = reduce(
        tracer.nodes, [tracer.read(role, tensor) for role, tensor in tensors.items()], note
    )
    if any(label.startswith(f"('{UNSEEN}'".encode()) for label in labels):
        tracer.blind = "the model holds a meta tensor whose making was not seen; make all of it in `build`"
    return None if tracer.blind else canonical_form(labels, edges)


def _sequence(tracer: Tracer) -> str:
    digest = hashlib.sha256()
    for node in tracer.nodes:
        reads = [(read.role, read.source, read.port, read.geometry) for read in node.reads]
        digest.update(repr((node.op, node.args, reads, node.outputs)).encode())
    return digest.hexdigest()[:16]


def _own_gradients(tracer: Tracer, outputs: list[Tensor]) -> list[Any]:
    """The gradient's graph, where the model defines gradients of its own: the forward pass hides them.

    It is listed as it comes, so that it tells apart more than needed, and only then.
    """
    index: dict[Any, int] = {}
    stack = [tensor.grad_fn for tensor in outputs]
    rows: list[Any] = []
    own = False
    while stack:
        function = stack.pop()
        if function is None or function in index:
            continue
        index[function] = len(index)
        settings: dict[str, Any] = {}
        if issubclass(type(function), BackwardCFunction):
            own = True
            settings = {k: v for k, v in vars(function).items() if not isinstance(v, Tensor)}
            if not all(isinstance(v, bool | int | float | str | tuple | None) for v in settings.values()):
                tracer.blind = f"{type(function).__name__} keeps objects whose content cannot be seen"
        following = [(f, port) for f, port in function.next_functions]
        rows.append(
            (type(function).__module__, type(function).__qualname__, sorted(settings.items()), following)
        )
        stack += [f for f, _ in following]
    if not own:
        return []
    return [(*row, [(index.get(f), port) for f, port in following]) for *row, following in rows]


def _stand_ins(example: Example) -> Inputs:
    if isinstance(example, tuple | list) and example and example[0] == 1 and isinstance(example[0], int):
        example = (2, *(size for size in example[1:] if isinstance(size, int)))
    args, kwargs = as_inputs(example, "meta")
    # Inputs that share memory in the example need not share it in the data.
    return tuple(torch.empty_like(a) for a in args), {name: torch.empty_like(a) for name, a in kwargs.items()}


def _python_random_state() -> tuple[object, ...]:
    _, keys, *rest = np.random.get_state()  # noqa: NPY002  # this generator is the one that models share
    return random.getstate(), np.asarray(keys).tobytes(), *rest


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """The same random numbers for every sketch, and none taken from the process."""
    of_torch, of_python = torch.default_generator.get_state(), random.getstate()
    of_numpy = np.random.get_state()  # noqa: NPY002  # the generator of models that still use it
    try:
        torch.default_generator.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002  # as above
        yield
    finally:
        torch.default_generator.set_state(of_torch)
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002  # as above


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
