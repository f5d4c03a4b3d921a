"""Local search (White, Nolen & Savani, UAI 2021, arXiv:2005.02960) on any conditional space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas import private
from optnas.answers import Key, Pick, draw, is_continuous, keep_or_draw, key, options, params_key, same
from optnas.pareto import losses, standing
from optnas.record import CHANGED, PARENT, START, TRIED
from optnas.strategy.base import TrialSampler, fixed_params, sound_trials

MANY = 32
RANDOM_STEPS = 4


class LocalSearchSampler(TrialSampler):
    """Tries the neighbors of the best architecture in random order, and moves as soon as one is better.

    The first `n_start` trials are random; the search starts from the best of them. A neighbor differs in one
    decision (one with more than 32 answers is changed to four random ones); decisions that still appear keep
    their answers, those that newly appear are answered at random. When no neighbor is better, the search
    starts again from a new random architecture. The space need not be known.

    Of several objectives, it tries the neighbors of the front (Pareto local search, Paquete et al. 2004):
    first those of the member with the most room around it that still has untried neighbors.

    The trial's system attributes `optnas:parent` (a trial's number), `optnas:changed` (a decision's name) and
    `optnas:tried` (its new answer) tell the path; `optnas:start` is the number of the trial at which the
    search last started again.

    Args:
        n_start: Random trials before the first search.
        seed: See `TrialSampler`.

    Raises:
        ValueError: `n_start` is not positive.

    Examples:
        >>> local = optnas.create_study(
        ...     objective, sampler=lambda seed: optnas.LocalSearchSampler(seed=seed), seed=1
        ... )
        >>> optnas.optimize(local, objective, n_trials=12)
        >>> optnas.record.PARENT.of(local.trials[-1]) is not None
        True
    """

    several = True

    def __init__(self, n_start: int = 10, seed: int | None = None) -> None:
        if n_start < 1:
            raise ValueError(f"n_start={n_start}: the search needs at least one trial to start from.")
        super().__init__(seed)
        self.n_start = n_start

    def prepare(self, study: Study, trial: FrozenTrial, rng: np.random.Generator) -> Pick:
        """Choose a neighbor of where the search stands that was not tried, or a new start."""
        done = sound_trials(study)
        if len(done) < self.n_start:
            return keep_or_draw({}, rng)
        starts = [START.of(t) for t in done]
        start = max((number for number in starts if number is not None), default=None)
        # Of one objective, from where it last started again; of several, from wherever the front is.
        path = [t for t in done if len(study.directions) > 1 or START.of(t) == start]
        front = private.ranks(losses(study, path)) == 0
        in_order = sorted(zip(standing(study, path), path, front, strict=True), key=lambda found: found[0])
        leaders = [t for _, t, leads in in_order if leads][: None if len(study.directions) > 1 else 1]
        tries = ((leader, self._untried(study, trial, leader, rng)) for leader in leaders)
        current, untried = next((found for found in tries if found[1]), (None, []))
        if current is None:
            START.write(study, trial, trial.number)
            return keep_or_draw({}, rng)
        changed, value = untried[rng.integers(len(untried))]
        CHANGED.write(study, trial, changed)
        TRIED.write(study, trial, value)
        if start is not None:
            START.write(study, trial, start)
        PARENT.write(study, trial, current.number)  # the last: where it is, other workers look for the rest
        return keep_or_draw({**current.params, changed: value}, rng)

    def _untried(
        self, study: Study, trial: FrozenTrial, current: FrozenTrial, rng: np.random.Generator
    ) -> list[tuple[str, Any]]:
        """The changes (decision, answer) of `current` that no trial has made or is making."""
        others = study.get_trials(deepcopy=False)
        made = [(CHANGED.of(t) or "", key(TRIED.of(t))) for t in others if PARENT.of(t) == current.number]
        seen = {params_key(t.params) for t in others if t.state.is_finished()}
        fixed = fixed_params(trial)
        return [
            (name, value)
            for name, distribution in current.distributions.items()
            if name not in fixed
            for value in _others(name, distribution, made, rng)
            if (name, key(value)) not in made
            and not same(value, current.params[name])
            and params_key({**current.params, name: value}) not in seen
        ]


def _others(
    name: str, distribution: BaseDistribution, made: list[tuple[str, Key]], rng: np.random.Generator
) -> Sequence[Any]:
    """What a decision can be changed to: every option, or random values where there are many."""
    if distribution.single():
        return ()
    if not is_continuous(distribution) and len(options(name, distribution)) <= MANY:
        return options(name, distribution)
    left = RANDOM_STEPS - sum(changed == name for changed, _ in made)
    return [draw(distribution, rng) for _ in range(left)]
