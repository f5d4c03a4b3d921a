"""Take a model out of optnas: files that run where neither optnas nor the code of the space is installed.

Both functions export a copy on the CPU in eval mode with a dynamic batch size, and compare the file with the
model on several batch sizes before they put it in its place. A file that exists has passed.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from optnas.facts import as_inputs

BATCH_SIZES = (1, 2, 5)
TOLERANCE = 1e-4

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def to_onnx(model: nn.Module, example: Any, path: str | Path) -> Path:
    """Write an ONNX file that needs only onnxruntime; returns its path.

    Args:
        model: trained, on any device; it is not changed.
        example: inputs as everywhere in optnas: a shape with the batch dimension, a tensor, a tuple of
            tensors, or a dict of keyword tensors. The first dimension of every tensor is the batch and
            will be free; the others are fixed.

    Raises:
        ImportError: a package of the extra `onnx` is missing.
        ValueError: the batch size cannot vary, or onnxruntime's outputs differ from the model's by more than
            1e-4 (relative to the largest output, where that is above 1).
    """
    missing = [
        name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ImportError(f"to_onnx needs {', '.join(missing)}: pip install 'optnas[onnx]'")
    import onnxruntime

    def save(program: ExportedProgram, file: Path) -> Callable[..., Any]:
        with _quiet():
            torch.onnx.export(program, f=file, dynamo=True, external_data=False, verbose=False)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = [node.name for node in session.get_inputs()]

        def run(*args: Tensor, **kwargs: Tensor) -> Any:
            feed = dict(zip(names, (*args, *kwargs.values()), strict=True))
            return session.run(None, {name: value.numpy() for name, value in feed.items()})

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
    model = copy.deepcopy(model).cpu().eval()
    inputs = as_inputs(example, "cpu")
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        file = Path(folder) / path.name
        run = save(_program(model, inputs), file)
        for size in BATCH_SIZES:
            _compare(model, run, _batch(inputs, size))
        os.replace(file, path)
    return path


def _program(model: nn.Module, inputs: Inputs) -> ExportedProgram:
    # Traced with 2 rows: torch takes a dimension of size 1 for a constant.
    args, kwargs = _batch(inputs, 2)
    free = [{0: Dim.DYNAMIC} if value.dim() else None for value in (*args, *kwargs.values())]
    shapes = tuple(free) if args else dict(zip(kwargs, free, strict=True))
    try:
        with _quiet():
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    except (torch._dynamo.exc.UserError, RuntimeError) as error:
        raise ValueError(
            f"{type(model).__name__} cannot be exported with a free batch size; does its forward() use the "
            f"batch size as a Python number, or depend on values? {error}"
        ) from error


def _batch(inputs: Inputs, size: int) -> Inputs:
    """`size` rows like those of the example; floating-point rows vary, so that a mix-up of rows shows."""
    generator = torch.Generator().manual_seed(size)

    def rows(value: Tensor) -> Tensor:
        if not value.dim():
            return value
        taken = value[torch.arange(size) % len(value)]
        if not taken.is_floating_point():
            return taken
        noise = torch.randn(taken.shape, generator=generator, dtype=taken.dtype)
        scale = value.std() if value.numel() > 1 and value.any() else 1.0
        return taken + noise * scale

    batch: Inputs = pytree.tree_map(rows, inputs)
    return batch


def _compare(model: nn.Module, run: Callable[..., Any], inputs: Inputs) -> None:
    args, kwargs = inputs
    expected = pytree.tree_leaves(model(*args, **kwargs))
    actual = [torch.as_tensor(value) for value in pytree.tree_leaves(run(*args, **kwargs))]
    for want, got in zip(expected, actual, strict=True):
        worst = (want - got).abs().max().item()
        if want.shape != got.shape or not worst <= TOLERANCE * max(1.0, want.abs().max().item()):
            raise ValueError(
                f"The exported {type(model).__name__} differs from the model by {worst:.2g}; its forward() "
                "may be random in eval mode, or depend on the values of its inputs. Nothing was written."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Export in the attention's standard form, without the exporters' own remarks."""
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
