"""What an answer is: which ones a question has, which two are the same, how one is drawn, kept or changed.

Python calls True, 1 and 1.0 equal; here they are three answers, and nan is one. Everybody who looks for an
answer, compares two, or collects them does so with the functions of this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optnas.errors import ChoicesError

Pick: TypeAlias = Callable[[str, BaseDistribution], Any]
"""Answers a question, given its name and its distribution."""

Key: TypeAlias = tuple[type, Hashable]
ParamsKey: TypeAlias = frozenset[tuple[str, Key]]

_NUMBERS = (int, float, np.integer, np.floating)
_KINDS = (bool, int, float, str)  # bool first: it is an int, too


def key(value: Any) -> Key:
    """Hashable, and equal for the same answer only.

    Of lists and the like, too, which Optuna lets pass with a warning.
    """
    kind: type = type(value)
    if kind is str:  # most answers
        return kind, value
    if kind not in _KINDS and value is not None:
        # A subclass, such as numpy.float64 or a StrEnum, is stored as what it derives from.
        stored = next((k for k in _KINDS if isinstance(value, k)), None)
        if stored is None:
            return kind, repr(value)
        kind, value = stored, stored(value)
    return kind, value if value == value else "nan"


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same answer."""
    return key(one) == key(other)


def params_key(params: Mapping[str, Any]) -> ParamsKey:
    """Hashable, and equal for the same answers to the same questions, in whatever order."""
    return frozenset([(name, key(value)) for name, value in params.items()])


def index(choices: Sequence[Any], value: Any) -> int:
    """The position of an answer among choices.

    Raises:
        ValueError: it is none of them.
    """
    for i, choice in enumerate(choices):
        if same(choice, value):
            return i
    raise ValueError(f"{value!r} is not one of {tuple(choices)}.")


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether `value` is a possible answer: in range and, where there is a step, on the grid."""
    kind = type(value)
    if kind is str:  # most answers, and samplers ask this some thousand times for a suggestion
        return isinstance(distribution, CategoricalDistribution) and value in distribution.choices
    if isinstance(distribution, IntDistribution):
        return (
            _is_number(kind)
            and distribution.low <= value <= distribution.high  # nan is not
            and int(value) == value
            and (int(value) - distribution.low) % distribution.step == 0
        )
    if isinstance(distribution, FloatDistribution):
        if not (_is_number(kind) and distribution.low <= value <= distribution.high):
            return False
        if distribution.step is None:
            return True
        steps = (value - distribution.low) / distribution.step
        return bool(abs(steps - round(steps)) < 1e-8)
    assert isinstance(distribution, CategoricalDistribution)
    for choice in distribution.choices:
        if choice is value or (type(choice) is kind and choice == value):
            return True
    return any(same(choice, value) for choice in distribution.choices)


def _is_number(kind: type) -> bool:
    return kind is int or kind is float or (kind is not bool and issubclass(kind, _NUMBERS))


def settle(distribution: BaseDistribution, value: Any) -> Any:
    """A possible answer as a storage gives it back: 1 becomes 1.0 where a float was asked for."""
    if type(value) is str:  # most answers
        return value
    if isinstance(distribution, IntDistribution):
        return int(value)
    if isinstance(distribution, FloatDistribution):
        return float(value)
    assert isinstance(distribution, CategoricalDistribution)
    return value if type(value) in _KINDS else distribution.choices[index(distribution.choices, value)]


def is_continuous(distribution: BaseDistribution) -> bool:
    """Whether a question has more answers than can be listed: a float without a step, and with a range."""
    return (
        isinstance(distribution, FloatDistribution)
        and distribution.step is None
        and distribution.low < distribution.high
    )


def is_logarithmic(distribution: BaseDistribution) -> bool:
    """Whether answers are numbers whose ratios matter, not their differences."""
    return isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log


def options(name: str, distribution: BaseDistribution) -> Sequence[Any]:
    """Every possible answer to a question.

    Raises:
        ValueError: the question is continuous (a float without a step).
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


def others(name: str, distribution: BaseDistribution, value: Any) -> list[Any]:
    """Every possible answer to a question but `value`.

    Raises:
        ValueError: the question is continuous (a float without a step).
    """
    return [option for option in options(name, distribution) if not _is_one(distribution, option, value)]


def check_storable(name: str, distribution: BaseDistribution) -> None:
    """Check that a study can tell the choices apart: Optuna stores the first that Python calls equal.

    Raises:
        ChoicesError: it cannot.
    """
    choices = distribution.choices if isinstance(distribution, CategoricalDistribution) else ()
    for i, choice in enumerate(choices):
        first = choices.index(choice)
        if first != i:
            raise ChoicesError(
                f"Parameter {name!r} offers {choices[first]!r} and {choice!r}, which Python calls equal: "
                f"Optuna would store {choices[first]!r} for either. Offer strings, and look the values up."
            )


def check_kept(
    name: str, before: BaseDistribution, now: BaseDistribution, when: str, *, way_out: str
) -> None:
    """Check that a name is still asked as it was `when`; the range of a number may change, as in Optuna.

    Raises:
        ChoicesError: with other choices, or as another kind of question.
    """
    if type(before) is type(now) and is_logarithmic(before) == is_logarithmic(now):
        if not isinstance(before, CategoricalDistribution):
            return
        assert isinstance(now, CategoricalDistribution)
        if [*map(key, before.choices)] == [*map(key, now.choices)]:
            return
    raise ChoicesError(
        f"Parameter {name!r} is asked as {_in_words(now)}, and {when} as {_in_words(before)}; a study keeps "
        f"one list of choices for a name. {way_out} Nothing stored is lost."
    )


def _in_words(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return f"one of {list(distribution.choices)}"
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    kind = "an integer" if isinstance(distribution, IntDistribution) else "a number"
    scale = ", logarithmic" if distribution.log else ""
    return f"{kind} in {distribution.low}..{distribution.high}{scale}"


def widest(one: BaseDistribution, other: BaseDistribution) -> BaseDistribution:
    """A question that takes the answers to both; the first where they are no ranges of one kind."""
    if isinstance(one, IntDistribution) and isinstance(other, IntDistribution) and one.log == other.log:
        low, high = min(one.low, other.low), max(one.high, other.high)
        return one if one == other else IntDistribution(low, high, log=one.log)
    if isinstance(one, FloatDistribution) and isinstance(other, FloatDistribution) and one.log == other.log:
        low_, high_ = min(one.low, other.low), max(one.high, other.high)
        return one if one == other else FloatDistribution(low_, high_, log=one.log)
    return one


def draw(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """One uniformly random answer (in the logarithm where the question says so)."""
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


def mutate(distribution: BaseDistribution, value: Any, rng: np.random.Generator) -> Any:
    """Another answer than `value`, uniformly at random; `value` where there is no other."""
    if isinstance(distribution, CategoricalDistribution):
        left = others("", distribution, value)
        return left[rng.integers(len(left))] if left else value
    for _ in range(100):
        drawn = draw(distribution, rng)
        if not _is_one(distribution, drawn, value):
            return drawn
    return value


def keep_or_draw(params: Mapping[str, Any], rng: np.random.Generator) -> Pick:
    """Answers from `params` where that is possible, else uniformly at random."""

    def pick(name: str, distribution: BaseDistribution) -> Any:
        kept = name in params and contains(distribution, params[name])
        return params[name] if kept else draw(distribution, rng)

    return pick


def _is_one(distribution: BaseDistribution, one: Any, other: Any) -> bool:
    """Whether two values are the same answer to this question, where 1 and 1.0 are one number."""
    if isinstance(distribution, CategoricalDistribution):
        return same(one, other)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    # A stored point of a grid may differ from ours in its last bits.
    return bool(one == other) if distribution.step is None else abs(one - other) < distribution.step / 2


def _grid_size(distribution: IntDistribution | FloatDistribution) -> int:
    assert distribution.step is not None
    return round((distribution.high - distribution.low) / distribution.step) + 1


def _grid_point(distribution: IntDistribution | FloatDistribution, i: int) -> float:
    assert distribution.step is not None
    # Floating point: 0.1 + 2 * 0.1 is above 0.3.
    return min(distribution.low + i * distribution.step, distribution.high)
