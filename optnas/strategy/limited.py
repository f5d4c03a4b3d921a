"""No trial for what breaks a limit that can be computed: let any sampler answer, but within the limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas import record
from optnas.answers import ParamsKey, params_key
from optnas.errors import SpaceExhausted
from optnas.limits import Within
from optnas.space.explore import walk
from optnas.strategy.base import expected_params
from optnas.strategy.inner import Inner, PlanningSampler
from optnas.strategy.ways import Params, Ways
from optnas.trial import Draw, Space, replay

REDRAWS = 30
STUBBORN = 3


class LimitedSampler(PlanningSampler):
    """Lets any sampler propose only networks within the limits that can be computed before training.

    Before a trial asks its first question, the space is replayed through the inner sampler. If what comes out
    breaks a limit, it is drawn again, at most 30 times, or until the same came three times in a row; then
    decisions are changed one by one until all limits are kept. A trial whose enqueued answers break one keeps
    them: it is refused when it runs, and says why.

    Args:
        sampler: Any sampler of a single- or multi-objective study.
        space: Asks everything that a trial asks; see `DistinctSampler`.
        within: Says which params keep the limits: `Objective.within`.
        seed: Seed of the changes; see `TrialSampler`.

    Raises:
        SpaceExhausted: (from the trial's first question) nothing that keeps the limits was found; the message
            has how near to each of them anything came.

    Examples:
        >>> limited = optnas.Objective(
        ...     space, score, values={"score": "maximize"}, example=example, limits={"n_params": 2000}
        ... )
        >>> sampler = optnas.strategy.LimitedSampler(
        ...     optuna.samplers.RandomSampler(seed=0), space, limited.within
        ... )
        >>> small = optuna.create_study(sampler=sampler)
        >>> small.optimize(
        ...     lambda trial: float(
        ...         optnas.count_params(optnas.facts.materialize(space(trial), example))
        ...     ),
        ...     5,
        ... )
        >>> max(trial.value for trial in small.trials) <= 2000
        True
    """

    def __init__(
        self, sampler: BaseSampler, space: Space[Any], within: Within, seed: int | None = None
    ) -> None:
        super().__init__(sampler)
        self.space = space
        self.within = within
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed

    def plan(
        self, study: Study, trial: FrozenTrial
    ) -> tuple[Inner, Mapping[str, Any], Mapping[str, BaseDistribution]]:
        """The answers to all questions of the space."""
        fixed = expected_params(trial)
        inner, drawn, redraws = self._draw(study, trial, fixed)
        params: Params = drawn.params
        how = "redrawn" if redraws else "drawn"
        if not self.within(params):
            rng = np.random.default_rng((self.seed, trial.number))
            candidates = Ways(self.space, fixed, rng, self.within).all(drawn)
            found = next(candidates, (params, "repeat") if fixed else None)
            if found is None:
                raise SpaceExhausted(f"Nothing within the limits was found: {self.within}.")
            params, how = found
        record.PLAN.write(study, trial, {"params": dict(params), "how": how, "redraws": redraws})
        planned = replay(params)
        walk(self.space, planned)
        return inner, planned.params, planned.distributions

    def _draw(self, study: Study, trial: FrozenTrial, fixed: Mapping[str, Any]) -> tuple[Inner, Draw, int]:
        before: list[ParamsKey] = []
        while True:
            inner = Inner(self.sampler, study, trial, fixed)
            drawn = Draw(inner)
            walk(self.space, drawn)
            stubborn = before[-STUBBORN:] == [params_key(drawn.params)] * STUBBORN
            if self.within(drawn.params) or stubborn or len(before) == REDRAWS:
                return inner, drawn, len(before)
            before.append(params_key(drawn.params))
