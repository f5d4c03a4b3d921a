"""Pruners that stop a training for a while, and let it go on later.

The asynchronous successive halving of Li et al. (MLSys 2020, arXiv:1810.05934): a training stops at a rung
unless it is among the best that came so far, and goes on from there, in place, once it is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.storage.base import is_held
from optnas.surrogate.standing import Observed, observe, ranks, standings

AGREEMENT = 0.75
"""Rank correlation with the next report from which on a report says something of a training."""

STEPS = 4
"""How gradually more and more are let go on when no new trial may begin."""


class PromotingPruner(BasePruner, ABC):
    """The base class of pruners that pause a training, and say which paused one goes on next.

    `optnas.optimize` asks it before each new trial. Under `study.optimize`, and with an estimator that cannot
    go on, what it stops is pruned for good.

    Attributes:
        most_paused: The largest number of paused trials, each of which keeps a state on disk; of more, the
            least promising are pruned for good.

    Examples:
        >>> isinstance(optnas.HalvingPruner(), optnas.strategy.PromotingPruner)
        True
    """

    most_paused: int = 50

    exact: bool = False
    """Whether it decides by the whole study who begins and who goes on, so that no two workers may decide by
    the same: what `begins` or `promote` says holds while nothing has begun, gone on or paused since."""

    def begins(self, study: Study) -> bool:
        """Whether a new trial may begin now, while nothing that is paused goes on; else, one waits."""
        return True

    @abstractmethod
    def promote(self, study: Study, *, last: bool) -> FrozenTrial | None:
        """The paused trial to go on with now, if any.

        Args:
            study: Its paused trials are those that are WAITING and held (`optnas.storage.base.is_held`).
            last: Whether no new trial may begin any more, so that what is left to do is to finish trials.
        """

    @abstractmethod
    def ranked(self, study: Study, paused: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Paused trials, the most promising first: those that are kept where not all can be."""


class HalvingPruner(PromotingPruner):
    """Pauses all but the best third at each rung; a paused training goes on once it is among that third.

    Rungs are numbers of reports: the first, `spacing` times as many, and so on. The first rung is the first
    report that predicts the next one: a report made before training or during a warm-up, which ranks the
    trials in another order than the next report does (rank correlation below 0.75 over the first
    `n_startup_trials`), is not a rung. Trials are compared by the best of their reports so far. A trial that
    is ahead of all others at a rung goes on.

    When no new trial may begin, more and more paused ones go on, the most promising first, until a share of
    about `finish` of all has been completed (rounded down at each rung, so that of four trials one is).

    Chosen by experiment (studies/benchmarks/pruners.py).

    Args:
        eta: One of this many trials at a rung goes on at once.
        spacing: Each rung comes after this many times as many reports as the one before.
        n_startup_trials: This many trials make one report more than the others, to find the first rung.
        finish: Share of the trials that is completed, if the number of trials is given.
        most_paused: See `PromotingPruner`.

    Raises:
        ValueError: an argument is out of its range.

    Examples:
        >>> halving = optnas.create_study(objective, pruner=optnas.HalvingPruner(finish=0.5))
    """

    def __init__(
        self,
        eta: float = 3.0,
        spacing: float = 2.0,
        n_startup_trials: int = 12,
        finish: float = 0.4,
        most_paused: int = 50,
    ) -> None:
        if not eta > 1 or not spacing > 1:
            raise ValueError(f"eta={eta} and spacing={spacing} must both be above 1.")
        if n_startup_trials < 4:
            raise ValueError(f"n_startup_trials={n_startup_trials}: fewer than 4 show no correlation.")
        if not 0 < finish <= 1:
            raise ValueError(f"finish={finish} must be above 0 and at most 1.")
        if most_paused < 1:
            raise ValueError(f"most_paused={most_paused} must be at least 1.")
        self.eta, self.spacing, self.most_paused = float(eta), float(spacing), most_paused
        self.n_startup_trials, self.finish = n_startup_trials, float(finish)
        self._first: dict[int, int] = {}  # of each study, once it is known
        self._observed: dict[tuple[int, int], tuple[object, list[Observed]]] = {}

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether it stops here."""
        n_reports = len(trial.intermediate_values)
        if record.LET_GO_ON.of(trial) == n_reports:
            return False
        known = self._observe(study)
        if not self._is_rung(n_reports, self._first_rung(study, known)):
            return False
        return trial.number not in _leaders(known, n_reports, 1 / self.eta)

    def promote(self, study: Study, *, last: bool) -> FrozenTrial | None:
        """The furthest of those that are among the best at their rung; with `last`, of ever more of these."""
        # Asked for WAITING ones alone, Optuna's storage in memory leaves out those that wait again.
        waiting = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.WAITING]
        paused = {trial.number: trial for trial in waiting if is_held(trial)}
        if not paused:
            return None
        known = self._observe(study)
        n_reports = {o.trial.number: len(o.best) for o in known if o.trial.number in paused}
        rungs = sorted(set(n_reports.values()), reverse=True)
        for share in self._shares(study, known) if last else [1 / self.eta]:
            for rung in rungs:
                leaders = _leaders(known, rung, share)
                if last and sum(len(o.best) > rung for o in known) >= len(leaders):
                    continue  # so many went on when they were among the best
                for number in leaders:
                    if n_reports.get(number) == rung:
                        return paused[number]
        return None

    def ranked(self, study: Study, paused: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """As they stand to all others."""
        known = self._observe(study)
        scores = {o.trial.number: score for o, score in zip(known, standings(known).tolist(), strict=True)}
        return sorted(paused, key=lambda trial: (scores.get(trial.number, math.inf), trial.number))

    def _observe(self, study: Study) -> list[Observed]:
        """As `observe`, of which only is done again what has changed."""
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        found = []
        for trial in study.get_trials(deepcopy=False):
            place = private.place(study, trial)
            now = trial.state, len(trial.intermediate_values)
            before, known = self._observed.get(place, (None, []))
            if before != now:
                known = observe([trial], sign)
                self._observed[place] = now, known
            found += known
        return found

    def _shares(self, study: Study, known: Sequence[Observed]) -> Iterable[float]:
        """Of those at a rung that may go on, from few to as many as end with `finish` of all."""
        longest = max((len(o.best) for o in known), default=1)
        n_rungs = max(1, math.ceil(math.log(longest / self._first_rung(study, known), self.spacing)))
        most = max(self.finish ** (1 / n_rungs), 1 / self.eta)
        return [float(share) for share in np.geomspace(1 / self.eta, most, STEPS)]

    def _first_rung(self, study: Study, known: Sequence[Observed]) -> int:
        """The first report that says something; until that is known, the one after the first that may."""
        place = private.study_id(study)
        rung, last = 1, -1
        while place not in self._first:
            # Those that began before were judged by the rung before: they are no fair sample.
            judged = [o for o in known if o.trial.number > last and len(o.best) > rung]
            judged = judged[: self.n_startup_trials]
            if len(judged) < self.n_startup_trials:
                return rung + 1
            last = judged[-1].trial.number
            now, after = (np.array([_report(o, n) for o in judged]) for n in (rung, rung + 1))
            if np.ptp(now) > 0 and np.ptp(after) > 0 and _spearman(now, after) >= AGREEMENT:
                self._first[place] = rung
            else:
                rung = math.ceil(rung * self.spacing)
        return self._first[place]

    def _is_rung(self, n_reports: int, first: int) -> bool:
        rung = first
        while rung < n_reports:
            rung = math.ceil(rung * self.spacing)
        return rung == n_reports


def _leaders(known: Sequence[Observed], rung: int, share: float) -> list[int]:
    """Numbers of the best of those that came so far, the best first; one at least."""
    came = [o for o in known if len(o.best) >= rung or _ended_before(o)]
    order = sorted((o.after(rung), o.trial.number) for o in came)
    return [number for _, number in order[: max(1, math.floor(len(order) * share + 1e-9))]]


def _ended_before(observed: Observed) -> bool:
    """Whether it came to its value in fewer reports than others make."""
    final = observed.final
    return final is not None and math.isfinite(final) and len(observed.best) > 0


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def _report(observed: Observed, n: int) -> float:
    """The n-th report itself."""
    return sorted(observed.trial.intermediate_values.items())[n - 1][1]
