"""A fact: one number about a network, known without training it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from optnas.facts.cost import count_flops, count_params
from optnas.facts.inputs import Example, arguments, batch_size
from optnas.record import FactKind
from optnas.seeds import random_state_kept

Needs: TypeAlias = Literal["meta", "batch", "device"]


@dataclass(frozen=True)
class Pass:
    """One forward pass in train mode on the meta device, which a sketch has recorded anyway."""

    flops: int
    """Of the whole batch; a multiply-add is 2."""
    batch: int
    """Its samples."""


@dataclass(frozen=True)
class Measured:
    """A number together with how it was measured, in words and as JSON; the trial records all of it.

    Examples:
        >>> def timed(model, example):
        ...     return optnas.facts.Measured(1.5, "median of 20 passes", {"passes": 20})
        >>> fact = optnas.Fact("ms", timed)
    """

    value: float
    words: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fact:
    """A number about a network, by a function of the untrained model and an example of its inputs.

    `Objective(..., facts=[...])` measures it in every trial, before training; it can be the value to
    optimize, and leaderboard, report, dashboard and JSON show it by `title` and `unit`.

    Args:
        name: what the trial records it as, such as `flops`.
        measure: `(model, example) -> number`, or a `Measured` number, which also says how it was measured.
            What it changes in the model or in random states is undone.
        title: what people call it; by default the name.
        unit: shown after the title, such as `ms`.
        better: "lower", "higher", or "" where neither is.
        needs: "meta": the structure alone; `model` is on the meta device, or on the CPU where it cannot be
            on meta. "batch": the initialized model and an example with real values, both on the CPU.
            "device": the same on the device that torch prefers (`torch.accelerator`; without one, the CPU).
        of_pass: computes the same number from a recorded forward pass; `measure` is then called only if no
            pass could be recorded.

    Raises:
        ValueError: the name is empty, or `better` or `needs` is none of the values above.

    Examples:
        >>> longest = optnas.Fact("longest", lambda model, example: len(model), title="layers in a row")
        >>> measuring = optnas.Objective(
        ...     space, score, values={"score": "maximize"}, example=example, facts=[longest]
        ... )
        >>> tried = optnas.create_study(measuring, seed=0)
        >>> optnas.optimize(tried, measuring, n_trials=1)
        >>> "longest" in optnas.record.facts(tried.best_trial)
        True
    """

    name: str
    measure: Callable[[nn.Module, Example], float | Measured]
    title: str = ""
    unit: str = ""
    better: Literal["lower", "higher", ""] = ""
    needs: Needs = "meta"
    of_pass: Callable[[Pass], float] | None = None

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith("optnas:"):
            raise ValueError(f"Fact(name={self.name!r}): give a name of its own, such as 'energy'.")
        if self.better not in ("lower", "higher", ""):
            raise ValueError(f"Fact {self.name!r}: better={self.better!r}; give 'lower', 'higher' or ''.")
        if self.needs not in ("meta", "batch", "device"):
            raise ValueError(f"Fact {self.name!r}: needs={self.needs!r}; give 'meta', 'batch' or 'device'.")

    def of(self, model: nn.Module, example: Example) -> float:
        """The number for this model; `example` describes its inputs.

        Where real values are needed, a copy of the model is measured, moved to the device in question: the
        model stays as it is, and so do the random states.

        Raises:
            TypeError: `measure` returned no number, or the model cannot be copied.
        """
        return self.measured(model, example).value

    def measured(self, model: nn.Module, example: Example) -> Measured:
        """The same, with how it was measured."""
        if self.needs == "meta":
            return self._checked(self.measure(model, example))
        device = preferred_device() if self.needs == "device" else torch.device("cpu")
        try:
            copied = copy.deepcopy(model).to(device)
        except Exception as error:
            raise TypeError(f"Fact {self.name!r}: the model cannot be copied to {device}: {error}") from error
        with random_state_kept():
            return self._checked(self.measure(copied, example))

    def _checked(self, found: Any) -> Measured:
        measured = found if isinstance(found, Measured) else Measured(found)
        value = measured.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"Fact {self.name!r}: measure returned {value!r}; return an int or a float.")
        return measured

    @property
    def kind(self) -> FactKind:
        """What a study records of it."""
        return FactKind(self.name, self.title or self.name, self.unit, self.better)


def preferred_device() -> torch.device:
    """The accelerator that torch finds, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _flops_per_sample(model: nn.Module, example: Example) -> int:
    given = arguments(example)
    return count_flops(model, example) // batch_size((given.args, given.kwargs))


N_PARAMS = Fact("n_params", lambda model, example: count_params(model), "parameters", "", "lower")
"""The number of parameters, which every trial records; see `count_params`.

Examples:
    >>> optnas.facts.N_PARAMS.of(nn.Linear(4, 3), (2, 4))
    15
"""

FLOPS = Fact(
    "flops",
    _flops_per_sample,
    "FLOPs",
    "per sample",
    "lower",
    of_pass=lambda recorded: recorded.flops // recorded.batch,
)
"""Floating-point operations of one sample, which every trial records; see `count_flops`.

Examples:
    >>> cheap = optnas.Objective(
    ...     space, training, values={"val_acc": "maximize", optnas.facts.FLOPS.name: "minimize"}
    ... )
"""

USUAL = (N_PARAMS, FLOPS)
"""What every trial records."""
