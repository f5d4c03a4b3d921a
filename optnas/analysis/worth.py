"""What each decision of the best architecture is worth: the change in value when only it is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.analysis.anova import Floats
from optnas.analysis.conditions import Conditions
from optnas.analysis.lineage import changes
from optnas.analysis.trials import maximizes, scored
from optnas.answers import same

# Around the best trial, which was chosen for its luck too, some predictions are far off. Without this factor
# the 95 % ranges hold 83 % of the true changes in studies/benchmarks/explain.py, with it 95 %. Which of two
# answers is better is mostly right all the same: its probability does without.
_WIDER = 2.0
_FOLDS = 5
_TRUSTED = 0.5
_MAX_OPTIONS = 8  # of a number; more are represented by quantiles of what was tried


@dataclass(frozen=True)
class Alternative:
    """Another answer. Changes are in the study's own units: its value minus the best architecture's.

    `predicted` by the surrogate from all trials. `deviation`: its standard deviation, of both predictions as
    if independent, doubled, so that 1.96 of them hold the truth in 95 %. `better` is the probability that it
    would be an improvement, of the deviation that is not doubled.
    `seen`: the change in trial `trial`, which differs in this decision only, None if there is none; one
    measurement of each, noise included.
    """

    answer: Any
    predicted: float
    deviation: float
    better: float
    seen: float | None
    trial: int | None


@dataclass(frozen=True)
class Worth:
    """One decision of the best architecture: its `answer`, and the others, the least harmful first.

    `loss`: what the least harmful other answer is predicted to lose (negative: gain), as a positive number
    whatever the direction.
    """

    name: str
    answer: Any
    alternatives: tuple[Alternative, ...]
    loss: float
    deviation: float


def decision_worth(study: Study, best: FrozenTrial) -> tuple[Worth, ...]:
    """Every decision of `best` that has another answer, the most valuable first.

    Where another answer brings other questions, as trials with that answer show, those are answered as in the
    best such trial; questions that it takes away are dropped.
    """
    from optnas.surrogate.model import Surrogate  # here, as SciPy takes a second to import

    sign = 1.0 if maximizes(study) else -1.0
    trials = sorted(scored(study), key=lambda t: -sign * (t.value or 0.0))
    conditions = Conditions(trials)
    surrogate = Surrogate(study.directions[0]).fit(study.get_trials(deepcopy=False))
    rows = []
    for name, distribution in best.distributions.items():
        options = [v for v in _options(name, distribution, trials) if not same(v, best.params[name])]
        if options:
            changed = [conditions.change(best.params, name, v) for v in options]
            mean, deviation = surrogate.predict([best.params, *changed])
            seen = [_seen(trials, best, name, v, conditions.dependent(name)) for v in options]
            rows.append(_worth(best, name, options, sign, (mean, deviation), seen))
    return tuple(sorted(rows, key=lambda row: -row.loss))


def _worth(
    best: FrozenTrial,
    name: str,
    options: Sequence[Any],
    sign: float,
    predictions: tuple[Floats, Floats],
    seen: Sequence[FrozenTrial | None],
) -> Worth:
    mean, deviation = predictions  # of the best, then of each option
    alternatives = []
    for i, (option, trial) in enumerate(zip(options, seen, strict=True), start=1):
        change = float(mean[i] - mean[0])
        spread = float(np.hypot(deviation[0], deviation[i]))
        better = (
            float(scipy.stats.norm.cdf(sign * change / spread)) if spread > 0 else float(sign * change > 0)
        )
        measured = None if trial is None else (trial.value or 0.0) - (best.value or 0.0)
        number = None if trial is None else trial.number
        alternatives.append(Alternative(option, change, _WIDER * spread, better, measured, number))
    alternatives.sort(key=lambda a: -sign * a.predicted)
    mildest = alternatives[0]
    return Worth(name, best.params[name], tuple(alternatives), -sign * mildest.predicted, mildest.deviation)


def _seen(
    trials: Sequence[FrozenTrial], best: FrozenTrial, name: str, value: Any, dependent: set[str]
) -> FrozenTrial | None:
    """The best trial with this answer that answers like `best` whatever does not come and go with it."""
    for trial in trials:
        if name not in trial.params or not same(trial.params[name], value):
            continue
        differing = set(changes(best.params, trial.params)) - {name}
        if all(k in dependent and (k in best.params) != (k in trial.params) for k in differing):
            return trial
    return None


def _options(name: str, distribution: BaseDistribution, trials: Sequence[FrozenTrial]) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        every = range(distribution.low, distribution.high + 1, distribution.step)
        if len(every) <= _MAX_OPTIONS:
            return list(every)
    tried = sorted(t.params[name] for t in trials if name in t.params)
    quantiles = np.linspace(0.1, 0.9, 5) * (len(tried) - 1)
    return list(dict.fromkeys(tried[round(float(q))] for q in quantiles))


def prediction_quality(study: Study) -> str:
    """How far the surrogate can be trusted, in words: its errors on trials that it did not learn from."""
    from optnas.surrogate.model import Surrogate  # here, as SciPy takes a second to import

    trials = scored(study)
    if len(trials) < 10:
        return f"Predictions rest on {len(trials)} trials only: take them as guesses."
    order = np.random.default_rng(0).permutation(len(trials))
    errors, predicted, actual = [], [], []
    for fold in np.array_split(order, _FOLDS):
        held_out = {int(i) for i in fold}
        surrogate = Surrogate(study.directions[0]).fit([t for i, t in enumerate(trials) if i not in held_out])
        mean, _ = surrogate.predict([trials[i].params for i in held_out])
        values = np.array([trials[i].value for i in held_out], dtype=np.float64)
        errors += np.abs(mean - values).tolist()
        predicted += mean.tolist()
        actual += values.tolist()
    rank = (
        0.0
        if np.ptp(actual) == 0 or np.ptp(predicted) == 0
        else float(scipy.stats.spearmanr(predicted, actual)[0])
    )
    words = (
        f"Predictions (± is their standard deviation) miss held-out trials by {np.median(errors):.3g} "
        f"(median) and rank them at {rank:.2f}"
    )
    trust = "" if rank > _TRUSTED else ": take them as guesses"
    return f"{words} (Spearman; 1 is perfect){trust}."
