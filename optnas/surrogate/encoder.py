"""Params as rows of numbers, for a surrogate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from optnas.answers import key

Array = NDArray[np.float64]
Params = Mapping[str, Any]

Features = Callable[[Params], Mapping[str, float]]
"""Numbers about an architecture that cost no training, by name: FLOPs, parameters, zero-cost scores.

Examples:
    >>> def features(params):
    ...     return {"cells": float(params["width"] * params["depth"])}
    >>> sampler = optnas.PredictorSampler(space, features=features)
"""

LEVEL = 0.5
"""How far a cheap estimate and a whole one of the same are apart, before anything is known of them: they are
expected to correlate at 0.78."""

ENDS = 2.0
"""How far the ends of a range of real numbers are apart, where an answer and another are 1.

Were they as close as two answers, a surrogate of a dozen trials would see but a slope of a learning rate, and
follow it to an end. Whole numbers are often few or large, and their ends are 1 apart."""

Written = Callable[[Any], tuple[int, float] | None]
"""Into which column an answer writes which number."""


class Encoder:
    """Params to rows: two trials are as different as their rows are apart, column by column.

    There is a column for each answer of a categorical decision and one for a number, so that the surrogate
    can learn that one answer of one decision is special; for each family, the decisions that have the same
    distribution (operations of the edges of a cell, widths of layers), the sums of these columns, which say
    how often an answer was given and tell much from few trials; and one for each feature.

    With `levels` there is one more: 1 for a whole estimate, 0 for a cheap one, and between for a part of one.
    """

    def __init__(
        self, trials: Sequence[FrozenTrial], features: Features | None, *, levels: bool = False
    ) -> None:
        self._levels = levels
        distributions: dict[str, BaseDistribution] = {}
        for trial in trials:
            distributions |= trial.distributions
        self._columns: dict[str, Written] = {}
        self._first: dict[str, int] = {}
        self._width = 0
        for name, distribution in distributions.items():
            self._first[name] = self._width
            self._columns[name] = _column(distribution, self._width)
            self._width += _width(distribution)
        self._sums = self._sum_matrix(distributions)
        self._features = None if features is None else _Standardized(features, trials)

    @property
    def n_own(self) -> int:
        """How many columns, the last ones, are in other units than those of the answers."""
        return int(self._levels)

    @property
    def has_features(self) -> bool:
        """Whether any feature differs between the trials."""
        return self._features is not None and bool(self._features.names)

    def encode(self, params: Sequence[Params], levels: Array | float = 1.0) -> Array:
        """The rows of params; what no trial was asked is left out.

        `levels`, `(n,)` or one for all: of what kind the estimate is.
        """
        rows = np.zeros((len(params), self._width))
        for row, answers in zip(rows, params, strict=True):
            for name, value in answers.items():
                if name in self._columns and (written := self._columns[name](value)) is not None:
                    column, number = written
                    row[column] = number
        parts = [rows, rows @ self._sums]
        if self._features is not None:
            parts.append(self._features.of(params))
        if self._levels:
            parts.append(np.broadcast_to(levels, (len(params),))[:, None] * LEVEL)
        return np.hstack(parts)

    def _sum_matrix(self, distributions: Mapping[str, BaseDistribution]) -> Array:
        """What rows are multiplied with to get the sums of each family."""
        families = _families(distributions)
        widths = [_width(distributions[names[0]]) for names in families]
        matrix = np.zeros((self._width, sum(widths)))
        start = 0
        for names, width in zip(families, widths, strict=True):
            for name in names:
                matrix[self._first[name] + np.arange(width), start + np.arange(width)] = 1.0
            start += width
        return matrix


class _Standardized:
    """Features as columns of mean 0 and variance 1 over the trials; what is not known is 0.

    One that is the same for all trials says nothing, and of those that are equal one is enough.
    """

    def __init__(self, features: Features, trials: Sequence[FrozenTrial]) -> None:
        self._features = features
        known = [features(trial.params) for trial in trials]
        names = sorted({name for row in known for name in row})
        table = _table(known, names)
        center, scale = np.nanmean(table, axis=0), np.nanstd(table, axis=0)
        telling = np.flatnonzero(scale > 1e-9 * (1 + np.abs(center)))
        columns = np.round((table[:, telling] - center[telling]) / scale[telling], 6).T
        different: dict[bytes, int] = {}
        for at, column in zip(telling.tolist(), columns, strict=True):
            different.setdefault(column.tobytes(), at)
        kept = list(different.values())
        self.names = [names[i] for i in kept]
        self._center, self._scale = center[kept], scale[kept]

    def of(self, params: Sequence[Params]) -> Array:
        table = _table([self._features(p) for p in params], self.names)
        columns: Array = np.nan_to_num((table - self._center) / self._scale)
        return columns


def _table(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Array:
    """A column for each name; NaN where a row does not have it."""
    table = np.full((len(rows), len(names)), np.nan)
    if len(names) > 1:
        of_all = itemgetter(*names)
        for at, row in zip(table, rows, strict=True):
            try:
                at[:] = of_all(row)
            except KeyError:
                at[:] = [row.get(name, np.nan) for name in names]
    elif names:
        table[:, 0] = [row.get(names[0], np.nan) for row in rows]
    return table


def _column(distribution: BaseDistribution, first: int) -> Written:
    """What an answer writes. No answer is 0 everywhere, and so is one that is no choice."""
    if isinstance(distribution, CategoricalDistribution):
        # Two different answers are 1 apart, an answer and no answer 1/2.
        known = {key(choice): (first + i, 0.5**0.5) for i, choice in enumerate(distribution.choices)}
        return lambda value: known.get(key(value))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = float(distribution.low), float(distribution.high)
    apart = ENDS if isinstance(distribution, FloatDistribution) else 1.0
    if distribution.log:
        low, high = math.log(low), math.log(high)
        return lambda value: (first, apart * ((math.log(value) - low) / (high - low or 1.0) - 0.5))
    return lambda value: (first, apart * ((value - low) / (high - low or 1.0) - 0.5))


def _width(distribution: BaseDistribution) -> int:
    return len(distribution.choices) if isinstance(distribution, CategoricalDistribution) else 1


def _families(distributions: Mapping[str, BaseDistribution]) -> list[list[str]]:
    """Names of decisions with the same distribution, where there are several."""
    families: dict[str, list[str]] = {}
    for name, distribution in distributions.items():
        families.setdefault(repr(distribution), []).append(name)
    return [names for names in families.values() if len(names) > 1]
