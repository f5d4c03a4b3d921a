"""Seeds that survive a restart and a crowd, for samplers whose random state lives in their process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas import private


class SeededSampler(BaseSampler):
    """Makes a new sampler for each trial, with a seed derived from `seed` and the trial's number.

    Optuna's samplers keep a random generator in the process and cannot be reseeded: a resumed study, or a
    second worker, that uses the same seed repeats the first random points. Here trial n is answered from
    `seed`, n and the stored trials alone, whoever asks. For `optuna.samplers` that read their state from the
    trials, which is all but `QMCSampler` (its seed is that of the sequence; give it one for the whole study).

    Args:
        make: From a seed (32 bits) to a sampler, such as `lambda seed: TPESampler(seed=seed)`; what it warns
            about experimental arguments is shown once.
        seed: A non-negative integer.

    Examples:
        >>> sampler = optnas.strategy.SeededSampler(
        ...     lambda seed: optuna.samplers.TPESampler(seed=seed), seed=0
        ... )
        >>> search = optuna.create_study(sampler=sampler)
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self.make = make
        self.seed = seed
        self._samplers: dict[tuple[int, int], tuple[BaseSampler, int]] = {}  # and how often it was asked
        make(0)  # a wrong argument fails here, not in the first trial

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Passed on to the trial's sampler."""
        self._sampler(study, trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The space of the trial's sampler.

        Called again for the same trial (by a wrapper that wants another draw), it uses another seed.
        """
        sampler, asked = self._sampler(study, trial), self._samplers[private.place(study, trial)][1]
        if asked:
            sampler = self._make(trial.number, asked)
        self._samplers[private.place(study, trial)] = sampler, asked + 1
        return sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The answers of the trial's sampler."""
        return self._sampler(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The answer of the trial's sampler."""
        return self._sampler(study, trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Passed on to the trial's sampler, which is then forgotten."""
        self._sampler(study, trial).after_trial(study, trial, state, values)
        del self._samplers[private.place(study, trial)]

    def _sampler(self, study: Study, trial: FrozenTrial) -> BaseSampler:
        place = private.place(study, trial)
        if place not in self._samplers:
            self._samplers[place] = self._make(trial.number, 0), 0
        return self._samplers[place][0]

    def _make(self, number: int, redraws: int) -> BaseSampler:
        seed = np.random.SeedSequence((self.seed, number, redraws)).generate_state(1)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return self.make(int(seed))
