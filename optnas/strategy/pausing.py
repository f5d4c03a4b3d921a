"""Pruning with several objectives that loses nothing: pause what is behind, and let it catch up later."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas import pareto, private, record
from optnas.pareto import MultiObjectivePruner
from optnas.storage.base import is_held
from optnas.strategy.front_pruner import reported
from optnas.strategy.halving import PromotingPruner
from optnas.surrogate.standing import Observed, observe

Array = NDArray[np.float64]

FEWEST = 4
"""Of so many trainings it is known how much they gain after a report; of fewer, nothing is given up."""


class PausingFrontPruner(PromotingPruner, MultiObjectivePruner):
    """Pauses a trial that is behind others of its cost, and lets it go on if it may still catch up.

    All objectives but one must be facts, which are known before training; rivals of a trial are those that
    are as good in all of them (see `FrontPruner`). Rungs are numbers of reports: `first`, `spacing` times as
    many, and so on. A trial is ahead at a rung if the best of its reports so far is at least as good as that
    of each rival at the same rung. What is ahead goes on; what is not pauses.

    Completed trials show how far behind is too far. Each of them gained something between the rung and its
    end; the chance of a trial is the share of all pairs of them in which one gained more than the other by as
    much as the trial is behind. When no new trial may begin, the paused trials go on, the one with the best
    chance first, until none has a chance of `chance`; the others are pruned.

    Chosen by experiment (studies/benchmarks/front_pruners.py).

    Args:
        first: Number of reports at the first rung.
        spacing: Each rung comes after this many times as many reports as the one before.
        chance: A trial with a smaller chance does not go on.
        most_paused: See `PromotingPruner`. With fewer, less of the disk is used and members of the front are
            lost: of 21, on average 0.2 with 150, 0.8 with 100 and 5.3 with 50 (265 trainings).

    Raises:
        ValueError: an argument is out of its range; or (when it is asked) an objective but the reported one
            is not a fact of the trial.

    Examples:
        >>> paused = optnas.create_study(two, pruner=optnas.strategy.PausingFrontPruner(first=1))
    """

    def __init__(
        self, first: int = 2, spacing: float = 2.0, chance: float = 0.005, most_paused: int = 300
    ) -> None:
        if first < 1 or not spacing > 1:
            raise ValueError(f"first={first} must be at least 1, and spacing={spacing} above 1.")
        if not 0 < chance < 1:
            raise ValueError(f"chance={chance} must be between 0 and 1.")
        if most_paused < 1:
            raise ValueError(f"most_paused={most_paused} must be at least 1.")
        self.first, self.spacing = first, float(spacing)
        self.chance, self.most_paused = float(chance), most_paused
        self._observed: dict[tuple[int, int], tuple[object, list[Observed]]] = {}

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether it pauses here."""
        objective = reported(study, trial)
        n_reports = record.n_reports(trial)
        if record.LET_GO_ON.of(trial) == n_reports or not self._is_rung(n_reports):
            return False
        return self._race(study, objective).behind(trial.number, n_reports) > 0

    def promote(self, study: Study, *, last: bool) -> FrozenTrial | None:
        """When no new trial may begin, the paused one with the best chance, if that is enough."""
        paused = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.WAITING and is_held(t)]
        if not last or not paused:
            return None
        race = self._race(study, reported(study, paused[0]))
        chances = [race.chance(trial.number) for trial in paused]
        best = int(np.argmax(chances))
        return paused[best] if chances[best] >= self.chance else None

    def ranked(self, study: Study, paused: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Paused trials, the one with the best chance first."""
        if not paused:
            return []
        race = self._race(study, reported(study, paused[0]))
        return sorted(paused, key=lambda trial: (-race.chance(trial.number), trial.number))

    def _race(self, study: Study, objective: int) -> _Race:
        names, signs = study.metric_names or [], pareto.signs(study)
        others = [i for i in range(len(names)) if i != objective]
        numbers, costs, seen = [], [], []
        for trial in study.get_trials(deepcopy=False):
            facts = record.facts(trial)
            if all(names[i] in facts for i in others):
                for observed in self._observe(study, trial, objective, float(signs[objective])):
                    numbers.append(trial.number)
                    costs.append([signs[i] * facts[names[i]] for i in others])
                    seen.append(observed)
        return _Race(numbers, np.array(costs), seen)

    def _observe(self, study: Study, trial: FrozenTrial, objective: int, sign: float) -> list[Observed]:
        """As `observe`, done again only of what has changed."""
        place, now = private.place(study, trial), (trial.state, record.n_reports(trial))
        before, known = self._observed.get(place, (None, []))
        if before != now:
            known = observe([pareto.as_one(study, trial, objective)], sign)
            self._observed[place] = now, known
        return known

    def _is_rung(self, n_reports: int) -> bool:
        rung = self.first
        while rung < n_reports:
            rung = math.ceil(rung * self.spacing)
        return rung == n_reports


class _Race:
    """The trials of a study by the one objective that changes, and by what they cost."""

    def __init__(self, numbers: Sequence[int], costs: Array, seen: Sequence[Observed]) -> None:
        self._at = {number: i for i, number in enumerate(numbers)}
        self._costs, self._seen = costs, seen
        self._after: dict[int, Array] = {}
        self._gains: dict[int, Array] = {}

    def after(self, n_reports: int) -> Array:
        """The best of so many reports of each, `(n,)`; NaN where it made fewer."""
        if n_reports not in self._after:
            self._after[n_reports] = np.array([seen.after(n_reports) for seen in self._seen])
        return self._after[n_reports]

    def behind(self, number: int, n_reports: int) -> float:
        """How much better the best rival was after as many reports; 0 or less: nobody was."""
        i = self._at.get(number)
        if i is None or not len(self._seen[i].best):  # it breaks a limit, or diverged at once
            return 0.0
        after = self.after(n_reports)
        rivals = (self._costs <= self._costs[i]).all(axis=1)
        rivals[i] = False
        return float(after[i] - np.nanmin(after[rivals], initial=np.inf))

    def chance(self, number: int) -> float:
        """That it ends ahead of the rival that is ahead of it now, as far as completed trials tell."""
        if number not in self._at:
            return 0.0
        n_reports = len(self._seen[self._at[number]].best)
        behind, more = self.behind(number, n_reports), self._more_gained(n_reports)
        if behind <= 0 or len(more) < FEWEST * (FEWEST - 1):
            return 1.0
        return float((len(more) - np.searchsorted(more, behind) + 0.5) / (len(more) + 1))

    def _more_gained(self, n_reports: int) -> Array:
        """By how much more one trial gained after so many reports than another, of all pairs, sorted."""
        if n_reports not in self._gains:
            finals = np.array([np.nan if seen.final is None else seen.final for seen in self._seen])
            long = np.array([len(seen.best) >= n_reports for seen in self._seen])
            gains = (self.after(n_reports) - finals)[long & np.isfinite(finals)]
            pairs = gains[:, None] - gains[None, :]
            self._gains[n_reports] = np.sort(pairs[~np.eye(len(gains), dtype=bool)])
        return self._gains[n_reports]
