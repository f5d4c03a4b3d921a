"""A smaller space for the next search: what to fix, and which answers to leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.analysis.anova import LEVELS, Floats, Ints, decompose, tabulate
from optnas.analysis.conditions import Conditions
from optnas.analysis.importance import Importance
from optnas.analysis.trials import choices_of, maximizes, objective_value, scored
from optnas.analysis.words import answer_in_words, shorten
from optnas.answers import key

_NEGLIGIBLE = 0.05
_MIN_TRIALS = 20
_ERROR_RATE = 0.05
# Fewer trials than these never drop an answer. One that brings questions is judged with more: its average
# says little of what it can do with their best answers (30 trials, none in the best tenth: 4 % by luck).
_MIN_DROPPED, _MIN_DROPPED_BRANCH = 10, 30


@dataclass(frozen=True)
class Narrowed:
    """A decision of the next search: `choices` that stay, or `low` and `high` of a number.

    `fixed`: one answer stays because the decision was not seen to matter. `why`, in words.
    """

    name: str
    fixed: bool
    choices: tuple[Any, ...] | None
    low: float | None
    high: float | None
    why: str


def negligible(study: Study, importance: Importance) -> tuple[str, ...]:
    """Decisions active in at least 20 trials, in no pair, whose interval holds 0 and ends below 5 %, and that
    explain less than 5 % among the better half of the trials too: what matters little among all may still
    tell the good from the best."""
    paired = {name for pair in importance.pairs for name in pair.name.split(" × ")}
    value = objective_value(study, None)
    better = _ordered(study)[: len(_ordered(study)) // 2]
    table = tabulate(better, value, LEVELS)
    among_better = dict(zip(table.names, decompose(table).shares, strict=True))
    return tuple(
        share.name
        for share in importance.decisions
        if share.low == 0
        and max(share.high, among_better.get(share.name, 0.0)) < _NEGLIGIBLE
        and share.n_trials >= _MIN_TRIALS
        and share.name not in paired
    )


def smaller_space(
    study: Study, best: FrozenTrial, importance: Importance, irrelevant: Sequence[str] | None = None
) -> tuple[Narrowed, ...]:
    """Decisions to fix, at the answer of the best trial that was asked, and decisions that lose answers.

    Fixed are the `irrelevant` ones, by default those that are `negligible`.

    An answer is left out if trials with it are worse on average than those with the best answer, others'
    effects taken out (one-sided t-test at 5 %, Bonferroni over all answers), none of the best tenth of the
    trials, nor any as good as the best, gave it, and at least 10 did (30 where it brings questions of its
    own). A number keeps one range, which holds all that stay.
    """
    sign = 1.0 if maximizes(study) else -1.0
    ordered = _ordered(study)
    trials = sorted(ordered, key=lambda t: t.number)
    irrelevant = negligible(study, importance) if irrelevant is None else irrelevant
    value = objective_value(study, None)
    n_best = sum(value(trial) == value(ordered[0]) for trial in ordered)
    top = ordered[: max(3, len(trials) // 10, n_best)]
    conditions = Conditions(ordered)
    table = tabulate(trials, value, LEVELS)
    parts = decompose(table)
    n_answers = sum(table.n_answers(j) for j in range(len(table.names)))
    found = []
    for j, name in enumerate(table.names):
        asked = [t for t in trials if name in t.params]
        if name in irrelevant:
            answer = next(t for t in [best, *ordered] if name in t.params).params[name]
            found.append(_fixed(name, answer, importance))
            continue
        rows = np.flatnonzero(table.codes[:, j] >= 0)
        partial = sign * (parts.effects[j, rows] + parts.residual[rows])
        worse = _clearly_worse(partial, table.codes[rows, j], _ERROR_RATE / max(n_answers, 1))
        branches = [conditions.brings(name, t.params[name]) for t in asked]
        size = np.unique(table.codes[rows, j], return_inverse=True, return_counts=True)
        enough = size[2][size[1]] >= np.where(branches, _MIN_DROPPED_BRANCH, _MIN_DROPPED)
        worse = worse & enough
        dropped = [t.params[name] for t, bad in zip(asked, worse, strict=True) if bad]
        kept = [t.params[name] for t, bad in zip(asked, worse, strict=True) if not bad]
        kept += [t.params[name] for t in top if name in t.params]
        narrowed = _cut(name, asked, kept, dropped)
        if narrowed is not None:
            found.append(narrowed)
    return tuple(found)


def _ordered(study: Study) -> list[FrozenTrial]:
    """Finished trials with finite values, the best first."""
    return sorted(scored(study), key=objective_value(study, None), reverse=maximizes(study))


def _clearly_worse(partial: Floats, codes: Ints, level: float) -> NDArray[np.bool_]:
    """Per row, whether its class is worse than the best class."""
    _, codes = np.unique(codes, return_inverse=True)
    counts = np.bincount(codes)
    freedom = len(partial) - len(counts)
    if len(counts) < 2 or freedom < 1:
        return np.zeros(len(partial), dtype=bool)
    means = np.bincount(codes, partial) / counts
    noise = float(((partial - means[codes]) ** 2).sum()) / freedom
    # Only a class of several trials can be the best one: a single lucky trial is not an average.
    usable = np.where(counts >= min(3, counts.max()), means, -np.inf)
    best = int(usable.argmax())
    error = np.sqrt(noise * (1 / counts + 1 / counts[best]))
    bad = means[best] - means > scipy.stats.t.ppf(1 - level, freedom) * error
    worse: NDArray[np.bool_] = bad[codes]
    return worse


def _fixed(name: str, answer: Any, importance: Importance) -> Narrowed:
    share = next(s for s in importance.decisions if s.name == name)
    why = f"explains at most {share.high:.1%} of the variance where it is asked ({share.n_trials} trials)"
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return Narrowed(name, True, None, answer, answer, why)
    return Narrowed(name, True, (answer,), None, None, why)


def _cut(
    name: str, asked: Sequence[FrozenTrial], kept: Sequence[Any], dropped: Sequence[Any]
) -> Narrowed | None:
    if not dropped:
        return None
    every = choices_of(asked, name)
    if every is not None:
        keep, drop = {key(v) for v in kept}, {key(v) for v in dropped}
        choices = tuple(c for c in every if key(c) in keep or key(c) not in drop)
        out = [shorten(answer_in_words(c), 60) for c in every if key(c) not in keep and key(c) in drop]
        if not out:
            return None
        why = f"{_listed(out)} clearly worse on average, and in none of the best trials"
        return Narrowed(name, False, choices, None, None, why)
    given: list[Any] = [trial.distributions[name] for trial in asked]
    lowest, highest = min(d.low for d in given), max(d.high for d in given)
    # Up to the first clearly worse answer beyond what stays: the values between were not tried.
    low = max((v for v in dropped if v < min(kept)), default=None)
    high = min((v for v in dropped if v > max(kept)), default=None)
    if low is None and high is None:
        return None
    low, high = (lowest if low is None else min(kept)), (highest if high is None else max(kept))
    why = f"of {lowest:.4g} to {highest:.4g}, the rest is clearly worse on average"
    return Narrowed(name, False, None, low, high, why)


def _listed(words: Sequence[str]) -> str:
    return f"{words[0]} is" if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]} are"


def as_params(narrowed: Sequence[Narrowed]) -> Mapping[str, Any]:
    """The fixed answers, as `optuna.samplers.PartialFixedSampler` takes them."""
    fixed = (n for n in narrowed if n.fixed)
    return {n.name: n.choices[0] if n.choices else n.low for n in fixed}
