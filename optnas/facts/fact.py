"""A fact: one number about a network, known without training it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import nn

from optnas.facts.cost import count_flops, count_params
from optnas.record import FactKind

Needs: TypeAlias = Literal["meta", "batch", "device"]


@dataclass(frozen=True)
class Fact:
    """A number about a network, by a function of the untrained model and an example of its inputs.

    `Objective(..., facts=[...])` measures it in every trial, before training; it can be the value to
    optimize, and leaderboard, report, dashboard and JSON show it by `title` and `unit`.

    Args:
        name: what the trial records it as, such as `flops`.
        measure: `(model, example) -> number`. It may not change the model.
        title: what people call it; by default the name.
        unit: behind the title, such as `ms`.
        better: "lower", "higher", or "" where neither is.
        needs: "meta": the structure alone; `model` is on the meta device, and no trial's time is spent.
            "batch": the initialized model and a real batch, both on the CPU. "device": the same on the device
            that torch prefers.

    Raises:
        ValueError: no name, or a direction that is none.
    """

    name: str
    measure: Callable[[nn.Module, Any], float]
    title: str = ""
    unit: str = ""
    better: Literal["lower", "higher", ""] = ""
    needs: Needs = "meta"

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith("optnas:"):
            raise ValueError(f"Fact(name={self.name!r}): give a name of its own, such as 'energy'.")
        if self.better not in ("lower", "higher", ""):
            raise ValueError(f"Fact {self.name!r}: better={self.better!r}; give 'lower', 'higher' or ''.")
        if self.needs not in ("meta", "batch", "device"):
            raise ValueError(f"Fact {self.name!r}: needs={self.needs!r}; give 'meta', 'batch' or 'device'.")

    def of(self, model: nn.Module, example: Any) -> float:
        """The number for this model; `example` describes its inputs.

        Raises:
            TypeError: `measure` returned no number.
        """
        number = self.measure(model, example)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError(f"Fact {self.name!r}: measure returned {number!r}; return an int or a float.")
        return number

    @property
    def kind(self) -> FactKind:
        """What a study records of it."""
        return FactKind(self.name, self.title or self.name, self.unit, self.better)


N_PARAMS = Fact("n_params", lambda model, example: count_params(model), "parameters", "", "lower")
FLOPS = Fact("flops", count_flops, "FLOPs", "per sample", "lower")

USUAL = (N_PARAMS, FLOPS)
"""What every trial records; `sketch` gets both from one pass, with the fingerprint."""
