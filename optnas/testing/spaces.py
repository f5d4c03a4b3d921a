"""Does a space keep the rules that every search relies on?"""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise, zip_longest
from typing import Any

import numpy as np
import torch
from optuna import TrialPruned
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from optnas.answers import ParamsKey, contains, draw, params_key, same
from optnas.errors import ConformanceError, ParamsMismatchError, failing_layer
from optnas.facts.inputs import Example, as_inputs, batch_size
from optnas.facts.sketch import sketch
from optnas.testing.interview import Interview, Known
from optnas.trial import Draw, Space, replay

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

_MOST_MET = 16
"""Options of a number up to which each is met on purpose."""

_PURE = "Let the answers of the trial alone decide, not random numbers, global state or earlier calls."


def check_space(
    space: Space[nn.Module],
    example: Example | None = None,
    *,
    n_samples: int = 20,
    seed: int = 0,
    shared_names: Collection[str] = (),
) -> None:
    """Draw architectures at random, build each several times, and check what every search relies on.

    Every choice is met, as far as `n_samples` suffices; which choices fail together takes luck to find. What
    the space refuses (`optuna.TrialPruned`) is no fault.

    The checks, by the name that the error carries:

    - `choices`: Optuna can store every choice, and tell it from the others
    - `names`: no name is asked twice in one build with other choices, or is too long to be stored
    - `shared names`: no name is asked twice in one build with equal choices, except those in `shared_names`
    - `same choices`: a name offers the same choices in every build
    - `build`: the space returns a model
    - `purity`: equal answers lead to equal questions and models, whatever the global random generators of
      Python, numpy and torch do
    - `sharing`: no module, parameter or buffer belongs to two builds
    - `forward`: a model takes the example, in eval and in train mode
    - `backward`: the gradient can be computed; parameters without one are allowed (a dead branch)

    Models are built and run on the meta device, which costs nothing, or on the CPU where that fails.

    Args:
        space: a function of a trial that returns a model.
        example: inputs: a shape with the batch dimension, a tensor, a tuple of tensors, or a dict of keyword
            tensors; a batch of one is doubled in train mode, for BatchNorm. Without it nothing is run.
        n_samples: the number of architectures drawn, with repeats. A fault of few takes many to find.
        seed: of the draws.
        shared_names: names that several places ask on purpose.

    Raises:
        ConformanceError: a check failed.

    Warns:
        UserWarning: different answers build one network, as far as its traced graph shows, so that a search
            trains one of them and gives its value to the others. The message lists the answers.

    Examples:
        >>> optnas.testing.check_space(space, example, n_samples=3)
    """
    drawn: list[Mapping[str, Any]] = []
    for fault in find_faults(
        space, example, n_samples=n_samples, seed=seed, shared_names=shared_names, drawn=drawn
    ):
        raise fault
    if example is not None:
        _warn_of_collapse(space, example, drawn)


def find_faults(
    space: Space[nn.Module],
    example: Example | None = None,
    *,
    n_samples: int = 20,
    seed: int = 0,
    shared_names: Collection[str] = (),
    drawn: list[Mapping[str, Any]] | None = None,
) -> Iterator[ConformanceError]:
    """What `check_space` would raise, one fault after the other, for as many architectures.

    Args:
        drawn: gets the params of the architectures, each once.
    """
    rng = np.random.default_rng(seed)
    builder = _Builder(space, rng, shared_names)
    pick = _Coverage(rng)
    known: set[ParamsKey] = set()
    n_refused = 0
    for _ in range(n_samples):
        try:
            model, trial = builder.build(lambda: Draw(pick))
            if drawn is not None and params_key(trial.params) not in known:
                known.add(params_key(trial.params))
                drawn.append(trial.params)
            twin, again = builder.rebuild(trial.params)
            _compare(trial.asked, again.asked, "questions", trial.params)
            _compare(_description(model), _description(twin), "models", trial.params)
            if example is not None:
                _check_runs(builder, example, trial.params)
        except TrialPruned:  # the space refuses these answers, as it may
            n_refused += 1
        except ConformanceError as fault:
            yield fault
    if n_refused == n_samples:
        yield ConformanceError("build", f"the space refused each of {n_samples} random architectures.", {})


class _Coverage:
    """Answers at random, but first of all what was not answered yet, so that few builds meet every option.

    Of numbers with many options, only both ends are met on purpose.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._left: dict[str, list[Any]] = {}

    def __call__(self, name: str, distribution: BaseDistribution) -> Any:
        left = self._left.setdefault(name, self._to_meet(distribution))
        while left:
            option = left.pop(int(self._rng.integers(len(left))))
            if contains(distribution, option):
                return option
        return draw(distribution, self._rng)

    @staticmethod
    def _to_meet(distribution: BaseDistribution) -> list[Any]:
        if isinstance(distribution, CategoricalDistribution):
            return list(distribution.choices)
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        if isinstance(distribution, IntDistribution):
            every = range(distribution.low, distribution.high + 1, distribution.step)
            if len(every) <= _MOST_MET:
                return list(every)
        return [distribution.low, distribution.high]


class _Builder:
    """Builds architectures, each time with other global random states, and notes who owns what."""

    def __init__(
        self, space: Space[nn.Module], rng: np.random.Generator, shared_names: Collection[str]
    ) -> None:
        self._space = space
        self._rng = rng
        self._shared_names = shared_names
        self._known: Known = {}
        self._n_builds = 0
        # By id: the object (kept alive, so that ids stay unique), the number of its build, where it is.
        self._owners: dict[int, tuple[object, int, str]] = {}

    def build(
        self, make_draw: Callable[[], Draw], devices: Sequence[str] = ("meta", "cpu")
    ) -> tuple[nn.Module, Interview]:
        """On the first device where it works."""
        for device in devices:
            trial = Interview(make_draw(), self._known, self._shared_names)
            try:
                with self.disturbed(), torch.device(device):
                    model: Any = self._space(trial)
            except (ConformanceError, ParamsMismatchError, TrialPruned):
                raise
            except Exception as error:
                if device == devices[-1]:
                    raise ConformanceError("build", _text(error), trial.params) from error
                continue
            if not isinstance(model, nn.Module):
                message = f"the space returned {model!r}; return a torch.nn.Module."
                raise ConformanceError("build", message, trial.params)
            self._n_builds += 1
            self.own(model, trial.params)
            break
        return model, trial

    def rebuild(
        self, params: Mapping[str, Any], devices: Sequence[str] = ("meta", "cpu")
    ) -> tuple[nn.Module, Interview]:
        try:
            return self.build(lambda: replay(params), devices)
        except ParamsMismatchError as error:
            message = f"the same answers led to other questions the next time. {error} {_PURE}"
            raise ConformanceError("purity", message, params) from error

    def own(self, model: nn.Module, params: Mapping[str, Any]) -> None:
        """Note what belongs to the model built last, and refuse what belongs to an earlier one."""
        parts: list[tuple[str, nn.Module | Tensor]] = [
            *model.named_modules(),
            *model.named_parameters(),
            *model.named_buffers(),
        ]
        for name, part in parts:
            where = f"{type(part).__name__} {name!r}" if name else f"{type(part).__name__}, the whole model,"
            _, owner, _ = self._owners.setdefault(id(part), (part, self._n_builds, where))
            if owner != self._n_builds:
                message = (
                    f"{where} belongs to two builds, so that two trials would train it together. "
                    "Create modules and parameters inside the space, or pass a function that creates them."
                )
                raise ConformanceError("sharing", message, params)

    @contextmanager
    def disturbed(self) -> Iterator[None]:
        """Other states of the global random generators; afterwards those of before."""
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the global one is meant
        seed = int(self._rng.integers(2**31))
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002  # as above
            torch.manual_seed(seed)
            try:
                yield
            finally:
                random.setstate(python)
                np.random.set_state(numpy)  # noqa: NPY002  # as above


def _warn_of_collapse(space: Space[nn.Module], example: Example, drawn: Sequence[Mapping[str, Any]]) -> None:
    """Warn of different answers that have one fingerprint; see `check_space`."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for params in drawn:
        try:
            fingerprint = sketch(lambda params=params: space(replay(params)), example).fingerprint  # type: ignore[misc]  # a default binds it
        except Exception:  # it can be built on the CPU alone: a search has no fingerprint of it either
            continue
        if fingerprint is not None:
            found.setdefault(fingerprint, []).append(params)
    lines = []
    for alike in found.values():
        for one, other in pairwise(alike):
            names = [
                n for n in {**one, **other} if n not in one or n not in other or not same(one[n], other[n])
            ]
            lines.append(", ".join(f"{n}: {_answer(one, n)} or {_answer(other, n)}" for n in names))
    if lines:
        shown = "\n  ".join(sorted(lines, key=len)[:5])
        warnings.warn(
            f"Of {len(drawn)} architectures, {len(lines)} build a network that another one builds. These "
            f"answers made no difference:\n  {shown}\nA search trains one of them and gives its value to the "
            "others. Where such an answer decides something that the traced network does not show (how it is "
            "trained, say), ask for it in the task, or say Objective(..., reuse_twins=False).",
            stacklevel=3,
        )


def _answer(params: Mapping[str, Any], name: str) -> str:
    return repr(params[name]) if name in params else "not asked"


def _compare(first: Sequence[object], second: Sequence[object], what: str, params: Mapping[str, Any]) -> None:
    for one, other in zip_longest(first, second, fillvalue="nothing"):
        if one != other:
            message = f"the same answers led to other {what} the next time: {one}, then {other}. {_PURE}"
            raise ConformanceError("purity", message, params)


def _description(model: nn.Module) -> list[str]:
    """Each module with its settings, and each tensor with its shape: all that is known before a forward.

    Where an object lies in memory is no setting: torch.compile keeps the id of its module, some modules print
    the address of a function.
    """
    lines = []
    parts = (part for module in model.modules() for part in (module, *vars(module).values()))
    ids = {id(part) for part in parts}
    for name, module in model.named_modules():
        settings = {
            k: v for k, v in vars(module).items() if _is_plain(v) and not (type(v) is int and v in ids)
        }
        line = f"{type(module).__qualname__} {name!r} ({module.extra_repr()}) {settings}"
        lines.append(_ADDRESS.sub(" at ...", line))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        shape = "inferred" if is_lazy(tensor) else tuple(tensor.shape)
        lines.append(f"{name!r} {shape} {tensor.dtype} requires_grad={tensor.requires_grad}")
    return lines


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


def _check_runs(builder: _Builder, example: Example, params: Mapping[str, Any]) -> None:
    for device in ("meta", "cpu"):
        try:
            model, _ = builder.rebuild(params, [device])
        except ConformanceError as error:
            if device == "meta" and error.check == "build":
                continue
            raise
        stage = "forward"
        try:
            with builder.disturbed():
                model.eval()
                with torch.no_grad():
                    _forward(model, example, device, minimum=1)
                model.train()
                output = _forward(model, example, device, minimum=2)
                stage = "backward"
                _backward(output)
        except Exception as error:
            if device == "meta":
                continue
            mode = "train" if model.training else "eval"
            layer = f", in {where}" if (where := failing_layer(model, error)) else ""
            raise ConformanceError(stage, f"in {mode} mode{layer}: {_text(error)}", params) from error
        builder.own(model, params)  # again: some modules are made at the first forward
        return


def _forward(model: nn.Module, example: Example, device: str, minimum: int) -> Any:
    args, kwargs = as_inputs(example, device)  # copies: a model may work in place
    times = minimum if batch_size((args, kwargs)) < minimum else 1

    def repeated(value: Any) -> Any:
        rows = isinstance(value, Tensor) and value.dim() and times > 1
        return value.repeat_interleave(times, 0) if rows else value

    return model(*map(repeated, args), **{name: repeated(value) for name, value in kwargs.items()})


def _backward(output: Any) -> None:
    leaves = tree_leaves(output)
    losses = [leaf.float().sum() for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
    if losses:
        torch.autograd.backward(torch.stack(losses).sum())


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
