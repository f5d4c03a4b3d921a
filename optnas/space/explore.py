"""Walk a space without a study, by calling it again with other answers.

Everything here works on any function of a trial, conditional ones included; what the function returns is
ignored. Modules are built on the meta device, which costs neither memory nor initialization.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optnas.space.nodes import Chain, Choice, Repeat
from optnas.trial import Draw, Space, contains, replay


def sample(space: Space[Any], rng: np.random.Generator | int) -> dict[str, Any]:
    """Draw one architecture, each decision uniformly (in the logarithm where the decision says so).

    `rng` is a generator or a seed. Returns its params, in the order asked.
    """
    rng = np.random.default_rng(rng)
    return _ask(space, lambda name, distribution: draw_value(distribution, rng)).params


def draw_value(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """One uniformly random answer to a question."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[rng.integers(len(distribution.choices))]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    integer = isinstance(distribution, IntDistribution)
    if distribution.log:
        # Half a step beyond either end of the integers, so that the ends are as likely as their neighbors.
        margin = 0.5 if integer else 0.0
        value = math.exp(rng.uniform(math.log(low - margin), math.log(high + margin)))
        return min(max(round(value), low), high) if integer else float(min(max(value, low), high))
    if step is None:
        return float(rng.uniform(low, high))
    value = _grid_point(distribution, int(rng.integers(_grid_size(distribution))))
    return int(value) if integer else float(value)


def options(name: str, distribution: BaseDistribution) -> Sequence[Any]:
    """Every possible answer to a question.

    Raises:
        ValueError: the decision is continuous (a float without a step).
    """
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    assert isinstance(distribution, FloatDistribution)
    if distribution.single():
        return (distribution.low,)
    if distribution.step is None:
        raise ValueError(
            f"Parameter {name!r} is continuous ({distribution}) and cannot be enumerated. "
            "Give it a step=, or ask for it outside the space (a task may ask for its learning rate)."
        )
    return tuple(float(_grid_point(distribution, i)) for i in range(_grid_size(distribution)))


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
        if rng is not None and isinstance(distribution, FloatDistribution) and distribution.step is None:
            others: Sequence[Any] = () if distribution.single() else (draw_value(distribution, rng),)
        else:
            others = options(name, distribution)
        for other in others:
            if _same(distribution, other, asked.params[name]):
                continue
            changed = {**asked.params, name: other}
            if rng is None:
                yield from _odometer(space, changed)
            else:
                yield _ask(space, _keep_or_draw(changed, rng)).params


def _grid_size(distribution: IntDistribution | FloatDistribution) -> int:
    assert distribution.step is not None
    return round((distribution.high - distribution.low) / distribution.step) + 1


def _grid_point(distribution: IntDistribution | FloatDistribution, i: int) -> float:
    assert distribution.step is not None
    # Floating point: 0.1 + 2 * 0.1 is above 0.3.
    return min(distribution.low + i * distribution.step, distribution.high)


def _same(distribution: BaseDistribution, a: Any, b: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return type(a) is type(b) and bool(a == b)  # True == 1 in Python, yet they are two choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    # A stored point of a grid may differ from ours in its last bits.
    return bool(a == b) if distribution.step is None else abs(a - b) < distribution.step / 2


def _keep_or_draw(params: Mapping[str, Any], rng: np.random.Generator) -> Any:
    def pick(name: str, distribution: BaseDistribution) -> Any:
        kept = name in params and contains(distribution, params[name])
        return params[name] if kept else draw_value(distribution, rng)

    return pick


def _ask(space: Space[Any], pick: Any) -> Draw:
    return _build(space, Draw(pick))


def _build(space: Space[Any], draw: Draw) -> Draw:
    with torch.device("meta"):
        space(draw)
    return draw


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
