"""Put questions to a sampler outside a trial, so that a wrapper can look at answers before giving them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.space.explore import draw_value
from optnas.trial import Draw, Space, contains


class Inner:
    """Answers as `sampler` would answer the questions of `trial`, but stores no parameter.

    Each call draws anew: relative parameters once for all questions, the others one by one. `fixed` answers
    are kept, as Optuna keeps those of an enqueued trial.
    """

    def __init__(self, sampler: BaseSampler, study: Study, trial: FrozenTrial, fixed: Mapping[str, Any]):
        self._sampler = sampler
        self._study = study
        self._fixed = fixed
        self._trial = copy.copy(trial)
        self._trial.params = {}
        self._trial.distributions = {}
        self.relative_space = sampler.infer_relative_search_space(study, self._trial)
        self.relative = sampler.sample_relative(study, self._trial, self.relative_space)

    def __call__(self, name: str, distribution: BaseDistribution) -> Any:
        value = self._answer(name, distribution)
        # As the storage would give it back: a float where an integer was asked becomes one.
        value = distribution.to_external_repr(distribution.to_internal_repr(value))
        self._trial.params[name] = value
        self._trial.distributions[name] = distribution
        return value

    def _answer(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._fixed and contains(distribution, self._fixed[name]):
            return self._fixed[name]
        if distribution.single():
            internal = getattr(distribution, "low", 0)  # of categorical choices, the first
            return distribution.to_external_repr(internal)
        if name in self.relative and distribution._contains(
            distribution.to_internal_repr(self.relative[name])
        ):
            return self.relative[name]
        return self._sampler.sample_independent(self._study, self._trial, name, distribution)


def walk(space: Space[Any], draw: Draw) -> Draw:
    """Let a space put its questions to `draw`; what it builds stays on the meta device and is dropped."""
    with torch.device("meta"):
        space(draw)
    return draw


def keep_or_draw(params: Mapping[str, Any], rng: np.random.Generator) -> Draw:
    """A trial that answers from `params` where that is possible, else uniformly at random."""

    def pick(name: str, distribution: BaseDistribution) -> Any:
        kept = name in params and contains(distribution, params[name])
        return params[name] if kept else draw_value(distribution, rng)

    return Draw(pick)
