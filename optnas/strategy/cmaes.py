"""CMA-ES over floats, integers and categories together, also where they are conditional.

The method is CatCMA with Margin (Hamano et al., arXiv:2504.07884), as implemented in the `cmaes` package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from cmaes import CatCMAwM
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.answers import Pick, contains, draw, index, is_continuous, is_logarithmic, options
from optnas.strategy.base import TrialSampler, is_sound, loss
from optnas.strategy.padded import Slots, slots
from optnas.trial import Space

LONGEST_GRID = 1000

_logger = optuna.logging.get_logger(__name__)


class MixedCmaEsSampler(TrialSampler):
    """Adapts a normal distribution of the numbers and the probabilities of the categories.

    Both hold every question that the space can ask, whether or not a trial asks it. They are updated once a
    generation, which ends when `population_size` of its trials are COMPLETE or PRUNED; pruned and infeasible
    ones rank last. Trials of other samplers are not learned from. Enqueued trials are: their answers replace
    the sampled ones.

    A question that `space` does not know is answered at random, and a warning is logged once.

    Args:
        space: A space whose questions `optnas.strategy.slots` can find, or the questions themselves, name to
            distribution.
        population_size: Trials in a generation; None for `4 + 3 log(number of questions)`.
        seed: See `TrialSampler`.

    Raises:
        ValueError: see `slots`; or no question has more than one answer.

    Examples:
        >>> sampler = optnas.MixedCmaEsSampler(space, population_size=6, seed=0)
        >>> search = optuna.create_study(sampler=sampler)
        >>> search.optimize(lambda trial: float(len(space(trial))), n_trials=12)
    """

    def __init__(
        self, space: Space[Any] | Slots, population_size: int | None = None, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        self._code = _Code.of(space if isinstance(space, Mapping) else slots(space))
        self.population_size = population_size or self._code.new_optimizer(None).population_size
        self._told: dict[int, tuple[list[list[int]], CatCMAwM]] = {}  # per study: numbers by generation
        self._warned: set[str] = set()

    def prepare(self, study: Study, trial: FrozenTrial, rng: np.random.Generator) -> Pick:
        """Sample from the distribution of the current generation."""
        optimizer = self._optimizer(study)
        optimizer.reseed_rng(int(rng.integers(2**32)))
        solution = optimizer.ask()
        answers = self._code.decode(solution)
        sample: Any = {
            "generation": optimizer.generation,
            "numbers": [] if solution._v_raw is None else solution._v_raw.tolist(),
            "categories": [] if solution.c is None else solution.c.argmax(axis=1).tolist(),
        }
        record.CMA.write(study, trial, sample)

        def pick(name: str, distribution: BaseDistribution) -> Any:
            if name in answers and contains(distribution, answers[name]):
                return answers[name]
            if name not in self._warned:
                self._warned.add(name)
                _logger.warning(
                    f"MixedCmaEsSampler does not know {name!r} as {distribution}: it is drawn at random."
                )
            return draw(distribution, rng)

        return pick

    def _optimizer(self, study: Study) -> CatCMAwM:
        """The distribution after all generations that have ended."""
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        ours = [trial for trial in finished if record.CMA.of(trial) is not None]
        # By completion, so that a trial that ends late does not change a generation that has ended.
        ours.sort(key=lambda trial: (trial.datetime_complete, trial.number))
        generations: list[list[FrozenTrial]] = []
        while True:
            of_this = [t for t in ours if _sample(t)["generation"] == len(generations)]
            if len(of_this) < self.population_size:
                break
            generations.append(of_this[: self.population_size])
        numbers = [[trial.number for trial in generation] for generation in generations]
        told, optimizer = self._told.get(private.study_id(study), ([], None))
        if optimizer is None or told != numbers[: len(told)]:
            told, optimizer = [], self._code.new_optimizer(self.population_size)
        for generation in generations[len(told) :]:
            optimizer.tell(self._ranked(study, generation))
        self._told[private.study_id(study)] = numbers, optimizer
        return optimizer

    def _ranked(
        self, study: Study, generation: Sequence[FrozenTrial]
    ) -> list[tuple[CatCMAwM.Solution, float]]:
        """What to tell; the values are ranks, which is all that the method uses."""

        def key(trial: FrozenTrial) -> tuple[bool, float]:
            return (False, loss(study, trial)) if is_sound(trial) else (True, 0.0)

        ranks = {
            value: float(rank) for rank, value in enumerate(sorted({key(trial) for trial in generation}))
        }
        in_order = sorted(generation, key=lambda trial: trial.number)
        return [(self._code.encode(trial), ranks[key(trial)]) for trial in in_order]


@dataclass(frozen=True)
class _Code:
    """How answers are coordinates: continuous first, then grids, then categories."""

    continuous: dict[str, Any]  # a float or integer distribution
    grids: dict[str, Sequence[Any]]
    categories: dict[str, Sequence[Any]]
    logs: frozenset[str]

    @classmethod
    def of(cls, questions: Slots) -> _Code:
        logs = frozenset(name for name, d in questions.items() if is_logarithmic(d))
        code = cls({}, {}, {}, logs)
        for name, distribution in questions.items():
            if distribution.single():
                continue
            if _is_nearly_continuous(distribution):
                code.continuous[name] = distribution
                continue
            values = options(name, distribution)
            # The package recommends categories for what has two values.
            is_grid = not isinstance(distribution, CategoricalDistribution) and len(values) > 2
            (code.grids if is_grid else code.categories)[name] = values
        if not (code.continuous or code.grids or code.categories):
            raise ValueError("MixedCmaEsSampler needs a question with more than one answer; there is none.")
        return code

    def new_optimizer(self, population_size: int | None) -> CatCMAwM:
        return CatCMAwM(
            x_space=[[self._scale(n, d.low), self._scale(n, d.high)] for n, d in self.continuous.items()]
            or None,
            z_space=[[self._scale(name, v) for v in values] for name, values in self.grids.items()] or None,
            c_space=[len(values) for values in self.categories.values()] or None,
            population_size=population_size,
            seed=0,
        )

    def decode(self, solution: CatCMAwM.Solution) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        for i, (name, distribution) in enumerate(self.continuous.items()):
            value = math.exp(solution.x[i]) if name in self.logs else float(solution.x[i])
            value = min(max(value, distribution.low), distribution.high)
            answers[name] = round(value) if isinstance(distribution, IntDistribution) else value
        for i, (name, values) in enumerate(self.grids.items()):
            answers[name] = values[self._nearest(name, values, solution.z[i])]
        for i, (name, values) in enumerate(self.categories.items()):
            answers[name] = values[int(solution.c[i].argmax())]
        return answers

    def encode(self, trial: FrozenTrial) -> CatCMAwM.Solution:
        """What was sampled for the trial, except where the trial has got another answer."""
        sample = _sample(trial)
        numbers = np.array(sample["numbers"])
        n_continuous = len(self.continuous)
        for i, (name, distribution) in enumerate(self.continuous.items()):
            if name in trial.params:
                sampled = math.exp(numbers[i]) if name in self.logs else numbers[i]
                sampled = min(max(sampled, distribution.low), distribution.high)
                if not math.isclose(sampled, trial.params[name], rel_tol=1e-9, abs_tol=1e-12):
                    numbers[i] = self._scale(name, trial.params[name])
        for i, (name, values) in enumerate(self.grids.items(), start=n_continuous):
            if name in trial.params and values[self._nearest(name, values, numbers[i])] != trial.params[name]:
                numbers[i] = self._scale(name, trial.params[name])
        one_hot = np.zeros((len(self.categories), max(map(len, self.categories.values()), default=0)), bool)
        for i, (name, values) in enumerate(self.categories.items()):
            category = sample["categories"][i]
            if name in trial.params:
                category = index(values, trial.params[name])
            one_hot[i, category] = True
        return CatCMAwM.Solution(
            x=numbers[:n_continuous], z=numbers[n_continuous:], c=one_hot, _v_raw=numbers
        )

    def _scale(self, name: str, value: float) -> float:
        return math.log(value) if name in self.logs else float(value)

    def _nearest(self, name: str, values: Sequence[Any], number: float) -> int:
        return int(np.abs(np.array([self._scale(name, value) for value in values]) - number).argmin())


def _is_nearly_continuous(distribution: BaseDistribution) -> bool:
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step >= LONGEST_GRID
    return is_continuous(distribution)


def _sample(trial: FrozenTrial) -> dict[str, Any]:
    sample = record.CMA.of(trial)
    assert sample is not None, "asked of trials that CMA-ES drew"
    return sample
