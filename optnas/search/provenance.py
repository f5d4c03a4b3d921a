"""What a study's results depend on besides its trials: versions, source of the space, data, device, seed."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from optnas.estimation.settings import digest
from optnas.objective import Objective

_PACKAGES = ("optnas", "optuna", "torch", "pytorch-lightning")


def provenance(objective: Objective) -> dict[str, Any]:
    """A flat, JSON-able record of what the results of a search depend on.

    The estimator adds to it what its own `provenance()`, if it has one, returns (for `Training`: a
    fingerprint of the data).
    """
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "space": source_hash(objective.space),
        "device": torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu",  # type: ignore[union-attr]  # there is one
        "threads": torch.get_num_threads(),
        **objective.estimator.provenance(),
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two provenance records, one readable line each.

    What the first does not have was not recorded by the optnas that made it.
    """
    return [
        f"{name}: {before.get(name)} when the study began, {now.get(name)} now"
        for name in sorted(before)
        if before[name] != now.get(name)
    ]


def source_hash(space: Any) -> str:
    """A hash of what a space does, and of the user's own functions, classes and values that it uses.

    It is of the code that runs, not of its file, which may have been edited since; comments do not matter.
    """
    return digest(space, modules=False)
