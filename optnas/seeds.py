"""What a result depends on beside the code: seeds, random states, and the number of CPU threads."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
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


def random_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's generators, in types that `weights_only` loads."""
    version, numbers, gauss = random.getstate()
    # Users still draw from NumPy's global generator.
    legacy: Any = np.random.get_state(legacy=False)  # noqa: NPY002 (see above)
    key = torch.from_numpy(legacy["state"]["key"].astype(np.int64))
    state: dict[str, Any] = {
        "python": (version, torch.tensor(numbers), gauss),
        "numpy": {**legacy, "state": {**legacy["state"], "key": key}},
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Go on from `random_state()`; generators of other accelerators than those it was taken from stay."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    legacy = state["numpy"]
    key = legacy["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**legacy, "state": {**legacy["state"], "key": key}})  # noqa: NPY002 (as above)
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Whatever draws random numbers within leaves the generators of Python, NumPy and torch as they were."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed all generators for a while; afterwards they go on as if nothing had been drawn."""
    with random_state_kept():
        seed_everything(seed)
        yield


@contextmanager
def cpu_threads(n: int) -> Iterator[None]:
    """Let torch compute with `n` CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def same_threads(attempts: Sequence[Mapping[str, Any]]) -> AbstractContextManager[None]:
    """Compute with as many CPU threads as the first of a trial's attempts, where this machine has as many.

    Only then the result is equal, bit for bit, to that of a trial that nothing interrupted.
    """
    now = torch.get_num_threads()
    recorded = next((attempt["threads"] for attempt in attempts if "threads" in attempt), now)
    return cpu_threads(recorded if recorded <= max(now, os.cpu_count() or 1) else now)
