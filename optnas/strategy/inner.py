"""Put questions to a sampler outside a trial, so that a wrapper can look at answers before giving them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas import private
from optnas.answers import contains, options, settle


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
        value = settle(distribution, self._answer(name, distribution))
        self._trial.params[name] = value
        self._trial.distributions[name] = distribution
        return value

    def _answer(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._fixed and contains(distribution, self._fixed[name]):
            return self._fixed[name]
        if distribution.single():
            return options(name, distribution)[0]
        if name in self.relative and contains(distribution, self.relative[name]):
            return self.relative[name]
        return self._sampler.sample_independent(self._study, self._trial, name, distribution)


class PlanningSampler(BaseSampler, ABC):
    """Settles a whole trial beforehand by putting its questions to another sampler.

    To Optuna all the answers are relative ones; a question that was not foreseen goes to the inner sampler.
    """

    def __init__(self, sampler: BaseSampler) -> None:
        self.sampler = sampler
        self._relative: dict[tuple[int, int], dict[str, Any]] = {}  # between infer and sample

    @abstractmethod
    def plan(
        self, study: Study, trial: FrozenTrial
    ) -> tuple[Inner, Mapping[str, Any], Mapping[str, BaseDistribution]]:
        """The inner sampler's draw, and the answers and distributions that the trial shall have."""

    def view(self, study: Study) -> Study:
        """The study as the inner sampler sees it."""
        return study

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Plan the trial; its questions, and those that the inner sampler would answer jointly."""
        inner, answers, distributions = self.plan(study, trial)
        self._relative[private.place(study, trial)] = {**inner.relative, **answers}
        return {**inner.relative_space, **distributions}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The planned answers."""
        return self._relative.pop(private.place(study, trial))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """An answer beyond the plan, from the inner sampler."""
        return self.sampler.sample_independent(self.view(study), trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Passed on to the inner sampler."""
        self.sampler.before_trial(self.view(study), trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Passed on to the inner sampler."""
        self.sampler.after_trial(self.view(study), trial, state, values)

    def reseed_rng(self) -> None:
        """Passed on to the inner sampler; our own choices differ by the trial's number."""
        self.sampler.reseed_rng()
