"""How far a cheap estimate can be trusted: does it rank architectures as their trainings do?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from optuna.study import Study
from optuna.trial import FrozenTrial
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from optnas import record
from optnas.analysis.front import Quantity, quantity
from optnas.analysis.shown import Shown
from optnas.analysis.trials import maximizes, objective_value, scored
from optnas.answers import params_key
from optnas.facts.fact import FLOPS, N_PARAMS
from optnas.facts.layers import DEPTH, N_LAYERS
from optnas.facts.sketch import sketch
from optnas.objective import Objective
from optnas.record import Target
from optnas.surrogate.screened import cheap_loss, worth
from optnas.trial import replay

Floats = NDArray[np.float64]

FLOORS = (N_PARAMS, FLOPS, DEPTH, N_LAYERS)
"""What any estimate has to beat, because it is free."""

MIN_TRIALS = 5
_RESAMPLES = 1000
_MOST = 2000  # trials whose pairs are all looked at; of more, so many are drawn


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % bootstrap interval over trials; NaN where it is not defined."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Floats) -> Interval:
        """The first value, with the interval of the others."""
        if not np.isfinite(values[0]):
            return cls(math.nan, math.nan, math.nan)
        low, high = np.nanpercentile(values[1:], [2.5, 97.5])
        return cls(float(values[0]), float(low), float(high))

    def __str__(self) -> str:
        """`0.61 (0.52 to 0.68)`."""
        return "" if math.isnan(self.value) else f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Agreement:
    """How one estimate ranks `n` trained architectures.

    `kendall` and `spearman` are rank correlations; `top` is the share of the truly best tenth that is in the
    estimate's best tenth, `kendall_top` Kendall's correlation inside the truly best tenth.
    """

    name: str
    n: int
    kendall: Interval
    spearman: Interval
    top: Interval
    kendall_top: Interval

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of a table with the columns `COLUMNS`."""
        return self.name, *map(str, (self.kendall, self.spearman, self.top, self.kendall_top)), str(self.n)


COLUMNS = ("", "Kendall", "Spearman", "best tenth found", "Kendall inside it", "trials")


@dataclass(frozen=True)
class RankCorrelation(Shown):
    """An estimate beside the floors, which cost nothing; `lead` is Kendall's over that of the best floor.

    The sign of a floor is the one that fits.
    """

    estimate: Agreement
    floors: tuple[Agreement, ...]
    lead: Interval | None

    @property
    def beats_floors(self) -> bool:
        """Whether it surely ranks better than the best floor."""
        return self.lead is not None and self.lead.low > 0

    @property
    def words(self) -> str:
        """What that says, in a sentence."""
        mine = self.estimate
        if self.lead is None:
            return f"{mine.name} has nothing to be compared with: no trial recorded parameters or FLOPs."
        best = max(self.floors, key=lambda floor: floor.kendall.value)
        figures = f"Kendall {mine.kendall.value:.2f} against {best.kendall.value:.2f} over {mine.n} trials"
        if not math.isfinite(mine.kendall.value):
            return f"{mine.name} is the same for all {mine.n} trials: it ranks nothing."
        if self.lead.value <= 0:
            return f"Warning: {mine.name} ranks no better than {best.name}, which costs nothing ({figures})."
        if not self.beats_floors:
            return (
                f"Warning: that {mine.name} ranks better than {best.name}, which costs nothing, is not sure "
                f"({figures}; the lead's 95 % interval is {self.lead.low:+.2f} to {self.lead.high:+.2f})."
            )
        return f"{mine.name} ranks better than {best.name}, the best of what costs nothing ({figures})."

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; None for what is not defined."""
        found: dict[str, Any] = _without_nan(asdict(self))
        return {**found, "beats_floors": self.beats_floors, "words": self.words}

    def _table(self) -> Group:
        table = Table(title="Rank correlation with the trained results")
        for i, title in enumerate(COLUMNS):
            table.add_column(title, justify="right" if i else "left")
        for row in (self.estimate, *self.floors):
            table.add_row(*map(Text, row.cells))
        return Group(table, escape(self.words))


def rank_correlation(
    study: Study,
    estimate: Quantity | int | Study,
    *,
    larger: bool = True,
    objective: Objective | None = None,
    target: Target | None = None,
) -> RankCorrelation:
    """How well a cheap estimate ranks the trained architectures of a study, beside floors that cost nothing.

    A correlation over all architectures flatters: a search needs the ranking among the good ones, which the
    columns for the best tenth show. Twins and trials that ended early are left out.

    Args:
        study: COMPLETE trials with their trained results.
        estimate: the name of a fact or a metric (`"naswot"`), or a function of a trial; a step, whose
            intermediate value is the estimate; or another study (fewer epochs, shared weights), whose values
            of the same architectures are.
        larger: whether a larger fact, metric or function is the more promising. Values of a step and of
            another study are read as their studies say.
        objective: builds the networks, so that all floors are known (parameters, FLOPs, depth, layers);
            without it, those are used that the trials recorded.
        target: what was trained for, of a study with several objectives; larger is better as in the first.

    Raises:
        ValueError: fewer than 5 trained architectures have the estimate, all have the same value, or several
            objectives and no target.

    Examples:
        >>> found = optnas.rank_correlation(study, "n_params", larger=False)
        >>> found.estimate.kendall.value
        1.0
    """
    trained = [t for t in scored(study, target) if record.TWIN_OF.of(t) is None]
    name, read = _reader(study, estimate, larger)
    mine = {t.number: value for t in trained if math.isfinite(value := read(t))}
    trials = [t for t in trained if t.number in mine]
    if len(trials) < MIN_TRIALS:
        raise ValueError(
            f"Of the {len(trained)} trained architectures of study {study.study_name!r}, {len(trials)} have "
            f"the estimate {name!r}; a rank correlation needs at least {MIN_TRIALS}."
        )
    sign = 1.0 if maximizes(study) else -1.0
    truth = [sign * objective_value(study, target)(t) for t in trials]
    if np.ptp(truth) == 0:
        raise ValueError(f"All {len(trials)} trained architectures have the value {truth[0]:.5g}: no rank.")
    floors = {
        floor: values
        for floor, values in _floors(trials, objective).items()
        if floor != name and np.isfinite(values).all() and np.ptp(values) > 0
    }
    return _compare(name, [mine[t.number] for t in trials], floors, truth)


def recorded_estimates(study: Study, objective: Objective | None = None) -> list[RankCorrelation]:
    """The rank correlation of every fact of which the study says that higher is better, and of the cheap
    estimate by which it screens; empty of others."""
    trials = scored(study) if len(study.directions) == 1 else []
    values = {trial.value for trial in trials}
    found = []
    for name, kind in record.fact_kinds(study).items():
        having = [t for t in trials if name in record.facts(t) and record.TWIN_OF.of(t) is None]
        if kind.better == "higher" and len(having) >= MIN_TRIALS and len(values) > 1:
            found.append(rank_correlation(study, name, objective=objective))
    having = [t for t in trials if cheap_loss(t) is not None and record.TWIN_OF.of(t) is None]
    if len(having) >= MIN_TRIALS and len({trial.value for trial in having}) > 1:
        found.append(rank_correlation(study, _of_screening(having[0]), objective=objective))
    return found


def screening(study: Study) -> list[str]:
    """What is known of the cheap scores of a study that screens (`Screening`), in sentences."""
    if len(study.directions) > 1:
        return []
    found = worth(study.get_trials(deepcopy=False), -1.0 if maximizes(study) else 1.0)
    ended = record.UNSCREENED.of(study)
    return [ended] if ended else [found.words] if found else []


def agreement(name: str, estimate: ArrayLike, truth: ArrayLike, *, seed: int = 0) -> Agreement:
    """How an estimate ranks: both sequences have a number for each architecture, larger for the better.

    Intervals are of a bootstrap over the architectures. Of ties, Kendall's is tau-b.

    Raises:
        ValueError: not as many numbers of each, or one is not finite.
    """
    e, t = np.asarray(estimate, dtype=float), np.asarray(truth, dtype=float)
    if e.shape != t.shape or e.ndim != 1 or not (np.isfinite(e).all() and np.isfinite(t).all()):
        raise ValueError(f"{name}: give as many finite numbers of both; got shapes {e.shape} and {t.shape}.")
    return _agreement(name, _statistics(e, t, _resampled(len(t), seed)), len(t))


# ---- what is compared ----


def _reader(
    study: Study, estimate: Quantity | int | Study, larger: bool
) -> tuple[str, Callable[[FrozenTrial], float]]:
    """What the estimate is called, and its number of a trial: larger for the better, NaN for none."""
    if isinstance(estimate, Study):
        return f"study {estimate.study_name}", _of_other(estimate)
    if isinstance(estimate, int):
        sign = 1.0 if maximizes(study) else -1.0
        return f"step {estimate}", lambda t: sign * t.intermediate_values.get(estimate, math.nan)
    sign = 1.0 if larger else -1.0
    kinds = record.fact_kinds(study)
    if isinstance(estimate, str):
        name = kinds[estimate].title if estimate in kinds else estimate
    else:
        name = estimate.__name__ if isinstance(estimate, FunctionType) else "the estimate"
    return name, lambda t: sign * quantity(t, estimate)


def _of_other(study: Study) -> Callable[[FrozenTrial], float]:
    sign = 1.0 if maximizes(study) else -1.0
    found: dict[Any, list[float]] = {}
    for trial in scored(study):
        for key in {record.FINGERPRINT.of(trial), params_key(trial.params)} - {None}:
            found.setdefault(key, []).append(sign * trial.values[0])

    def read(trial: FrozenTrial) -> float:
        values = found.get(record.FINGERPRINT.of(trial)) or found.get(params_key(trial.params))
        return float(np.mean(values)) if values else math.nan

    return read


def _of_screening(trial: FrozenTrial) -> Quantity:
    """Reads the cheap score of a trial, and is called what the score is called."""

    def read(trial: FrozenTrial) -> float:
        loss = cheap_loss(trial)
        return math.nan if loss is None else -loss

    read.__name__ = f"screening by {(record.SCREENED.of(trial) or {})['name']}"
    return read


def _floors(trials: Sequence[FrozenTrial], objective: Objective | None) -> dict[str, Floats]:
    facts = [record.facts(trial) for trial in trials]
    if objective is not None:
        facts = [{**_built(objective, trial), **known} for trial, known in zip(trials, facts, strict=True)]
    return {f.title or f.name: np.array([known.get(f.name, math.nan) for known in facts]) for f in FLOORS}


def _built(objective: Objective, trial: FrozenTrial) -> dict[str, float]:
    example = objective.example_for(replay(trial.params))
    return dict(sketch(lambda: objective.space(replay(trial.params)), example, FLOORS).facts)


def _compare(name: str, estimate: ArrayLike, floors: dict[str, Floats], truth: ArrayLike) -> RankCorrelation:
    e, t = np.asarray(estimate, dtype=float), np.asarray(truth, dtype=float)
    weights = _resampled(len(t), seed=0)
    mine = _statistics(e, t, weights)
    rows, leads = [], []
    for floor, values in floors.items():
        numbers = _statistics(values, t, weights)
        label = floor
        if numbers["kendall"][0] < 0:
            numbers, label = _statistics(-values, t, weights), f"fewer {floor}"
        rows.append(_agreement(label, numbers, len(t)))
        leads.append(mine["kendall"] - numbers["kendall"])
    lead = Interval.of(min(leads, key=lambda values: values[0])) if leads else None
    return RankCorrelation(_agreement(name, mine, len(t)), tuple(rows), lead)


def _agreement(name: str, numbers: dict[str, Floats], n: int) -> Agreement:
    return Agreement(name, n, **{what: Interval.of(values) for what, values in numbers.items()})


# ---- the statistics of the trials, and of all resamples at once ----


def _resampled(n: int, seed: int) -> Floats:
    """How often each trial is in each sample: once in the first, as drawn with replacement in the others."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(min(n, _MOST), np.full(n, 1 / n), size=_RESAMPLES)
    return np.vstack([np.ones(n), drawn])


def _statistics(estimate: Floats, truth: Floats, weights: Floats) -> dict[str, Floats]:
    """Each statistic for every row of weights; a trial of weight 2 is there twice."""
    above_e, equal_e = _pairs(estimate, weights)
    above_t, equal_t = _pairs(truth, weights)
    size = weights.sum(1, keepdims=True)
    tenth = np.maximum(1, np.round(size / 10))
    with np.errstate(invalid="ignore", divide="ignore"):
        best_e = np.clip((tenth - above_e) / equal_e, 0, 1)  # the chance to be among the best, by lot if tied
        best_t = np.clip((tenth - above_t) / equal_t, 0, 1)
        return {
            "kendall": _kendall(estimate, truth, weights),
            "spearman": _pearson(-above_e - equal_e / 2, -above_t - equal_t / 2, weights / size),
            "top": (weights * best_e * best_t).sum(1) / tenth[:, 0],
            "kendall_top": _kendall(estimate, truth, weights * best_t, least=MIN_TRIALS),
        }


def _pairs(values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """For each sample and trial: how many others are above it, and how many equal it."""
    different, place = np.unique(values, return_inverse=True)
    of_value = np.zeros((len(different), len(weights)))
    np.add.at(of_value, place, weights.T)
    above = of_value[::-1].cumsum(0)[::-1] - of_value
    return above[place].T, of_value[place].T


def _kendall(estimate: Floats, truth: Floats, weights: Floats, least: int = 0) -> Floats:
    """Kendall's tau-b of each sample; NaN where it has fewer than `least` members or ranks nothing."""
    if len(truth) > _MOST:
        kept = np.random.default_rng(0).choice(len(truth), _MOST, replace=False)
        estimate, truth, weights = estimate[kept], truth[kept], weights[:, kept]
    of_e = np.sign(estimate[:, None] - estimate)
    of_t = np.sign(truth[:, None] - truth)
    agree, e, t = (
        np.einsum("ri,ij,rj->r", weights, pairs, weights, optimize=True)
        for pairs in (of_e * of_t, np.abs(of_e), np.abs(of_t))
    )
    found = np.where((e > 0) & (t > 0), agree / np.sqrt(e * t), np.nan)
    return np.where(weights.sum(1) >= least, found, np.nan)


def _pearson(x: Floats, y: Floats, share: Floats) -> Floats:
    x, y = (z - (share * z).sum(1, keepdims=True) for z in (x, y))
    found: Floats = (share * x * y).sum(1) / np.sqrt((share * x * x).sum(1) * (share * y * y).sum(1))
    return found


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
