"""What a result depends on beside the code: seeds, and the number of CPU threads."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derive_seed(*parts: object) -> int:
    """A seed in 0..2**31-1 that depends on every part and differs for different parts."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # the global generator is the one that user code may draw from
    torch.manual_seed(seed)


@contextmanager
def same_threads(attempts: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Compute with as many CPU threads as the first of a trial's attempts, where this machine has as many.

    Only then the result is equal, bit for bit, to that of a trial that nothing interrupted.
    """
    now = torch.get_num_threads()
    threads = next((attempt["threads"] for attempt in attempts if "threads" in attempt), now)
    if threads > max(now, os.cpu_count() or 1):
        threads = now
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(now)
