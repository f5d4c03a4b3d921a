"""What happens to a trial whose network is too large for the memory of its device."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from optnas.estimation.run import Run


@contextmanager
def out_of_memory_prunes(run: Run) -> Iterator[None]:
    """Tell the sampler that the model is too large, as a violated constraint.

    Trials that fit into memory carry no such constraint: samplers read a missing one as satisfied, and those
    that want the same constraints everywhere (GPSampler) look at COMPLETE trials only.
    """
    try:
        yield
        return
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = f"out of memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    # Here the error is gone, and with its traceback the tensors that its frames held.
    free_memory()
    run.refuse("memory", 1.0, reason)


def is_out_of_memory(error: Exception) -> bool:
    """Whether the error says that a network is too large for the memory of its device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # What the CPU's allocator and older CUDA libraries say.
    signs = ("not enough memory", "can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return any(sign in str(error) for sign in signs)


def free_memory() -> None:
    """Give back what nobody refers to any more, in cycles too, to the device of all trials."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
