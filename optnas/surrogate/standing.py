"""What trials tell about values, and how they stand to each other where some stopped early.

An early report is no final value: taken for one, every network that a pruner stopped looks bad. Two trainings
can be compared at the last report that both have made, and so all of them be ranked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from optnas.record import Reason, Why

Array = NDArray[np.float64]

FEWEST_ENDED = 3
"""From so many trials that ended on can be told what their early reports said."""

MOST_STOPS = 4
"""How many places, of those where most trials stopped, are looked at for how the others stood there."""


@dataclass(frozen=True)
class Observed:
    """What is known of the value of a trial, as losses: lower is better.

    Attributes:
        trial: Finished, running or paused.
        final: Its value; infinite of one that diverged; None of one that stopped early or goes on.
        best: The best of its first report, of its first two, and so on, `(number of reports,)`.
    """

    trial: FrozenTrial
    final: float | None
    best: Array

    def after(self, n_reports: int) -> float:
        """The best of its first reports; of one that ended with fewer, what it came to; NaN: not known."""
        if len(self.best) >= n_reports and self.final != np.inf:
            return float(self.best[n_reports - 1])
        return np.nan if self.final is None or not len(self.best) else self.final

    def until(self, n_reports: int) -> Observed:
        """What was known after so many reports."""
        final = None if len(self.best) >= n_reports else self.final
        return Observed(self.trial, final, self.best[:n_reports])


def observe(trials: Iterable[FrozenTrial], sign: float) -> list[Observed]:
    """The trials that tell something: those with a value, and those that reported, unless infeasible or FAIL.

    Args:
        trials: Any of one study.
        sign: What makes a loss of a value: -1.0 where the study maximizes.
    """
    found = []
    for trial in trials:
        if trial.state == TrialState.FAIL or not is_feasible(trial):
            continue
        reports = sign * np.array([value for _, value in sorted(trial.intermediate_values.items())])
        n_finite = int(np.argmin(np.append(np.isfinite(reports), False)))
        best = np.minimum.accumulate(reports[:n_finite])
        if trial.state == TrialState.COMPLETE:
            if np.isfinite(trial.values[0]):
                found.append(Observed(trial, sign * trial.values[0], best))
        elif n_finite < len(reports) or _diverged(trial):
            found.append(Observed(trial, np.inf, best))
        elif n_finite:
            found.append(Observed(trial, None, best))
    return found


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial keeps all its constraints, or has none.

    Examples:
        >>> optnas.surrogate.is_feasible(study.best_trial)
        True
    """
    return all(value <= 0 for value in trial.constraints.values())


def _diverged(trial: FrozenTrial) -> bool:
    reason = Reason.of(trial)
    return trial.state == TrialState.PRUNED and reason is not None and reason.kind is Why.DIVERGED


def standings(observed: Sequence[Observed]) -> Array:
    """How each stands to all others, `(n,)`, as a standard normal score: lower is better.

    Two trials are compared by their final losses, or, where one of them has none, by the best that both had
    reported when it stopped; one of which no report is known is level with it. Ranked are the shares of the
    others that are better.
    """
    n = len(observed)
    finals = np.array([np.inf if o.final is None else o.final for o in observed])
    ended = np.array([o.final is not None for o in observed], dtype=bool)
    lengths = np.array([0 if o.final is not None else len(o.best) for o in observed])
    better = np.zeros((n, n))  # whether j is better than i, in row i; 1/2 where they are level
    better[np.ix_(ended, ended)] = _better(finals[ended], finals[ended])
    for length in np.unique(lengths[~ended]):
        at = np.array([o.after(length) for o in observed])
        here = (lengths == length) & ~ended
        others = ended | (lengths >= length)
        found = _better(at[here], at[others])
        better[np.ix_(here, others)] = found
        better[np.ix_(others, here)] = 1.0 - found.T
    shares = (better.sum(axis=1) - 0.5) / max(1, n - 1)
    return normal(np.round(shares, 12))


def by_report(observed: Sequence[Observed]) -> tuple[list[int], Array, Array]:
    """How trials stand at their end, and how all stood where others stopped, one by one.

    What an early report says of the end is not the same for all: with a high learning rate a training is
    ahead at first, and behind later. Who has both of some trials can learn what it says.

    Returns:
        Of each row the index of its trial; its standing, `(rows,)`; and after which share of the longest
        training, `(rows,)`: 1.0 where it ended. Of fewer than `FEWEST_ENDED` trials that ended nothing can be
        learned: all rows have a share of 1.0 then.
    """
    scores = standings(observed)
    finals = {i: o.final for i, o in enumerate(observed) if o.final is not None}
    stops = Counter(len(o.best) for o in observed if o.final is None)
    if not stops or len(finals) < FEWEST_ENDED:
        return list(range(len(observed))), scores, np.ones(len(observed))
    ended = list(finals)
    # They keep their place among all, and stand to each other as they ended.
    at_end = normal(np.array(list(finals.values())))
    if spread := float(at_end.std()):
        scores[ended] = scores[ended].mean() + (float(scores[ended].std()) or 1.0) / spread * at_end
    longest = max(len(o.best) for o in observed)
    rows = [(i, scores[i], 1.0) for i in ended]
    for n_before, (stop, _) in enumerate(stops.most_common()):
        at = standings([o.until(stop) for o in observed])
        passed = [i for i in ended if len(observed[i].best) >= stop] if n_before < MOST_STOPS else []
        stopped = [i for i, o in enumerate(observed) if o.final is None and len(o.best) == stop]
        share = stop / max(longest, stop + 1)  # one that has made all its reports may not have ended yet
        rows += [(i, at[i], share) for i in (*passed, *stopped)]
    trials, found, shares = zip(*rows, strict=True)
    return list(trials), np.array(found), np.array(shares)


def normal(losses: Array) -> Array:
    """Normal scores: those that as many numbers of a standard normal distribution have by their ranks."""
    from scipy.special import ndtri  # only here: it takes half a second to import

    scores: Array = ndtri((ranks(losses) - 0.5) / max(1, len(losses)))
    return scores


def ranks(numbers: Array) -> Array:
    """Of each number its place from below, from 1; equal numbers share the mean of their places.

    As `scipy.stats.rankdata`: to import that takes a second, of every process that searches.
    """
    _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    shared: Array = (counts.cumsum() - (counts - 1) / 2)[inverse]
    return shared


def _better(losses: Array, others: Array) -> Array:
    """1 where the other is lower, 1/2 where it is equal or one is not known, `(losses, others)`."""
    level = (others[None] == losses[:, None]) | np.isnan(others[None]) | np.isnan(losses[:, None])
    return np.where(level, 0.5, others[None] < losses[:, None])
