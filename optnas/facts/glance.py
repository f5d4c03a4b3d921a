"""Facts of a candidate, from a build and a look that take a fraction of a sketch's time and prove nothing."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.parameter import is_lazy

from optnas.facts.fact import Fact, Pass
from optnas.facts.flow import flow_of_new
from optnas.facts.inputs import Example
from optnas.seeds import random_state_kept


def glance(model: nn.Module, example: Example, facts: Sequence[Fact]) -> dict[str, float]:
    """The facts that need no real model (`Fact.needs` is "meta"), by name.

    FLOPs are those of a pass in eval mode, which a sketch counts in train mode; few models do something else
    there. No pass is made where no fact is of one and nothing is lazy.

    Args:
        model: on the meta device, just built: see `flow_of_new`.

    Raises:
        Exception: what the model or a fact raises; a model that looks at values cannot run on meta.
    """
    numbers: dict[str, float] = {}
    settled(model, example)
    for fact in facts:
        if fact.of_pass is not None:
            numbers[fact.name] = fact.of_pass(Pass(flow_of_new(model, example).flops, 1))
        elif fact.needs == "meta":
            with random_state_kept():
                numbers[fact.name] = fact.of(model, example)
    return numbers


def settled(model: nn.Module, example: Example) -> nn.Module:
    """The model, after a pass if something in it is lazy, which then has a shape."""
    if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
        flow_of_new(model, example)
    return model
