"""Take a model out of optnas: files that run where neither optnas nor the code of the space is installed.

Both functions export a copy on the CPU in eval mode with a dynamic batch size, and compare the file with the
model on several batch sizes before they put it in its place; where the batch size cannot vary, the file takes
that of the example only, and the log says so. A file that exists has passed.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import inspect
import io
import logging
import os
import re
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import ConstantArgument
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from optnas.facts.inputs import Example, as_inputs, batch_size

BATCH_SIZES = (1, 2, 5)
TOLERANCE = 1e-4

_log = logging.getLogger(__name__)

Inputs = tuple[tuple[Any, ...], dict[str, Any]]

_PLAIN = (Tensor, bool, int, float, str, type(None))  # what a file can take and return


def to_onnx(
    model: nn.Module,
    example: Example,
    path: str | Path,
    *,
    batch_dims: Mapping[int | str, int | None] | None = None,
) -> Path:
    """Write an ONNX file that needs only onnxruntime; returns its path.

    Args:
        model: trained, on any device; it is not changed.
        example: inputs as everywhere in optnas: a shape with the batch dimension, a tensor, a tuple of
            arguments, a dict of keyword arguments, or `optnas.Arguments(...)`. Arguments that are no tensors
            (None, flags, numbers) become part of the network.
        batch_dims: which dimension of an argument is the batch, by its position or name, or None for one
            without: `{0: 1, "mask": None}`. By default it is the first one of the first tensor, and of every
            other that has as many rows. It will be free; all other sizes are fixed.

    Outputs of the model that are None are left out of the file; in the place of an object of a class of its
    own, a dataclass for example, the file has a dict of the tensors in it, by the names of its attributes.

    Raises:
        ImportError: a package of the extra `onnx` is missing.
        ValueError: the model cannot be exported, or onnxruntime's outputs differ from the model's by more
            than 1e-4 (relative to the largest output, where that is above 1).

    Examples:
        >>> optnas.to_onnx(nn.Linear(4, 3), (2, 4), "model.onnx").name
        'model.onnx'
    """
    missing = [
        name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ImportError(f"to_onnx needs {', '.join(missing)}: pip install 'optnas[onnx]'")
    import onnxruntime

    def save(program: ExportedProgram, file: Path) -> Callable[..., Any]:
        outputs = program.graph_signature.output_specs
        numbers = [spec.arg.value for spec in outputs if isinstance(spec.arg, ConstantArgument)]
        if any(number is not None for number in numbers):
            raise ValueError(
                f"{type(model).__name__} returns {numbers} beside tensors; ONNX has tensors only."
            )
        torch.onnx.export(program, f=file, dynamo=True, external_data=False, verbose=False)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        used = {node.name for node in session.get_inputs()}  # what the model ignores may be missing
        names = program.graph_signature.user_inputs

        def run(*args: Tensor, **kwargs: Tensor) -> Any:
            given = zip(names, _leaves((args, kwargs)), strict=True)
            # An input that is returned as it is lends its name to the output.
            feed = {n: value for name, value in given for n in (name, f"{name}_orig") if n in used}
            return session.run(None, {name: value.numpy() for name, value in feed.items()})

        return run

    return _export(model, example, Path(path), save, batch_dims or {})


def to_torch_export(
    model: nn.Module,
    example: Example,
    path: str | Path,
    *,
    batch_dims: Mapping[int | str, int | None] | None = None,
) -> Path:
    """Write a `torch.export` program (`.pt2`) that needs only torch; returns its path.

    Load it with `torch.export.load(path).module()`. Arguments and errors as in `to_onnx`; `path` ends in
    `.pt2`, or torch would not load it without complaint.

    Examples:
        >>> path = optnas.to_torch_export(nn.Linear(4, 3), (2, 4), "model.pt2")
        >>> torch.export.load(path).module()(torch.zeros(5, 4)).shape
        torch.Size([5, 3])
    """
    if Path(path).suffix != ".pt2":
        raise ValueError(f"{str(path)!r} must end in .pt2, as torch.export.load expects.")

    def save(program: ExportedProgram, file: Path) -> Callable[..., Any]:
        torch.export.save(program, file)
        loaded: Callable[..., Any] = torch.export.load(file).module()
        return loaded

    return _export(model, example, Path(path), save, batch_dims or {})


def _export(
    model: nn.Module,
    example: Example,
    path: Path,
    save: Callable[[ExportedProgram, Path], Callable[..., Any]],
    batch_dims: Mapping[int | str, int | None],
) -> Path:
    inputs = as_inputs(example, "cpu")
    batch = _Batch(type(model).__name__, inputs, batch_dims)
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), _quiet(), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        file = Path(folder) / path.name

        def attempt(sizes: Sequence[int], free: bool) -> None:
            try:
                copied = _with_plain_outputs(copy.deepcopy(model).cpu().eval(), batch)
                run = save(_program(copied, batch, free), file)
                batches = [batch.of(size, seed) for seed, size in enumerate(sizes)]
                pairs = [(copied(*args, **kwargs), run(*args, **kwargs)) for args, kwargs in batches]
            except (OSError, ValueError):
                raise
            except Exception as error:  # exporters raise whatever a model's code meets in them
                raise ValueError(f"{type(model).__name__} cannot be exported: {_reason(error)}") from error
            for expected, actual in pairs:
                _compare(type(model).__name__, expected, actual)

        try:
            attempt(BATCH_SIZES, free=True)
        except ValueError as refusal:
            try:
                attempt([batch.n] * len(BATCH_SIZES), free=False)
            except ValueError:
                raise refusal from None
            _log.warning("%s takes batches of %d only, as the example: %s", path, batch.n, refusal)
        os.replace(file, path)
    return path


class _Batch:
    """Inputs with a batch dimension, of which batches of other sizes can be made.

    Attributes:
        n: samples of the example.
        dims: of each leaf of the inputs, which dimension is the batch; None: it has none.

    Raises:
        ValueError: an argument cannot be in a file, or has no such dimension.
    """

    def __init__(self, name: str, inputs: Inputs, batch_dims: Mapping[int | str, int | None]) -> None:
        self.inputs = inputs
        arguments: list[tuple[int | str, Any]] = [*enumerate(inputs[0]), *inputs[1].items()]
        given = dict(arguments)
        if unknown := [key for key in batch_dims if key not in given]:
            raise ValueError(f"batch_dims names {unknown[0]!r}, which is not an argument of the example.")
        for leaf in _leaves(inputs):
            if not isinstance(leaf, _PLAIN):
                raise ValueError(
                    f"{name} takes a {type(leaf).__name__}, but a file takes tensors and plain values: "
                    "export a module called with the tensors in it."
                )
        told = [(value, dim) for key, dim in batch_dims.items() for value in _leaves(given[key])]
        sizes = {value.shape[dim] for value, dim in told if isinstance(value, Tensor) and dim is not None}
        if len(sizes) > 1:
            raise ValueError(f"batch_dims={dict(batch_dims)!r}: these dimensions have sizes {sorted(sizes)}.")
        self.n = sizes.pop() if sizes else batch_size(inputs)
        self.dims = [
            self._dim(leaf, batch_dims.get(key, 0), key in batch_dims)
            for key, value in given.items()
            for leaf in _leaves(value)
        ]

    def _dim(self, leaf: Any, dim: int | None, told: bool) -> int | None:
        if not isinstance(leaf, Tensor) or dim is None or not leaf.dim():
            return None
        return dim if told or leaf.shape[dim] == self.n else None

    def of(self, size: int, seed: int = 0) -> Inputs:
        """`size` rows like those of the example; floating-point rows vary, so that a mix-up of rows shows."""
        generator = torch.Generator().manual_seed(10 * size + seed)
        leaves, structure = pytree.tree_flatten(self.inputs)
        made = [self._rows(leaf, dim, size, generator) for leaf, dim in zip(leaves, self.dims, strict=True)]
        batch: Inputs = pytree.tree_unflatten(made, structure)
        return batch

    def _rows(self, value: Any, dim: int | None, size: int, generator: torch.Generator) -> Any:
        if dim is None:
            return value
        taken = value.index_select(dim, torch.arange(size) % self.n)
        if not taken.is_floating_point():
            return taken
        noise = torch.randn(taken.shape, generator=generator, dtype=taken.dtype)
        if value.numel() < 2 or not value.any():
            return taken + noise
        # Where the example's values lie: a square root, say, is not to be asked for one of a negative number.
        return (taken + noise * value.std()).clamp(value.min(), value.max())

    def free(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """In the structure of the inputs, which dimensions are free."""
        _, structure = pytree.tree_flatten(self.inputs)
        marks = [None if dim is None else {dim: Dim.DYNAMIC} for dim in self.dims]
        marked: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(marks, structure)
        return marked


def _program(model: nn.Module, batch: _Batch, free: bool) -> ExportedProgram:
    # Traced with 2 rows: torch takes a dimension of size 1 for a constant.
    args, kwargs = batch.of(2 if free else batch.n)
    positional, named = batch.free()
    try:
        if not free:
            return _traced(model, args, kwargs)
        shapes = _by_parameter(model, positional, named) if positional and named else positional or named
        return _traced(model, args, kwargs, dynamic_shapes=shapes)
    except GuardOnDataDependentSymNode as error:
        raise ValueError(
            f"{type(model).__name__} cannot be exported: {_place(error)} looks at the values of a tensor, "
            "and a file has one sequence of operations for all values. Use torch.where there, or export the "
            "part of the model without it."
        ) from error
    except (torch._dynamo.exc.UserError, RuntimeError) as error:
        raise ValueError(
            f"{type(model).__name__} cannot be exported with a free batch size; does its forward() use the "
            f"batch size as a Python number (len(x), where x.shape[0] stays free), or depend on values? "
            f"{_first_line(error)}"
        ) from error


def _traced(*args: Any, **kwargs: Any) -> ExportedProgram:
    with redirect_stderr(io.StringIO()):  # where torch prints all operations up to an error
        return torch.export.export(*args, **kwargs)


def _with_plain_outputs(model: nn.Module, batch: _Batch) -> nn.Module:
    """The model, which returns dicts in the place of objects that no file knows."""
    args, kwargs = batch.of(batch.n)
    asked = copy.deepcopy(model)  # one that remembers what it saw remembers nothing of this
    if all(isinstance(leaf, _PLAIN) for leaf in _leaves(asked(*args, **kwargs))):
        return model
    forward = model.forward

    @functools.wraps(forward)  # exporters read the names of its arguments
    def plain(*args: Any, **kwargs: Any) -> Any:
        return pytree.tree_map(_parts, forward(*args, **kwargs))

    model.forward = plain
    return model


def _parts(leaf: Any) -> Any:
    """A leaf itself, or what of an object is tensors, by name.

    Raises:
        ValueError: nothing is.
    """
    if isinstance(leaf, _PLAIN):
        return leaf
    parts = _tensors_of(leaf)
    if not parts:
        raise ValueError(
            f"The model returns an object of the class {type(leaf).__name__}, in which there are no tensors; "
            "export a module that returns tensors."
        )
    return parts


def _tensors_of(thing: Any, above: tuple[int, ...] = ()) -> dict[str, Any]:
    """What of an object is tensors, by name, in slots too; nothing of one that it is itself a part of."""
    if id(thing) in above:
        return {}

    def inner(part: Any) -> Any:
        return part if isinstance(part, _PLAIN) else _tensors_of(part, (*above, id(thing)))

    state = object.__getstate__(thing)
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    parts = {
        name: pytree.tree_map(inner, part) for name, part in {**(attributes or {}), **(slots or {})}.items()
    }
    return {name: part for name, part in parts.items() if any(isinstance(of, Tensor) for of in _leaves(part))}


def _leaves(value: Any) -> list[Any]:
    leaves: list[Any] = pytree.tree_leaves(value)
    return leaves


def _by_parameter(model: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """By the names of forward's parameters, as torch wants it where arguments are given both ways."""
    bound: dict[str, Any] = inspect.signature(model.forward).bind(*positional, **named).arguments
    return bound


def _compare(name: str, expected: Any, actual: Any) -> None:
    wants, gots = ([v for v in pytree.tree_leaves(of) if _holds(v)] for of in (expected, actual))
    if len(wants) != len(gots):
        raise ValueError(
            f"The exported {name} returns {len(gots)} tensors, the model {len(wants)}. Nothing was written."
        )
    for want, got in zip(wants, map(torch.as_tensor, gots), strict=True):
        if want.shape != got.shape:
            how = f"a shape of {tuple(got.shape)} instead of {tuple(want.shape)}"
        elif not torch.equal(_kinds(want), _kinds(got)):
            how = "where it is infinite or not a number"
        else:
            numbers = want.isfinite()
            difference, scale = (_largest(of[numbers]) for of in (_exact(want) - _exact(got), want))
            if difference <= TOLERANCE * max(1.0, scale):
                continue
            how = f"{difference:.2g}"
        raise ValueError(
            f"The exported {name} differs from the model by {how}; its forward() may be random in eval mode, "
            "or depend on the values of its inputs. Nothing was written."
        )


def _place(error: Exception) -> str:
    """The line of the model's code in which an error was raised, in words."""
    torchs = str(Path(torch.__file__).parent)
    calls = traceback.extract_tb(error.__traceback__)
    call = next((call for call in reversed(calls) if not call.filename.startswith(torchs)), calls[-1])
    return f"{call.name} ({Path(call.filename).name}:{call.lineno}, `{call.line}`)"


def _reason(error: BaseException) -> str:
    """What went wrong in the first place: ONNX's exporter only says in which of its steps."""
    while type(error).__module__.startswith("torch.onnx") and error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    line = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().partition("\n")[0]  # without colors
    return line.partition(" For more information, run with TORCH_LOGS")[0]


def _holds(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _exact(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _kinds(tensor: Tensor) -> Tensor:
    """1 where a number is finite, 0 where it is none; infinities as they are."""
    parts = torch.view_as_real(_exact(tensor)) if tensor.is_complex() else _exact(tensor)
    return torch.where(parts.isfinite(), 1.0, parts).nan_to_num(0.0, torch.inf, -torch.inf)


def _largest(tensor: Tensor) -> float:
    return float(_exact(tensor).abs().max()) if tensor.numel() else 0.0


@contextmanager
def _quiet() -> Iterator[None]:
    """Export and compare in the attention's standard form, without the exporters' own remarks."""
    # The first misses torchvision, which nothing here needs; the others say at length what an error says too.
    loggers = [
        logging.getLogger(name)
        for name in (
            "torch.onnx._internal.exporter._registration",
            "torch.fx.experimental.symbolic_shapes",
            "torch.export._trace",
        )
    ]
    levels = [logger.level for logger in loggers]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The tensor attributes .* were assigned during export", UserWarning)
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        torch.backends.mha.set_fastpath_enabled(False)  # the fused layer has no ONNX operator
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            torch.backends.mha.set_fastpath_enabled(fastpath)
