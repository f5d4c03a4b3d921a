"""What the cheap scores of networks say of whole ones, where a study has both (`Screening`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from optnas import record
from optnas.surrogate.standing import is_feasible, normal, ranks

Array = NDArray[np.float64]

FEWEST = 4
"""Of fewer networks that have both nobody can tell."""

BELIEF = 0.55, 0.35
"""What is believed of a cheap score beforehand: mean and standard deviation of the inverse hyperbolic tangent
of its rank correlation (the mean is a correlation of 0.5)."""

NONE = 0.2
"""A rank correlation below is as good as none."""


@dataclass(frozen=True)
class Worth:
    """How well cheap scores rank networks, by those that were estimated in full.

    Those were chosen for their cheap scores, so they differ less in them than all that were screened, and
    rank correlation is smaller among them. What it is among all follows from how much less they differ
    (Thorndike, Personnel Selection, 1949, case 2), as far as cheap and whole scores go together evenly.

    Attributes:
        name: of the cheap score.
        n_screened: networks that have it.
        n: networks that have a whole score, too.
        among: rank correlation (Spearman) among these.
        correlation: among all that were screened: expected, from these and from what is believed beforehand.
        low, high: it is between these with a probability of 95 %.

    Examples:
        >>> from optnas.surrogate.screened import Worth
        >>> found = Worth("val_acc", n_screened=100, n=12, among=0.4, correlation=0.6, low=0.3, high=0.8)
        >>> found.is_none
        False
    """

    name: str
    n_screened: int
    n: int
    among: float
    correlation: float
    low: float
    high: float

    @property
    def is_none(self) -> bool:
        """Whether it is as good as none, as far as anybody can tell."""
        return self.correlation < NONE

    @property
    def words(self) -> str:
        """That in a sentence."""
        return (
            f"{self.n_screened} networks were screened by {self.name}, and {self.n} of them were estimated "
            f"in full. It ranks these with a correlation of {self.among:.2f}; among all that were screened "
            f"that means about {self.correlation:.2f} ({self.low:.2f} to {self.high:.2f})."
        )


def cheap_loss(trial: FrozenTrial) -> float | None:
    """The cheap score of a trial, lower for the better; None where it has none."""
    about = record.SCREENED.of(trial) or {}
    value = record.amount(about.get("value"))
    return None if value is None else float(-value if about.get("better") == "higher" else value)


def worth(trials: Iterable[FrozenTrial], sign: float) -> Worth | None:
    """What cheap scores are worth in a study; None where too few networks have both, or all have the same.

    Args:
        trials: all of the study.
        sign: what makes a loss of a value: -1.0 where the study maximizes.
    """
    cheap, whole, name = [], [], ""
    for trial in trials:
        loss = cheap_loss(trial)
        if loss is None or record.TWIN_OF.of(trial) is not None or not is_feasible(trial):
            continue
        value = sign * trial.values[0] if trial.state == TrialState.COMPLETE else math.nan
        cheap.append(loss)
        whole.append(value if math.isfinite(value) else math.nan)
        name = str((record.SCREENED.of(trial) or {})["name"])
    has_both = np.isfinite(whole)
    n = int(has_both.sum())
    if n < FEWEST:
        return None
    scores, values = normal(np.array(cheap)), normal(np.array(whole)[has_both])
    chosen = scores[has_both]
    if not np.ptp(chosen) or not np.ptp(values):
        return None
    among = float(np.corrcoef(ranks(chosen), ranks(values))[0, 1])
    ratio = float(scores.std() / chosen.std())
    widened = among * ratio / math.sqrt(1 + among**2 * (ratio**2 - 1))
    precision = max(n - 3, 1) / (1.06 * ratio**2)  # of Fisher's z of a rank correlation
    before = 1 / BELIEF[1] ** 2
    mean = (before * BELIEF[0] + precision * math.atanh(min(max(widened, -0.99), 0.99))) / (
        before + precision
    )
    reach = 1.96 / math.sqrt(before + precision)
    return Worth(
        name, len(cheap), n, among, math.tanh(mean), math.tanh(mean - reach), math.tanh(mean + reach)
    )


@dataclass(frozen=True)
class Screened:
    """The trials of a study that have a cheap score that says something.

    Attributes:
        trials: whether they have a whole score or not.
        scores: the normal score of the cheap score of each, lower for the better, `(n,)`.
        correlation: of cheap and whole scores, as far as is known.
    """

    trials: Sequence[FrozenTrial]
    scores: Array
    correlation: float

    def place(self, whole: Iterable[FrozenTrial]) -> tuple[float, float]:
        """Mean and standard deviation that whole scores of these trials have among those of all.

        As the regression of whole on cheap scores has it, where all of both have mean 0 and variance 1.
        """
        at = {id(trial): score for trial, score in zip(self.trials, self.scores.tolist(), strict=True)}
        found = np.array([at[id(trial)] for trial in whole if id(trial) in at])
        if not len(found):
            return 0.0, 1.0
        explained = self.correlation**2
        return float(self.correlation * found.mean()), math.sqrt(1 - explained + explained * found.var())


def screen(trials: Iterable[FrozenTrial], sign: float) -> Screened:
    """What cheap scores there are; none where they are known to say nothing.

    Args:
        trials, sign: as for `worth`.
    """
    trials = list(trials)
    found = worth(trials, sign)
    if found is not None and found.is_none:
        return Screened([], np.zeros(0), 0.0)
    losses = {i: loss for i, trial in enumerate(trials) if (loss := cheap_loss(trial)) is not None}
    sound = [i for i in losses if trials[i].state != TrialState.FAIL and is_feasible(trials[i])]
    correlation = math.tanh(BELIEF[0]) if found is None else found.correlation
    return Screened([trials[i] for i in sound], normal(np.array([losses[i] for i in sound])), correlation)
