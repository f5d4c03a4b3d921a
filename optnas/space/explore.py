"""Walk a space without a study, by calling it again with other answers.

Everything here works on any function of a trial, conditional ones included; what the function returns is
ignored. Modules are built on the meta device, which costs neither memory nor initialization.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from optuna.distributions import BaseDistribution

from optnas.answers import contains, draw, is_continuous, keep_or_draw, options, others
from optnas.space.nodes import Chain, Choice, Repeat
from optnas.trial import Draw, Space, replay


def sample(space: Space[Any], rng: np.random.Generator | int) -> dict[str, Any]:
    """Draw one architecture, each decision uniformly (in the logarithm where the decision says so).

    `rng` is a generator or a seed. Returns its params, in the order asked.
    """
    rng = np.random.default_rng(rng)
    return _ask(space, keep_or_draw({}, rng)).params


def enumerate_params(space: Space[Any]) -> Iterator[dict[str, Any]]:
    """Every architecture's params once, in the order of an odometer whose last decision turns fastest.

    Raises:
        ValueError: a decision is continuous; the message names it.
    """
    return _odometer(space, {})


def count(space: Space[Any]) -> int:
    """The number of different answers (genotypes) that a space has.

    Nodes are counted by arithmetic, plain functions by enumeration.

    Raises:
        ValueError: a decision is continuous; the message names it.
    """
    if isinstance(space, Choice):
        return sum(count(candidate) for candidate in space.candidates.values())
    if isinstance(space, Repeat):
        per_position = count(space.space)
        return sum(per_position**depth for depth in range(space.low, space.high + 1))
    if isinstance(space, Chain):
        return math.prod(count(part) for part in space.spaces.values())
    return sum(1 for _ in enumerate_params(space))


def neighbors(
    space: Space[Any], params: Mapping[str, Any], rng: np.random.Generator | int | None = None
) -> Iterator[dict[str, Any]]:
    """Architectures that differ from `params` in one decision and in what depends on it.

    Each decision is changed to each of its other answers; decisions that still appear keep theirs. Those
    that newly appear take every combination of answers, or, when `rng` (a generator or a seed) is given, one
    random answer each; then a continuous decision may be changed too, to one random value. Answers of other
    callers in `params`, such as a task's learning rate, are ignored.

    Raises:
        ParamsMismatchError: `params` are not those of an architecture of this space.
        ValueError: `rng` is None and a decision is continuous; the message names it.
    """
    if rng is not None:
        rng = np.random.default_rng(rng)
    asked = _build(space, replay(params))
    for name, distribution in asked.distributions.items():
        if rng is not None and is_continuous(distribution):
            left = [draw(distribution, rng)]
        else:
            left = others(name, distribution, asked.params[name])
        for other in left:
            changed = {**asked.params, name: other}
            if rng is None:
                yield from _odometer(space, changed)
            else:
                yield _ask(space, keep_or_draw(changed, rng)).params


def _ask(space: Space[Any], pick: Any) -> Draw:
    return _build(space, Draw(pick))


def _build(space: Space[Any], asked: Draw) -> Draw:
    with torch.device("meta"):
        space(asked)
    return asked


def _odometer(space: Space[Any], fixed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All answers in which every decision named in `fixed` (and still possible) keeps its value."""
    position: list[int] = []  # per free decision, in the order asked: which option is up
    sizes: list[int] = []  # how many it has

    def pick(name: str, distribution: BaseDistribution) -> Any:
        if name in fixed and contains(distribution, fixed[name]):
            return fixed[name]
        values = options(name, distribution)
        if len(sizes) == len(position):
            position.append(0)
        sizes.append(len(values))
        return values[position[len(sizes) - 1]]

    while True:
        sizes.clear()
        yield _ask(space, pick).params
        del position[len(sizes) :]
        while position and position[-1] + 1 == sizes[len(position) - 1]:
            position.pop()
        if not position:
            return
        position[-1] += 1
