"""Population-based training: who falls behind makes room for children of those ahead, while all are trained.

Jaderberg et al., Population Based Training of Neural Networks, 2017 (arXiv:1711.09846); of architectures:
Chebykin, Alderliesten & Bosman, Shrink-Perturb Improves Architecture Mixing during Population Based Training
for Neural Architecture Search, 2023 (arXiv:2307.15621).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas import record
from optnas.answers import Pick, keep_or_draw
from optnas.storage.base import is_held
from optnas.strategy.base import TrialSampler, fixed_params
from optnas.strategy.halving import PromotingPruner

FACTORS = (0.8, 1.2)
"""By one of these a child's floats differ from those that it took over (Jaderberg et al.)."""


class PopulationPruner(PromotingPruner):
    """Trains a population side by side, and replaces the worst by children of the best.

        population = PopulationPruner(size=12, every=5)
        training = Training(..., max_epochs=20, inherit="shrink_perturb")
        create_study(objective, sampler=population.sampler, pruner=population)

    The first `size` trials are random. Each pauses after every `every` reports, until all have come as far.
    Then the worst `share` of them end, as PRUNED, and as many children begin in their place, at the same age:
    a child has the answers of one of the best `share`, in which each group of answers (those whose names
    begin alike: a layer, for instance) is replaced with probability `mix` by another's of these, and every
    float is multiplied by 0.8 or 1.2. It goes on with its parent's weights, with the state of the optimizer
    where shapes fit, and with its parent's epoch. With several workers a trial is compared with those that
    have come as far so far.

    A study of E epochs a trial ends after `size` trials and `floor(share * size)` more for each of the
    E / `every` - 1 pauses; `trials(E)` says it. More trials begin another population.

    Args:
        size: Number of trials that are trained side by side.
        every: Number of reports between two pauses.
        share: Of the population, which is replaced, and from which parents are chosen.
        mix: Probability that a group of answers is another parent's.

    Raises:
        ValueError: an argument is out of its range, or `share` of `size` is less than one trial.

    Examples:
        >>> population = optnas.strategy.PopulationPruner(size=8, every=2)
        >>> population.trials(max_epochs=6)
        12
        >>> trained = optnas.create_study(
        ...     objective, sampler=population.sampler, pruner=population, seed=0
        ... )
    """

    def __init__(self, size: int = 12, every: int = 5, share: float = 0.25, mix: float = 0.25) -> None:
        if every < 1:
            raise ValueError(f"every={every} must be at least 1.")
        if not 0 < share <= 0.5 or math.floor(share * size) < 1:
            raise ValueError(
                f"size={size} and share={share}: the share must be above 0 and at most 0.5, and at least one "
                "trial; take size=4 or more with a share of 0.25."
            )
        if not 0 <= mix <= 1:
            raise ValueError(f"mix={mix} is a probability; give a number in 0..1.")
        self.size, self.every, self.share, self.mix = size, every, float(share), float(mix)
        self.most_paused = size

    def trials(self, max_epochs: int) -> int:
        """How many trials one population has, if each reports once an epoch."""
        return self.size + self._of(self.size) * (math.ceil(max_epochs / self.every) - 1)

    def sampler(self, seed: int | None = None) -> PopulationSampler:
        """The sampler that belongs to it, as `create_study(sampler=...)` takes it."""
        return PopulationSampler(self, seed)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether it pauses here."""
        return record.LET_GO_ON.of(trial) != record.n_reports(trial) and age(trial) % self.every == 0

    def promote(self, study: Study, *, last: bool) -> FrozenTrial | None:
        """The best of the youngest, unless a child is to begin first; none of those that make room."""
        trials = study.get_trials(deepcopy=False)
        if any(trial.state == TrialState.WAITING and not is_held(trial) for trial in trials):
            return None  # who was interrupted comes first, before its parent goes on
        if not last and (self.lacks_founders(trials) or self.parents(study, trials)):
            return None
        for of_age, paused in self._paused(study, trials):
            came, born = _came(trials, of_age), _born(trials, of_age)
            gone = sum(age(trial) > of_age for trial in came)
            if gone < len(came) - (born if last else self._of(len(came))):
                return paused[0]
        return None

    def ranked(self, study: Study, paused: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The oldest first, and of one age the best."""
        return [trial for _, found in reversed(self._paused(study, paused)) for trial in found]

    def lacks_founders(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether a trial that begins now has no parent."""
        founders = [trial for trial in trials if record.BORN.of(trial) is None]
        begun = [t for t in founders if record.counts(t) or (not t.state.is_finished() and t.params)]
        return len(begun) < self.size

    def parents(self, study: Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Of which a child is to begin now, the best first; none where no child is."""
        for of_age, paused in self._paused(study, trials)[:1]:
            if _born(trials, of_age) < self._of(len(_came(trials, of_age))):
                return paused[: max(1, self._of(self.size))]
        return []

    def _of(self, n: int) -> int:
        return math.floor(self.share * n + 1e-9)

    def _paused(self, study: Study, trials: Sequence[FrozenTrial]) -> list[tuple[int, list[FrozenTrial]]]:
        """What is paused, by age, the youngest first, and of one age the best."""
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        found: dict[int, list[FrozenTrial]] = {}
        for trial in trials:
            if trial.state == TrialState.WAITING and is_held(trial) and trial.last_step is not None:
                found.setdefault(age(trial), []).append(trial)

        def place(trial: FrozenTrial) -> tuple[float, int]:
            assert trial.last_step is not None
            return sign * trial.intermediate_values[trial.last_step], trial.number

        return [(of_age, sorted(found[of_age], key=place)) for of_age in sorted(found)]


def age(trial: FrozenTrial) -> int:
    """The number of reports behind it, with those of its ancestors until it was born."""
    return (record.BORN.of(trial) or 0) + record.n_reports(trial)


def _came(trials: Sequence[FrozenTrial], of_age: int) -> list[FrozenTrial]:
    """Those that have reached an age by themselves."""
    return [t for t in trials if age(t) >= of_age > (record.BORN.of(t) or 0) and t.state != TrialState.FAIL]


def _born(trials: Sequence[FrozenTrial], of_age: int) -> int:
    return sum(record.BORN.of(trial) == of_age and trial.state != TrialState.FAIL for trial in trials)


class PopulationSampler(TrialSampler):
    """Random founders, then children of the best; see `PopulationPruner`, whose `sampler` makes it.

    A trial's system attributes `optnas:parent` (a trial's number) and `optnas:born` (the age at which it
    takes over) tell the lineage.

    Examples:
        >>> sampler = optnas.strategy.PopulationPruner(size=8).sampler(seed=0)
    """

    def __init__(self, population: PopulationPruner, seed: int | None = None) -> None:
        super().__init__(seed)
        self.population = population

    def prepare(self, study: Study, trial: FrozenTrial, rng: np.random.Generator) -> Pick:
        """Choose a parent, and what comes from others."""
        if trial.params:  # it goes on
            return keep_or_draw(fixed_params(trial), rng)
        trials = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        parents = [] if self.population.lacks_founders(trials) else self.population.parents(study, trials)
        if not parents:
            return keep_or_draw({}, rng)
        first = int(rng.integers(len(parents)))
        parent, others = parents[first], [t for i, t in enumerate(parents) if i != first]
        taken = dict(parent.params)
        for group in sorted({name.rpartition(".")[0] for name in taken}):
            if others and rng.random() < self.population.mix:
                other = others[rng.integers(len(others))]
                taken |= {n: v for n, v in other.params.items() if n.rpartition(".")[0] == group}
        record.PARENT.write(study, trial, parent.number)
        record.BORN.write(study, trial, age(parent))
        keep = keep_or_draw(taken, rng)

        def pick(name: str, distribution: BaseDistribution) -> Any:
            kept = keep(name, distribution)
            if name in taken and isinstance(distribution, FloatDistribution) and distribution.step is None:
                moved = kept * FACTORS[rng.integers(len(FACTORS))]
                return min(max(moved, distribution.low), distribution.high)
            return kept

        return pick
