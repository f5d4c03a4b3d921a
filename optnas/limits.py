"""Limits: what a number of a network may be, and what can be known of that before the network is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Bound: TypeAlias = float | tuple[float | None, float | None]
"""The most that a number may be, or the least and the most, either of them None."""

Params: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Limit:
    """The least and the most that a fact or a metric may be; None: no end on that side.

    Raises:
        ValueError: it limits nothing, or nothing can be within it.
    """

    name: str
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        ends = [end for end in (self.low, self.high) if end is not None]
        if not ends or not all(map(math.isfinite, ends)) or ends != sorted(ends):
            raise ValueError(
                f"limits={{{self.name!r}: ({self.low}, {self.high})}}: give the most, such as 2e6, or the "
                "least and the most, such as (0.9, None), either of them finite."
            )

    @classmethod
    def of(cls, name: str, bound: Any) -> Limit:
        """From what a user writes, or a study keeps: a number, or a pair.

        Raises:
            ValueError: it is neither.
        """
        pair = (None, bound) if _is_number(bound) else bound
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            pair = (None, None)
        if not all(end is None or _is_number(end) for end in pair):
            raise ValueError(f"limits={{{name!r}: {bound!r}}}: give a number, or two such as (0.9, None).")
        return cls(name, *pair)

    def violation(self, value: float) -> float:
        """By how much it is broken, as a share of the bound (of 1 where that is 0); 0 or less: it is kept."""
        over = [] if self.high is None else [(value - self.high) / (abs(self.high) or 1.0)]
        under = [] if self.low is None else [(self.low - value) / (abs(self.low) or 1.0)]
        return max(over + under)

    def __str__(self) -> str:
        low, high = ("" if end is None else in_words(end) for end in (self.low, self.high))
        if low and high:
            return f"{low} <= {self.name} <= {high}"
        return f"{self.name} <= {high}" if high else f"{self.name} >= {low}"


class Within:
    """Which architectures keep the limits that can be computed before a trial begins.

    It remembers how near it has seen anything come to each limit, so that it can be said when nothing does.

    Args:
        facts: Params to the facts that can be computed of their network; what cannot be had is left out.
        limits: Of these facts.
    """

    def __init__(self, facts: Callable[[Params], Mapping[str, float]], limits: Sequence[Limit]) -> None:
        self._facts = facts
        self.limits = tuple(limits)
        self._nearest: dict[str, tuple[float, float]] = {}  # limit to (violation, value)

    def also(self, facts: Callable[[Params], Mapping[str, float]], limits: Sequence[Limit]) -> Within:
        """These limits and others, of other facts."""
        own = self._facts
        return Within(lambda params: {**own(params), **facts(params)}, [*self.limits, *limits])

    def violation(self, params: Params) -> float:
        """By how much the limit is broken that is broken most; 0 or less where all are kept.

        A limit on a number that cannot be had is taken to be kept: the trial will tell.
        """
        facts = self._facts(params)
        worst = -math.inf
        for limit in self.limits:
            if limit.name in facts:
                near = limit.violation(facts[limit.name]), facts[limit.name]
                self._nearest[limit.name] = min(near, self._nearest.get(limit.name, near))
                worst = max(worst, near[0])
        return worst

    def __call__(self, params: Params) -> bool:
        """Whether all limits are kept."""
        return self.violation(params) <= 0

    def __str__(self) -> str:
        """The limits, and how near anything came to each."""
        return "; ".join(f"{limit}{self._how_near(limit)}" for limit in self.limits)

    def _how_near(self, limit: Limit) -> str:
        if limit.name not in self._nearest:
            return ""
        violation, value = self._nearest[limit.name]
        return nearest_in_words(limit, value) if violation > 0 else " (which some keep, but none of them all)"


def nearest_in_words(limit: Limit, value: float) -> str:
    """What was seen of a limit that nothing kept: ` (the smallest seen is 3,000)`."""
    under = limit.low is not None and value < limit.low
    return f" (the {'largest' if under else 'smallest'} seen is {in_words(value)})"


def in_words(number: float) -> str:
    """`1,234,567` of a whole number, five digits of anything else."""
    if not math.isfinite(number):
        return str(number)
    return f"{int(number):,}" if float(number).is_integer() else f"{number:.5g}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
