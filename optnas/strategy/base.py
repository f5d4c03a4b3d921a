"""What our samplers share: how to answer is settled once a trial, from the study's trials alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.answers import Pick
from optnas.limits import Within

"""System attribute of a trial: the answers that a sampler has planned for it, under `params`."""


class TrialSampler(BaseSampler, ABC):
    """The base class of samplers that decide once a trial, in `prepare`, how to answer its questions.

    Nothing about the search lives in the sampler: with a seed, the answers of trial n depend on the seed,
    on n and on the trials in the storage. So a killed search goes on where it was, workers that share a
    storage share the search, and no worker repeats another's random points.

    Args:
        seed: A non-negative integer, or None for different answers each time.

    Attributes:
        within: Which params keep the limits of the objective. `create_study` and `optimize` set it and see to
            it that limits are kept; a sampler that makes candidates saves time by looking itself.
        several: Whether it can search for several values at once.
        hears: Whether it learns from other studies (`record.heard`).

    Examples:
        >>> class Always(optnas.strategy.TrialSampler):
        ...     def prepare(self, study, trial, rng):
        ...         return lambda name, distribution: getattr(distribution, "low", 0)
    """

    several = False
    hears = False

    def __init__(self, seed: int | None = None) -> None:
        self.within: Within | None = None
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._picks: dict[tuple[int, int], tuple[Pick, int]] = {}  # and how often this trial was prepared

    @abstractmethod
    def prepare(self, study: Study, trial: FrozenTrial, rng: np.random.Generator) -> Pick:
        """How to answer the questions of this trial.

        Called once, at the first question that is neither fixed (an enqueued trial) nor without a choice.
        The pick returned is called once for each such question, in the order in which the trial asks.
        """

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: which questions come is known only when they come."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Settle how to answer; the answers themselves are given by `sample_independent`.

        Called again for the same trial (by a wrapper that wants another draw), it settles anew.

        Raises:
            ValueError: the study has several objectives.
        """
        if len(study.directions) > 1 and not self.several:
            raise ValueError(
                f"{type(self).__name__} searches for one value, and study {study.study_name!r} has "
                f"{len(study.directions)}. Take PredictorSampler, RegularizedEvolutionSampler or "
                "LocalSearchSampler, or search for one value and limit the others: "
                "Objective(..., limits={'flops': 2e6})."
            )
        place = private.place(study, trial)
        redraws = self._picks[place][1] + 1 if place in self._picks else 0
        rng = np.random.default_rng((self.seed, trial.number, redraws))
        self._picks[place] = self.prepare(study, trial, rng), redraws
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The answer to one question."""
        if private.place(study, trial) not in self._picks:
            self.sample_relative(study, trial, {})
        pick, _ = self._picks[private.place(study, trial)]
        return pick(param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Forget how this trial was answered."""
        self._picks.pop(private.place(study, trial), None)


def fixed_params(trial: FrozenTrial) -> dict[str, Any]:
    """Answers that no sampler may change: of an enqueued trial, or of an earlier attempt at this one."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def expected_params(trial: FrozenTrial) -> dict[str, Any]:
    """What an unfinished trial was or will be answered, as far as anyone knows: planned, fixed, or given."""
    return {**(record.PLAN.of(trial) or {}).get("params", {}), **fixed_params(trial)}


def is_sound(trial: FrozenTrial) -> bool:
    """Whether a trial is COMPLETE and keeps all its constraints."""
    return trial.state == TrialState.COMPLETE and all(v <= 0 for v in trial.constraints.values())


def sound_trials(study: Study) -> list[FrozenTrial]:
    """COMPLETE trials that keep all their constraints, in the order of their numbers."""
    return [trial for trial in study.get_trials(deepcopy=False) if is_sound(trial)]


def loss(study: Study, trial: FrozenTrial) -> float:
    """The value of a COMPLETE trial, negated when the study maximizes: lower is better."""
    assert trial.value is not None
    return -trial.value if study.direction == optuna.study.StudyDirection.MAXIMIZE else trial.value
