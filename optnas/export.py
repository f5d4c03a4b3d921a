"""Take a model out of optnas: files that run where neither optnas nor the code of the space is installed.

Both functions export a copy on the CPU in eval mode with a dynamic batch size, and compare the file with the
model on several batch sizes before they put it in its place. A file that exists has passed.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import ConstantArgument
from torch.utils import _pytree as pytree

from optnas.facts.inputs import as_inputs, batch_size

BATCH_SIZES = (1, 2, 5)
TOLERANCE = 1e-4

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def to_onnx(model: nn.Module, example: Any, path: str | Path) -> Path:
    """Write an ONNX file that needs only onnxruntime; returns its path.

    Args:
        model: trained, on any device; it is not changed.
        example: inputs as everywhere in optnas: a shape with the batch dimension, a tensor, a tuple of
            tensors, or a dict of keyword tensors. The first dimension of the first tensor is the batch; it
            will be free, in every tensor that has as many rows. All other sizes are fixed.

    None among what the model returns is not in the file.

    Raises:
        ImportError: a package of the extra `onnx` is missing.
        ValueError: the model cannot be exported, the batch size cannot vary, or onnxruntime's outputs differ
            from the model's by more than 1e-4 (relative to the largest output, where that is above 1).
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
                f"{type(model).__name__} returns {numbers} beside tensors, which ONNX cannot; return tensors."
            )
        torch.onnx.export(program, f=file, dynamo=True, external_data=False, verbose=False)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        used = {node.name for node in session.get_inputs()}  # what the model ignores may be missing
        names = program.graph_signature.user_inputs

        def run(*args: Tensor, **kwargs: Tensor) -> Any:
            feed = dict(zip(names, (*args, *kwargs.values()), strict=True))
            return session.run(None, {name: value.numpy() for name, value in feed.items() if name in used})

        return run

    return _export(model, example, Path(path), save)


def to_torch_export(model: nn.Module, example: Any, path: str | Path) -> Path:
    """Write a `torch.export` program (`.pt2`) that needs only torch; returns its path.

    Load it with `torch.export.load(path).module()`. Arguments and errors as in `to_onnx`; `path` ends in
    `.pt2`, or torch would not load it without complaint.
    """
    if Path(path).suffix != ".pt2":
        raise ValueError(f"{str(path)!r} must end in .pt2, as torch.export.load expects.")

    def save(program: ExportedProgram, file: Path) -> Callable[..., Any]:
        torch.export.save(program, file)
        loaded: Callable[..., Any] = torch.export.load(file).module()
        return loaded

    return _export(model, example, Path(path), save)


def _export(
    model: nn.Module,
    example: Any,
    path: Path,
    save: Callable[[ExportedProgram, Path], Callable[..., Any]],
) -> Path:
    inputs = as_inputs(example, "cpu")
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), _quiet(), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        file = Path(folder) / path.name
        try:
            model = copy.deepcopy(model).cpu().eval()
            run = save(_program(model, inputs), file)
            batches = [_batch(inputs, size) for size in BATCH_SIZES]
            pairs = [(model(*args, **kwargs), run(*args, **kwargs)) for args, kwargs in batches]
        except (OSError, ValueError):
            raise
        except Exception as error:  # exporters raise whatever a model's code meets in them
            raise ValueError(
                f"{type(model).__name__} cannot be exported: {type(error).__name__}: {_first_line(error)}"
            ) from error
        for expected, actual in pairs:
            _compare(type(model).__name__, expected, actual)
        os.replace(file, path)
    return path


def _program(model: nn.Module, inputs: Inputs) -> ExportedProgram:
    # Traced with 2 rows: torch takes a dimension of size 1 for a constant.
    args, kwargs = _batch(inputs, 2)
    n = batch_size(inputs)
    free = [
        {0: Dim.DYNAMIC} if value.dim() and len(value) == n else None
        for value in (*inputs[0], *inputs[1].values())
    ]
    positional, named = tuple(free[: len(args)]), dict(zip(kwargs, free[len(args) :], strict=True))
    try:
        shapes = _by_parameter(model, positional, named) if positional and named else positional or named
        return torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    except (torch._dynamo.exc.UserError, RuntimeError) as error:
        raise ValueError(
            f"{type(model).__name__} cannot be exported with a free batch size; does its forward() use the "
            f"batch size as a Python number, or depend on values? {_first_line(error)}"
        ) from error


def _by_parameter(model: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """By the names of forward's parameters, as torch wants it where arguments are given both ways."""
    bound: dict[str, Any] = inspect.signature(model.forward).bind(*positional, **named).arguments
    return bound


def _batch(inputs: Inputs, size: int) -> Inputs:
    """`size` rows like those of the example; floating-point rows vary, so that a mix-up of rows shows."""
    generator = torch.Generator().manual_seed(size)
    n = batch_size(inputs)

    def rows(value: Tensor) -> Tensor:
        if not value.dim() or len(value) != n:
            return value
        taken = value[torch.arange(size) % n]
        if not taken.is_floating_point():
            return taken
        noise = torch.randn(taken.shape, generator=generator, dtype=taken.dtype)
        if value.numel() < 2 or not value.any():
            return taken + noise
        # Where the example's values lie: a square root, say, is not to be asked for one of a negative number.
        return (taken + noise * value.std()).clamp(value.min(), value.max())

    batch: Inputs = pytree.tree_map(rows, inputs)
    return batch


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


def _first_line(error: Exception) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().partition("\n")[0]  # without colors


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
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    fastpath = torch.backends.mha.get_fastpath_enabled()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The tensor attributes .* were assigned during export", UserWarning)
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        registration.setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
        torch.backends.mha.set_fastpath_enabled(False)  # the fused layer has no ONNX operator
        try:
            yield
        finally:
            registration.setLevel(level)
            torch.backends.mha.set_fastpath_enabled(fastpath)
