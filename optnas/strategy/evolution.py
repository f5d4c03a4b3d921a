"""Regularized evolution (Real et al., AAAI 2019, arXiv:1802.01548) on any conditional space."""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.answers import Pick, keep_or_draw, mutate
from optnas.pareto import standing
from optnas.record import CHANGED, PARENT
from optnas.strategy.base import TrialSampler, fixed_params, sound_trials


class RegularizedEvolutionSampler(TrialSampler):
    """Changes one decision of the best of a few recent trials; the oldest are dropped, however good.

    The population is the latest `population_size` COMPLETE trials that keep their constraints; until there
    are that many, trials are random. A parent is the best of `tournament_size` of them, drawn at random. The
    child forgets one of the parent's decisions and answers it anew; decisions that still appear keep their
    answers, decisions that newly appear are answered at random. The space need not be known: the child is
    made while the trial asks. Of several objectives, the best is the one of the lowest rank in a
    non-dominated sort of the population, and of these the one with most room around it (as in NSGA-II, Deb et
    al. 2002).

    The trial's system attributes `optnas:parent` (a trial's number) and `optnas:changed` (a decision's name)
    tell the lineage.

    Args:
        population_size: Number of trials in the population.
        tournament_size: Number of trials from which the parent is chosen.
        crossover: Probability that a decision which a second parent has too is taken from that parent.
        seed: See `TrialSampler`.

    Raises:
        ValueError: not `1 <= tournament_size <= population_size` or not `0 <= crossover <= 1`.

    Examples:
        >>> evolved = optnas.create_study(
        ...     objective,
        ...     sampler=lambda seed: optnas.RegularizedEvolutionSampler(10, 3, seed=seed),
        ...     seed=0,
        ... )
        >>> optnas.optimize(evolved, objective, n_trials=12)
    """

    several = True

    def __init__(
        self,
        population_size: int = 20,
        tournament_size: int = 5,
        crossover: float = 0.0,
        seed: int | None = None,
    ) -> None:
        if not 1 <= tournament_size <= population_size:
            raise ValueError(
                "RegularizedEvolutionSampler needs 1 <= tournament_size <= population_size, got "
                f"tournament_size={tournament_size}, population_size={population_size}."
            )
        if not 0 <= crossover <= 1:
            raise ValueError(f"crossover={crossover} is a probability; give a number in 0..1.")
        super().__init__(seed)
        self.population_size = population_size
        self.tournament_size = tournament_size
        self.crossover = crossover

    def prepare(self, study: Study, trial: FrozenTrial, rng: np.random.Generator) -> Pick:
        """Choose a parent and the decision to change."""
        population = sound_trials(study)[-self.population_size :]
        if len(population) < self.population_size:
            return keep_or_draw({}, rng)
        parent = self._tournament(study, population, rng)
        inherited = dict(parent.params)
        if self.crossover:
            other = self._tournament(study, population, rng)
            inherited |= {k: v for k, v in other.params.items() if rng.random() < self.crossover}
        changed = _choose_decision(parent, trial, rng)
        PARENT.write(study, trial, parent.number)
        if changed is not None:
            CHANGED.write(study, trial, changed)

        keep = keep_or_draw(inherited, rng)

        def pick(name: str, distribution: BaseDistribution) -> Any:
            return mutate(distribution, inherited[name], rng) if name == changed else keep(name, distribution)

        return pick

    def _tournament(
        self, study: Study, population: list[FrozenTrial], rng: np.random.Generator
    ) -> FrozenTrial:
        entrants = rng.choice(len(population), self.tournament_size, replace=False)
        places = standing(study, population)
        return population[min(map(int, entrants), key=lambda i: float(places[i]))]


def _choose_decision(parent: FrozenTrial, trial: FrozenTrial, rng: np.random.Generator) -> str | None:
    """A decision of the parent that the trial is free to change; None if there is none."""
    fixed = fixed_params(trial)
    free = [name for name, d in parent.distributions.items() if not d.single() and name not in fixed]
    return free[rng.integers(len(free))] if free else None
