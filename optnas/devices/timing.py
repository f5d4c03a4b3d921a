"""How long a forward pass takes, said with how sure that is and how it was measured."""

from __future__ import annotations

import copy
import gc
import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from optnas.devices.lock import one_at_a_time
from optnas.export import to_onnx
from optnas.facts.cost import inference
from optnas.facts.fact import Fact, Measured
from optnas.facts.inputs import Example, Inputs, as_inputs, batch_size
from optnas.seeds import cpu_threads

Mode = Literal["eager", "compiled", "onnxruntime"]

_WARM_UP = 0.1  # seconds, and at least three passes
_BLOCK = 0.01  # seconds that a block of passes takes at least
_BLOCKS = 10  # at least, of each the median counts


@dataclass(frozen=True)
class Latency:
    """Seconds of a forward pass: the median, and the range in which a repeated measurement has its median
    nine times in ten.

    `narrow` tells whether the interval got as narrow as was asked for before the time was over.

    Examples:
        >>> taken = optnas.measure_latency(model, example, max_seconds=0.1)
        >>> taken.low <= taken.median <= taken.high
        True
    """

    median: float
    low: float
    high: float
    narrow: bool
    repeats: int
    mode: Mode
    device: str
    threads: int
    batch_size: int
    dtype: str

    @property
    def words(self) -> str:
        """`3.1 to 3.4 ms in 240 passes; eager, AMD EPYC, 1 thread, batch 1, float32`."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        how = f"{self.mode}, {self.device}, {threads}, batch {self.batch_size}, {self.dtype}"
        wide = "" if self.narrow else ", less precise than was asked"
        return f"{1000 * self.low:.4g} to {1000 * self.high:.4g} ms in {self.repeats} passes{wide}; {how}"


def measure_latency(
    model: nn.Module,
    example: Example,
    *,
    mode: Mode = "eager",
    threads: int | None = None,
    precision: float = 0.1,
    max_seconds: float = 5.0,
) -> Latency:
    """How long one forward pass in eval mode takes on the model's device.

    After a warm-up, passes are timed in blocks until the interval is at most `precision` of the median wide,
    or for `max_seconds`. The interval is for the median of another measurement, from how the blocks differ:
    other work on the machine widens it. Only one process of this user measures at a time on a machine,
    however many workers run; their other work is not stopped.

    Args:
        example: the batch, as everywhere; latencies are of the whole batch.
        mode: as it is written, by `torch.compile`, or exported and run by ONNX Runtime on the CPU, which
            needs the extra `onnx`.
        threads: of the CPU; by default as many as torch computes with now.

    Raises:
        ValueError: an argument out of its range, or the model cannot be compiled or exported.

    Examples:
        >>> taken = optnas.measure_latency(model, (1, 1, 8, 8), max_seconds=0.1)
        >>> taken.device, taken.median > 0
        ('x86_64', True)
    """
    if mode not in get_args(Mode):
        raise ValueError(f"measure_latency(mode={mode!r}): choose from {', '.join(get_args(Mode))}.")
    if not precision > 0 or not max_seconds > 0:
        raise ValueError(
            f"measure_latency(precision={precision}, max_seconds={max_seconds}): give more than 0."
        )
    if threads is not None and threads < 1:
        raise ValueError(f"measure_latency(threads={threads}): at least one is needed.")
    n_threads = torch.get_num_threads() if threads is None else threads
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.get_default_device())
    inputs = as_inputs(example, "meta")
    with (
        inference(model, fused=True),
        cpu_threads(n_threads),
        _runner(model, example, mode, n_threads) as run,
        one_at_a_time("latency"),
        _no_collection(),
    ):
        blocks, repeats = _timed(run, device, precision, max_seconds)
    low, median, high = _interval(blocks)
    return Latency(
        median=median,
        low=low,
        high=high,
        narrow=high - low <= precision * median,
        repeats=repeats,
        mode=mode,
        device=_name(device),
        threads=n_threads,
        batch_size=batch_size(inputs),
        dtype=_dtype(model, inputs),
    )


def latency(
    example: Example | None = None,
    *,
    mode: Mode = "eager",
    threads: int | None = None,
    precision: float = 0.1,
    max_seconds: float = 5.0,
    name: str = "latency",
) -> Fact:
    """Milliseconds of a forward pass as a fact, on the device that torch prefers; see `measure_latency`.

    The trial records the interval and the circumstances beside the number.

    Args:
        example: the batch that is timed, such as (1, 3, 32, 32); by default the objective's example.
        name: name of the fact; give one if a study has several.

    Examples:
        >>> on_one_core = optnas.devices.latency((1, 1, 8, 8), threads=1, name="latency_1")
        >>> measured = optnas.Objective(space, training, facts=[on_one_core])
    """

    def measure(model: nn.Module, given: Any) -> Measured:
        found = measure_latency(
            model,
            given if example is None else example,
            mode=mode,
            threads=threads,
            precision=precision,
            max_seconds=max_seconds,
        )
        return Measured(1000 * found.median, found.words, asdict(found))

    return Fact(name, measure, "latency", "ms", "lower", "device")


LATENCY = latency()
"""Milliseconds of a forward pass of the objective's example; see `latency`.

Examples:
    >>> fast = optnas.Objective(
    ...     space, training, facts=[optnas.devices.LATENCY], limits={"latency": 20}
    ... )
"""


def _timed(
    run: Callable[[], Any], device: torch.device, precision: float, max_seconds: float
) -> tuple[list[float], int]:
    """The median of each block of passes, and how many passes that were."""

    def once() -> float:
        start = time.perf_counter()
        run()
        _synchronize(device)
        return time.perf_counter() - start

    _synchronize(device)
    end = time.perf_counter() + _WARM_UP
    warm = [once()]
    while len(warm) < 3 or time.perf_counter() < end:
        warm.append(once())
    of_block = max(1, math.ceil(_BLOCK / max(float(np.median(warm)), 1e-9)))
    end = time.perf_counter() + max_seconds
    blocks: list[float] = []
    while len(blocks) < 2 or time.perf_counter() < end:
        blocks.append(float(np.median([once() for _ in range(of_block)])))
        if len(blocks) >= _BLOCKS:
            low, median, high = _interval(blocks)
            if high - low <= precision * median:
                break
    return blocks, of_block * len(blocks)


def _interval(blocks: list[float]) -> tuple[float, float, float]:
    """Where another measurement's median lies, taken to vary as one block does, with 99 % of such.

    Blocks that follow one another are more alike than measurements that do not: the mean of many blocks
    would claim to be surer than it is, and so does this interval. Of other measurements it held 87 % with
    95 % of the blocks, on a machine at five times its load.
    """
    logs = np.log(blocks)
    middle = float(np.median(logs))
    # By quartiles, for a single block during which something else ran says nothing of the others.
    spread = float(np.subtract(*np.percentile(logs, [75, 25]))) / 1.349
    reach = float(stats.t.ppf(0.995, len(blocks) - 1)) * spread * math.sqrt(1 + 1 / len(blocks))
    return math.exp(middle - reach), math.exp(middle), math.exp(middle + reach)


@contextmanager
def _runner(model: nn.Module, example: Example, mode: Mode, threads: int) -> Iterator[Callable[[], Any]]:
    """What one pass is to be called."""
    if mode == "onnxruntime":
        with TemporaryDirectory() as folder:
            path = to_onnx(model, example, Path(folder, "model.onnx"))
            yield _onnx_session(path, as_inputs(example, "cpu"), threads)
        return
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.get_default_device())
    args, kwargs = as_inputs(example, device)
    called: Callable[..., Any] = model
    if mode == "compiled":
        called = torch.compile(copy.deepcopy(model))
        try:
            called(*args, **kwargs)
        except Exception as error:
            raise ValueError(f"{type(model).__name__} cannot be compiled: {error}") from error
    yield lambda: called(*args, **kwargs)


def _onnx_session(path: Path, inputs: Inputs, threads: int) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    given = [t for t in tree_leaves(inputs) if isinstance(t, Tensor)]
    if len(names) != len(given):
        raise ValueError(
            f"The network reads only {', '.join(names)} of {len(given)} inputs; give only those."
        )
    feed = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
    return lambda: session.run(None, feed)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python collects no garbage for a while."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine() if device.type == "cpu" else str(device)


def _dtype(model: nn.Module, inputs: Inputs) -> str:
    tensors = [*model.parameters(), *(t for t in tree_leaves(inputs) if isinstance(t, Tensor))]
    first = next((t for t in tensors if t.is_floating_point()), tensors[0])
    return str(first.dtype).removeprefix("torch.")
