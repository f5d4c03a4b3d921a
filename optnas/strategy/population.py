"""Population-based training: who falls behind makes room for children of those ahead, while all are trained.

Jaderberg et al., Population Based Training of Neural Networks, 2017 (arXiv:1711.09846); of architectures:
Chebykin, Alderliesten & Bosman, Shrink-Perturb Improves Architecture Mixing during Population Based Training
for Neural Architecture Search, 2023 (arXiv:2307.15621).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
    have come as far so far, and the best wait for those that are still on their way, whose places their
    children may take.

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

    exact = True

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

    def begins(self, study: Study) -> bool:
        """Whether a founder or a child is to begin now: others would have no place in the population."""
        trials = study.get_trials(deepcopy=False)
        undecided = _undecided(trials)
        if len(undecided) < self._missing(trials):
            return True
        turn = self._turn(study, trials, n_children=len(undecided) - self._missing(trials))
        if turn is not None:
            return isinstance(turn, _Birth)
        return not any(map(_is_under_way, trials))  # this population has ended, and another one begins

    def promote(self, study: Study, *, last: bool) -> FrozenTrial | None:
        """The best of the youngest, unless a child is to begin first; none of those that make room."""
        trials = study.get_trials(deepcopy=False)
        for trial in trials:
            # Who was interrupted comes first; and who has no answers yet may be about to choose a parent.
            waits = trial.state == TrialState.WAITING and not is_held(trial)
            if (waits and not (last and _is_undecided(trial))) or (not waits and _is_undecided(trial)):
                return None
        if not last and self._missing(trials):
            return None
        turn = self._turn(study, trials, last=last)
        return None if isinstance(turn, _Birth) else turn

    def ranked(self, study: Study, paused: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The oldest first, and of one age the best."""
        return [trial for _, found in reversed(self._paused(study, paused)) for trial in found]

    def parents(self, study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
        """Those of which a trial that begins is to be a child, the best first; none of a founder's.

        Trials that have no answers yet take their places in the order of their numbers, so that no two take
        the same.
        """
        trials = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        before = sum(other.number < trial.number for other in _undecided(trials))
        if before < self._missing(trials):
            return []
        turn = self._turn(study, trials, n_children=before - self._missing(trials))
        return list(turn.parents) if isinstance(turn, _Birth) else []

    def best(self, study: Study, of_age: int) -> list[FrozenTrial]:
        """The best `share` of the population, of what is paused at an age; fewer where fewer are."""
        paused = dict(self._paused(study, study.get_trials(deepcopy=False)))
        return paused.get(of_age, [])[: self._of(self.size)]

    def _of(self, n: int) -> int:
        return math.floor(self.share * n + 1e-9)

    def _missing(self, trials: Sequence[FrozenTrial]) -> int:
        """How many founders the population lacks; trials that have no answers yet are none of them."""
        n = sum(_is_founder(trial) for trial in trials)
        return self.size - n if n < self.size else -n % self.size

    def _turn(
        self, study: Study, trials: Sequence[FrozenTrial], *, n_children: int = 0, last: bool = False
    ) -> _Birth | FrozenTrial | None:
        """What is to be done next, at the lowest age first: a child begins, or a paused trial goes on.

        Args:
            n_children: Of so many trials that have no answers yet, each takes the place of a child before.
            last: Whether no child may begin any more.
        """
        under_way = [trial for trial in trials if _is_under_way(trial)]
        # A parent's state is read until its child has one of its own.
        read = {record.PARENT.of(trial) for trial in under_way if not record.n_reports(trial)}
        for of_age, paused in self._paused(study, trials):
            came, born = _came(trials, of_age), _born(trials, of_age)
            due = self._of(len(came))
            taken = max(0, min(due - born, n_children))
            n_children -= taken
            if not last and due - born > taken:
                return _Birth(paused[: self._of(self.size)])
            stay = {trial.number for trial in paused if trial.number in read}
            coming = sum(_is_coming(trial, of_age) for trial in under_way)
            if coming and not last:
                # With them more children will be due, whose parents shall be the best, and more make room.
                stay |= {trial.number for trial in paused[: self._of(self.size)]}
                due = self._of(max(len(came) + coming, self.size))
            left = sum(age(trial) > of_age or _is_under_way(trial) for trial in came)
            free = [trial for trial in paused if trial.number not in stay]
            if free and left + len(stay) < len(came) - (born if last else due):
                return free[0]
        return None

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


@dataclass(frozen=True)
class _Birth:
    """A child is to begin, of one of these."""

    parents: Sequence[FrozenTrial]


def age(trial: FrozenTrial) -> int:
    """The number of reports behind it, with those of its ancestors until it was born."""
    return (record.BORN.of(trial) or 0) + record.n_reports(trial)


def _came(trials: Sequence[FrozenTrial], of_age: int) -> list[FrozenTrial]:
    """Those that have reached an age by themselves."""
    return [t for t in trials if age(t) >= of_age > (record.BORN.of(t) or 0) and t.state != TrialState.FAIL]


def _born(trials: Sequence[FrozenTrial], of_age: int) -> int:
    return sum(record.BORN.of(trial) == of_age and trial.state != TrialState.FAIL for trial in trials)


def _is_under_way(trial: FrozenTrial) -> bool:
    """Whether it runs, or waits for the next worker that is free."""
    return trial.state == TrialState.RUNNING or (trial.state == TrialState.WAITING and not is_held(trial))


def _is_undecided(trial: FrozenTrial) -> bool:
    """Whether it has no answers yet, and may become a founder or a child."""
    return _is_under_way(trial) and not trial.params and record.BORN.of(trial) is None


def _undecided(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if _is_undecided(trial)]


def _is_founder(trial: FrozenTrial) -> bool:
    if record.BORN.of(trial) is not None or _is_undecided(trial):
        return False
    return record.counts(trial) or not trial.state.is_finished()


def _is_coming(trial: FrozenTrial, of_age: int) -> bool:
    """Whether a trial that is under way may yet pause at an age."""
    goes_on = record.LET_GO_ON.of(trial) == record.n_reports(trial)
    return (record.BORN.of(trial) or 0) < of_age and age(trial) <= of_age - goes_on


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
        trials = study.get_trials(deepcopy=False)
        mine = next(other for other in trials if other.number == trial.number)
        if (chosen := record.PARENT.of(mine)) is not None:  # by an earlier draw, or attempt
            [parent] = [other for other in trials if other.number == chosen]
            born = record.BORN.of(mine)
            assert born is not None, "they are written together"
        elif parents := self.population.parents(study, trial):
            parent = parents[rng.integers(len(parents))]
            born = age(parent)
            record.BORN.write(study, trial, born)
            record.PARENT.write(study, trial, parent.number)
        else:
            return keep_or_draw({}, rng)
        others = [other for other in self.population.best(study, born) if other.number != parent.number]
        taken = dict(parent.params)
        for group in sorted({name.rpartition(".")[0] for name in taken}):
            if others and rng.random() < self.population.mix:
                other = others[rng.integers(len(others))]
                taken |= {n: v for n, v in other.params.items() if n.rpartition(".")[0] == group}
        keep = keep_or_draw(taken, rng)

        def pick(name: str, distribution: BaseDistribution) -> Any:
            kept = keep(name, distribution)
            if name in taken and isinstance(distribution, FloatDistribution) and distribution.step is None:
                moved = kept * FACTORS[rng.integers(len(FACTORS))]
                return min(max(moved, distribution.low), distribution.high)
            return kept

        return pick
