"""All facts about a model from one build and one forward pass on the meta device."""

from __future__ import annotations

import hashlib
import logging
import random
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.utils._pytree import tree_flatten

from optnas.facts.canonical import canonical_form
from optnas.facts.cost import countable, materialize, modes_kept
from optnas.facts.describe import Describer, UnseenError
from optnas.facts.fact import USUAL, Fact, Pass
from optnas.facts.graph import reduce
from optnas.facts.hidden import Hidden, hidden, is_plain, structure, unused
from optnas.facts.inputs import Example, Inputs, arguments, batch_size, copied
from optnas.facts.modes import asks_for_inference_mode, knows_its_mode
from optnas.facts.trace import UNSEEN, Constants, Read, Tracer, eager, untraced

logger = logging.getLogger(__name__)

_SEED = 4_815_162_342_108  # one that no model sets
INSTEAD = "; networks are told apart by the answers that shape them"


@dataclass(frozen=True)
class Sketch:
    """What is known about a model before it is trained.

    Examples:
        >>> optnas.facts.sketch(lambda: nn.Linear(4, 3), (2, 4)).facts
        {'n_params': 15, 'flops': 24}
    """

    facts: Mapping[str, float] = field(default_factory=dict)
    """The numbers that could be had, by the name of the fact."""
    fingerprint: str | None = None
    """Equal for networks that train and score equally, see `fingerprint`; None where nobody can tell."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """The name of each fact that could not be had, and why; `fingerprint` is one of them."""

    sequence: str | None = None
    """Equal where the same operations happen in the same order, initialization included; if asked for."""

    @property
    def n_params(self) -> int | None:
        """Parameters, trainable or not; a shared one counts once."""
        return self._whole("n_params")

    @property
    def flops(self) -> int | None:
        """Floating-point operations of a forward pass in train mode, per sample; a multiply-add is 2."""
        return self._whole("flops")

    def _whole(self, name: str) -> int | None:
        return int(self.facts[name]) if name in self.facts else None


def fingerprint(build: Callable[[], nn.Module], example: Example) -> str:
    """32 hexadecimal digits that are equal only when two models compute, train and score the same.

    The model is built on the meta device and runs once in train mode, and once in eval mode where that may
    show something else. The fingerprint identifies the graph of ATen operations up to isomorphism, with
    shapes, dtypes, arguments and how every parameter is initialized; names and Python structure do not count.
    Identities, exact zeros and dead branches are removed, sums are unordered, and two separate branches
    differ from one branch used twice. What operations do not show counts as well: attributes of your own
    classes and those that you add to torch's, training code that a model brings along, hooks on gradients.
    It depends on the shapes in `example`, so compare fingerprints of one example, and on the versions of
    torch and Python.

    Raises:
        ValueError: the fingerprint cannot be had, for example because the model looks at values.

    Examples:
        >>> first = optnas.fingerprint(lambda: nn.Linear(4, 3), (2, 4))
        >>> first == optnas.fingerprint(lambda: nn.Sequential(nn.Identity(), nn.Linear(4, 3)), (2, 4))
        True
    """
    found = sketch(build, example, ())
    if found.fingerprint is None:
        raise ValueError(f"The model has no fingerprint: {found.missing['fingerprint']}")
    return found.fingerprint


def sketch(
    build: Callable[[], nn.Module], example: Example, facts: Sequence[Fact] = USUAL, *, ordered: bool = False
) -> Sketch:
    """Fingerprint and facts of the model that `build` makes, from a build and a pass on the meta device.

    Facts that need an initialized model are left to `Fact.of`. `ordered`: name the sequence of operations
    too, by which two equal networks draw their weights alike or not.

    A model that cannot be built or run there is built and runs on the CPU instead. Where its Python code
    looks at values that the data, the weights or random numbers decide, the pass does not show what another
    one would do: it has no fingerprint then, and `missing` says where it looks. Code that does so unless it
    is compiled is followed as `torch.compile` would. A model that does not run on the CPU either is no error
    here: the forward pass before training reports it. A shape with a batch of one is run with a batch of two,
    because BatchNorm may refuse one.

    The process's random state stays as it is. What `build` itself raises passes through, except where the
    meta device is to blame.

    Examples:
        >>> sketch = optnas.facts.sketch(lambda: nn.Linear(4, 3), (2, 4))
        >>> sketch.facts, len(sketch.fingerprint)
        ({'n_params': 15, 'flops': 24}, 32)
    """
    wanted = [fact for fact in facts if fact.needs == "meta"]
    with untraced(), _same_random_numbers(), torch.enable_grad():
        recording = _recorded(build, example, for_facts=bool(wanted))
        if recording.model is not None and recording.train_pass is not None:
            numbers, missing = _measured(wanted, recording.model, example, recording.train_pass)
        else:
            numbers, missing = _measured_for_real(build, example, wanted)
    if recording.fingerprint is None:
        missing["fingerprint"] = recording.why_not + INSTEAD
    sequence = _sequence(recording.tracer) if ordered and recording.fingerprint is not None else None
    return Sketch(numbers, recording.fingerprint, missing, sequence)


def _recorded(build: Callable[[], nn.Module], example: Example, for_facts: bool) -> _Recording:
    """The recording that tells most: on the meta device, which computes nothing, or else on the CPU."""
    on_meta = _Recording(build, example, "meta")
    if on_meta.fingerprint is not None or on_meta.tracer.fault is not None:
        return on_meta
    if on_meta.tracer.looks:
        compiled = _Recording(build, example, "meta", compiling=True)
        if compiled.fingerprint is not None or compiled.tracer.fault is not None:
            return compiled
        if not for_facts or on_meta.train_pass is not None:
            return on_meta
        on_cpu = _Recording(build, example, "cpu")
        on_cpu.fingerprint, on_cpu.why_not = None, on_meta.why_not
        return on_cpu
    if on_meta.train_pass is not None and not on_meta.tracer.minds_meta:
        return on_meta  # it runs there, and something else cannot be seen
    on_cpu = _Recording(build, example, "cpu")
    if on_cpu.tracer.looks:
        compiled = _Recording(build, example, "cpu", compiling=True)
        if compiled.fingerprint is not None:
            return compiled
    return on_cpu


def _measured(
    facts: Sequence[Fact], model: nn.Module, example: Example, recorded: Pass | None
) -> tuple[dict[str, float], dict[str, str]]:
    numbers: dict[str, float] = {}
    missing: dict[str, str] = {}
    for fact in facts:
        try:
            if recorded is not None and fact.of_pass is not None:
                numbers[fact.name] = fact.of_pass(recorded)
            else:
                numbers[fact.name] = fact.of(model, example)
        except Exception as error:
            missing[fact.name] = _reason(error)
    return numbers, missing


def _measured_for_real(
    build: Callable[[], nn.Module], example: Example, facts: Sequence[Fact]
) -> tuple[dict[str, float], dict[str, str]]:
    if not facts:
        return {}, {}
    with torch.device("cpu"):
        model = build()
    try:
        materialize(model, example)  # lazy modules get their shapes
    except Exception as error:
        logger.debug("The model does not run on the CPU either.", exc_info=error)
    return _measured(facts, model, example, None)


class _UnrecordedError(Exception):
    """No pass in train mode could be recorded; the message says why."""


class _Recording:
    """A model, what its passes did, and what they do not show.

    Args:
        device: where it is built and runs.
        compiling: whether code that asks whether it is being compiled is told so.

    Attributes:
        model: None where it cannot be built on the meta device.
        fingerprint: None where something cannot be seen; then `why_not` says what.
        train_pass: the pass in train mode; None where it raised.

    Raises:
        Exception: what `build` raises, except where the meta device is to blame.
    """

    def __init__(
        self, build: Callable[[], nn.Module], example: Example, device: str, *, compiling: bool = False
    ) -> None:
        self.device = device
        self.compiling = compiling
        self.tracer = Tracer(device)
        self.outputs: list[Read] = []
        self.results: list[Tensor] = []  # that training may differentiate
        self.notes: list[Any] = [] if device == "meta" and not compiling else [(device, compiling)]
        self.held: list[tuple[str, Read]] = []
        self.model: nn.Module | None = None
        self.train_pass: Pass | None = None
        self.fingerprint: str | None = None
        self.why_not = ""
        try:
            self.inputs = _stand_ins(example, device)
            self._record(build)
        except _UnrecordedError as error:
            self.why_not = self.why_not or str(error)

    def _record(self, build: Callable[[], nn.Module]) -> None:
        model = self.model = self._built(build)
        with modes_kept(model):  # a layer may be the user's own, which other networks have, too
            self._watch(model)

    def _watch(self, model: nn.Module) -> None:
        with _ours(self):
            before = None if is_plain(model) else hidden(model, recorded=False)
        modes = {module.training for module in model.modules()}
        if False in modes:
            self._run(model, "as built")  # a training goes on in the modes that a space leaves behind
            model.train()
        self._run(model, "train" if False in modes else "")
        self.train_pass = Pass(self.tracer.flops, batch_size(self.inputs))
        with _ours(self):
            if before is not None and knows_its_mode(model):
                self._run_in_eval_mode(model)
            self._look_at_what_is_hidden(model, before)
            self._name(model)

    def _built(self, build: Callable[[], nn.Module]) -> nn.Module:
        try:
            with _compiling(self.compiling), self.tracer, Constants(self.tracer), torch.device(self.device):
                return build()
        except Exception as error:
            if self.tracer.fault is not None:
                raise _UnrecordedError(_fault(self.tracer.fault)) from error
            if self.device == "meta" and (self.tracer.failed or self.tracer.looks or "meta" in str(error)):
                why = self.tracer.looks or f"cannot be built on the meta device: {_reason(error)}"
                raise _UnrecordedError(why) from error
            raise

    def _run(self, model: nn.Module, mode: str) -> None:
        parameters, buffers = _tensors(model)
        self.tracer.start(self.inputs, mode, (*parameters, *buffers))
        state = _python_random_state()
        args, kwargs = self.inputs
        try:
            with (
                eager(),
                countable() if self.device != "meta" else nullcontext(),
                _compiling(self.compiling),
                self.tracer,
                Constants(self.tracer),
                torch.device(self.device),
            ):
                output = model(*args, **kwargs)
        except Exception as error:
            if self.tracer.fault is not None:
                raise _UnrecordedError(_fault(self.tracer.fault)) from error
            where = f"in eval mode on {self.device}" if mode == "eval" else f"on {self.device}"
            raise _UnrecordedError(self.tracer.looks or f"cannot run {where}: {_reason(error)}") from error
        if _python_random_state() != state:
            self.tracer.blind = "the forward pass asks Python's or NumPy's random generator"
        values, structure = tree_flatten(output)
        others: list[Any] = []
        for i, value in enumerate(values):
            tensors = [value] if isinstance(value, Tensor) else []
            if not tensors:
                described, tensors = _described(value)
                others.append(described)
            self.outputs += [self.tracer.read(f"{mode}{i}", tensor) for tensor in tensors]
            if mode != "eval":
                self.results += tensors
        self.notes += [str(structure), others]

    def _run_in_eval_mode(self, model: nn.Module) -> None:
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # its fused layers refuse the meta device
        model.eval()
        try:
            try:
                with torch.no_grad():
                    self._run(model, "eval")
                if asks_for_inference_mode(model):
                    with torch.inference_mode():
                        self._run(model, "eval")
            except _UnrecordedError:  # it attaches hooks to gradients, for example
                self._run(model, "eval")
        except _UnrecordedError as error:
            self.tracer.blind = str(error)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            model.train()

    def _look_at_what_is_hidden(self, model: nn.Module, before: Hidden | None) -> None:
        now = hidden(model)
        self.notes.append(now.rows)
        if before is not None:
            after = hidden(model, recorded=False)
            if after.rows != before.rows:  # another step may do what this one did not
                self.notes += [before.rows, after.rows]
                now.why = now.why or before.why or after.why
        self.tracer.blind = self.tracer.blind or now.why
        describer = Describer({module: path for path, module in model.named_modules()})
        try:
            self.notes.append(_own_gradients(describer, self.results))
            for hook, read in self.tracer.hooks:
                self.held.append((repr(describer.value(hook, "a hook on a gradient")), read))
        except UnseenError as error:
            self.tracer.blind = str(error)
        tensors = [*now.tensors, *describer.tensors]
        foreign = [name for name, tensor in tensors if tensor.is_meta and not self.tracer.made(tensor)]
        if foreign and not self.tracer.looks:
            self.why_not = self.why_not or (
                f"the model can reach a tensor that was made for another one ({foreign[0]}), which may "
                "change what it computes"
            )
        self.held += [(name, self.tracer.read("0", tensor)) for name, tensor in tensors]
        if before is not None:
            self._look_at_unused_layers(model)

    def _look_at_unused_layers(self, model: nn.Module) -> None:
        used = {read.source for node in self.tracer.nodes if not node.lasting for read in node.reads}
        for name, module in unused(model, lambda p: self.tracer.read("0", p).source in used):
            self.notes.append((name, structure(module)))
            parameters = module.named_parameters(name)
            self.held += [(inner, self.tracer.read("0", parameter)) for inner, parameter in parameters]

    def _name(self, model: nn.Module) -> None:
        tracer = self.tracer
        parameters, buffers = _tensors(model)
        tracer.mark("buffer", buffers)
        tracer.mark("parameter", parameters)
        labels, edges = reduce(tracer.nodes, self.outputs, repr(self.notes), self.held)
        if any(label.startswith(f"('{UNSEEN}'".encode()) for label in labels):
            tracer.blind = (
                "the model holds a meta tensor whose making was not seen; make all of it in `build`"
            )
        self.why_not = self.why_not or tracer.looks or tracer.blind
        if tracer.fault is not None:
            self.why_not = _fault(tracer.fault)
        if not self.why_not:
            self.fingerprint = canonical_form(labels, edges)


def _tensors(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and buffers, from one walk over the modules, which is slow; a shared one repeats."""
    modules = list(model.modules())
    parameters: list[Tensor] = [p for module in modules for p in module._parameters.values() if p is not None]
    return parameters, [b for module in modules for b in module._buffers.values() if b is not None]


@contextmanager
def _ours(recording: _Recording) -> Iterator[None]:
    """An error within is ours: it costs the fingerprint, and is said."""
    try:
        yield
    except _UnrecordedError:
        raise
    except Exception as error:
        recording.why_not = _fault(error)


def _fault(error: Exception) -> str:
    """In words, an error of optnas itself."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    words = f"{_reason(error)} ({place.filename.rpartition('optnas/')[2]}:{place.lineno})"
    logger.warning("optnas fails to record a model; please report it.", exc_info=error)
    return f"a fault of optnas, please report it: {words}"


def _sequence(tracer: Tracer) -> str:
    digest = hashlib.sha256()
    for node in tracer.nodes:
        reads = [(read.role, read.source, read.port, read.geometry) for read in node.reads]
        digest.update(repr((node.op, node.args, reads, node.outputs)).encode())
    return digest.hexdigest()[:16]


def _own_gradients(describer: Describer, outputs: list[Tensor]) -> list[Any]:
    """The gradient's graph, where the model defines gradients of its own: the forward pass hides them.

    It is listed as it comes, so that it tells apart more than needed, and only then.

    Raises:
        UnseenError: such a gradient keeps what cannot be seen.
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
        content: Any = None
        if issubclass(type(function), BackwardCFunction):
            own = True
            kind: Any = type(function)
            written, name = kind._forward_cls, kind.__name__
            content = describer.functions(written, name), describer.value(vars(function), name)
        following = [(f, port) for f, port in function.next_functions]
        rows.append((type(function).__module__, type(function).__qualname__, content, following))
        stack += [f for f, _ in following]
    if not own:
        return []
    return [(*row, [(index.get(f), port) for f, port in following]) for *row, following in rows]


def _stand_ins(example: Example, device: str) -> Inputs:
    if isinstance(example, tuple | list) and example and isinstance(example[0], int) and example[0] == 1:
        example = (2, *(size for size in example[1:] if isinstance(size, int)))
    given = arguments(example)
    if device != "meta":
        return copied(given, lambda tensor: tensor.detach().clone())
    try:
        # Inputs that share memory in the example need not share it in the data.
        return copied(given, lambda tensor: torch.empty_like(tensor, device="meta"))
    except TypeError as error:  # packed sequences, for example
        raise _UnrecordedError(str(error)) from error


def _described(value: Any) -> tuple[Any, list[Tensor]]:
    """A part of a model's output that is no tensor, in words, and the tensors in it.

    Raises:
        _UnrecordedError: nobody knows what is in it.
    """
    describer = Describer({})
    try:
        words = describer.value(value, f"the model returns a {type(value).__name__}: it")
    except UnseenError as error:
        raise _UnrecordedError(str(error)) from error
    return words, [tensor for _, tensor in describer.tensors]


@contextmanager
def _compiling(on: bool) -> Iterator[None]:
    """Code that asks `torch.compiler.is_compiling()` is told yes: it leaves out what only looks at values."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = on or before
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


def _python_random_state() -> tuple[object, ...]:
    _, keys, *rest = np.random.get_state()  # noqa: NPY002  # this generator is the one that models share
    return random.getstate(), np.asarray(keys).tobytes(), *rest


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """The same random numbers for every sketch, and none taken from the process."""
    of_torch, of_python = torch.default_generator.get_state(), random.getstate()
    of_numpy = np.random.get_state()  # noqa: NPY002  # the generator of models that still use it
    try:
        torch.default_generator.manual_seed(_SEED)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002  # as above
        yield
    finally:
        torch.default_generator.set_state(of_torch)
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002  # as above


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
