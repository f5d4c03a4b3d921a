"""A fixed-length view of a conditional space, for samplers that want all questions in all trials."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.answers import draw
from optnas.space.nodes import MOST_ENUMERATED, questions
from optnas.strategy.base import fixed_params
from optnas.strategy.inner import Inner, PlanningSampler
from optnas.trial import Space

Slots = Mapping[str, BaseDistribution]


def slots(space: Space[Any], limit: int = MOST_ENUMERATED) -> dict[str, BaseDistribution]:
    """Every question that a space can ask; see `optnas.space.questions`.

    Raises:
        ValueError: they cannot be known exactly; the message says how to name them by hand.

    Examples:
        >>> sorted(optnas.strategy.slots(space))[-2:]
        ['depth', 'width']
    """
    try:
        return questions(space, limit)
    except ValueError as error:
        raise ValueError(
            f"{error} Name the questions by hand, PaddedSampler(sampler, {{'depth': IntDistribution(1, 6), "
            "...}), or write the space with Choice, Repeat and Chain."
        ) from error


class PaddedSampler(PlanningSampler):
    """Lets `sampler` answer every question that the space could ask, in every trial.

    Samplers that model parameters jointly (GP, CMA-ES, NSGA-II, TPE) do so for those that all trials share;
    in a conditional space that is a small part. Under this wrapper they see a study in which all trials have
    all parameters. The real trials have only those that were asked; the answers given to the others stand in
    the system attribute `optnas:padded`. Trials that another sampler made are padded at random, in the same
    way each time.

    Args:
        sampler: Any sampler.
        space: A space whose questions `slots` can find, or the questions themselves, name to distribution.
            Questions beyond them go to the inner sampler as always.

    Raises:
        ValueError: see `slots`.

    Examples:
        >>> padded = optnas.PaddedSampler(optuna.samplers.TPESampler(seed=0), space)
        >>> search = optuna.create_study(sampler=padded)
        >>> search.optimize(lambda trial: float(len(space(trial))), n_trials=3)
    """

    def __init__(self, sampler: BaseSampler, space: Space[Any] | Slots) -> None:
        super().__init__(sampler)
        self.slots = dict(space) if isinstance(space, Mapping) else slots(space)
        self._finished: dict[tuple[int, int], FrozenTrial] = {}

    def plan(
        self, study: Study, trial: FrozenTrial
    ) -> tuple[Inner, Mapping[str, Any], Mapping[str, BaseDistribution]]:
        """The answers to all slots."""
        inner = Inner(self.sampler, self.view(study), trial, fixed_params(trial))
        padded = {name: inner(name, distribution) for name, distribution in self.slots.items()}
        record.PADDED.write(study, trial, padded)
        return inner, padded, self.slots

    def view(self, study: Study) -> Study:
        """The study, all of whose trials have an answer to every slot."""
        return _PaddedStudy(study, self)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Passed on to the inner sampler, with all slots."""
        super().after_trial(study, self.pad(trial), state, values)

    def pad(self, trial: FrozenTrial) -> FrozenTrial:
        """A copy of the trial with an answer to every slot."""
        answers = {**(record.PADDED.of(trial) or {}), **trial.params}
        if not answers.keys() >= self.slots.keys():
            rng = np.random.default_rng(trial.number)
            answers = {name: draw(d, rng) for name, d in self.slots.items()} | answers
        padded = copy.copy(trial)
        padded.params = {name: answers[name] for name in self.slots} | trial.params
        padded.distributions = {**self.slots, **trial.distributions}
        return padded

    def padded_trials(self, study: Study, states: Container[TrialState] | None) -> list[FrozenTrial]:
        """The study's trials as the inner sampler sees them; one that has not asked yet stays as it is."""
        return [self._padded(study, trial) for trial in study.get_trials(deepcopy=False, states=states)]

    def _padded(self, study: Study, trial: FrozenTrial) -> FrozenTrial:
        if not trial.state.is_finished():
            return self.pad(trial) if record.PADDED.of(trial) is not None else trial
        place = private.place(study, trial)
        if place not in self._finished:
            self._finished[place] = self.pad(trial)
        return self._finished[place]


class _PaddedStudy(Study):
    """The same study, whose trials have an answer to every slot."""

    def __init__(self, study: Study, sampler: PaddedSampler) -> None:
        super().__init__(study.study_name, private.storage(study), sampler.sampler, study.pruner)
        self._study = study
        self._padding = sampler

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._padding.padded_trials(self._study, states)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return self._padding.padded_trials(self._study, states)

    def stop(self) -> None:
        self._study.stop()
