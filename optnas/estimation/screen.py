"""Not training what a cheap fact finds poor."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import nn

from optnas import private, record
from optnas.estimation.around import Around
from optnas.estimation.estimator import Estimator, as_estimator
from optnas.estimation.run import Run
from optnas.facts.fact import Fact


class Screen(Around):
    """Estimates a network only if a fact ranks it high among all networks that the study has proposed.

    `Objective(space, Screen(Training(...), score), facts=[score])` with `score = zero_cost(naswot)`. A
    network whose fact is not in the better `keep` of all trials that have it is not estimated: its trial ends
    PRUNED with a constraint and does not count toward `n_trials`. A network without the fact is estimated.

    Args:
        estimator: scores the networks that pass.
        fact: one of `Objective(facts=...)`.
        keep: the share of proposals that passes, above 0 and at most 1.
        startup: number of trials that are estimated before any is refused.
        larger: whether a network with a larger fact is more promising.

    Raises:
        ValueError: `keep` or `startup` out of range.

    Examples:
        >>> naswot = optnas.facts.zero_cost(optnas.facts.naswot)
        >>> screened = optnas.Objective(
        ...     space, optnas.Screen(training, naswot, keep=0.3), facts=[naswot]
        ... )
    """

    def __init__(
        self,
        estimator: Estimator | Callable[..., Mapping[str, float]],
        fact: Fact,
        *,
        keep: float = 0.5,
        startup: int = 10,
        larger: bool = True,
    ) -> None:
        if not 0 < keep <= 1:
            raise ValueError(f"Screen(keep={keep}): give a share above 0 and at most 1.")
        if startup < 1:
            raise ValueError(f"Screen(startup={startup}): at least one trial must be estimated first.")
        self.estimator = as_estimator(estimator)
        self.fact = fact
        self.keep = keep
        self.startup = startup
        self.larger = larger

    def __call__(self, model: nn.Module, run: Run, /) -> Mapping[str, float]:
        if not run.lone and not private.stored(run).intermediate_values:  # what has begun goes on
            self._judge(run)
        return self.estimator(model, run)

    def _judge(self, run: Run) -> None:
        """Refuse the trial if it is among the less promising.

        Raises:
            optuna.TrialPruned: it is.
            ValueError: the objective does not measure the fact.
        """
        name = self.fact.name
        mine = record.facts(run).get(name)
        if mine is None:
            if name not in (record.MISSING.of(run) or {}):
                raise ValueError(
                    f"Screen needs the fact {name!r} in every trial: give it to Objective(facts=[...]) too."
                )
            return
        others = [t for t in run.study.get_trials(deepcopy=False) if t.number != run.number]
        known = np.array([f[name] for f in map(record.facts, others) if name in f])
        if sum(map(record.counts, others)) < self.startup or not len(known):
            return
        worse = known < mine if self.larger else known > mine
        rank = float(np.mean(worse) + np.mean(known == mine) / 2)  # 1: better than all others
        if rank < 1 - self.keep:
            run.refuse(
                f"screen:{name}",
                1 - self.keep - rank,
                f"its {self.fact.title or name}, {mine:.5g}, is better than that of only {rank:.0%} of "
                f"{len(known)} networks; those above {1 - self.keep:.0%} are trained",
            )
