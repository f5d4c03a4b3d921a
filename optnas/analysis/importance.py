"""How much each decision of a conditional space matters, how sure that is, and which trials say so."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from optnas.analysis.anova import (
    Floats,
    Ints,
    Table,
    decompose,
    interaction,
    joint_share,
    tabulate,
)
from optnas.analysis.objectives import FRONT, as_one, quiet_study
from optnas.analysis.padded import padded
from optnas.analysis.shown import Shown
from optnas.analysis.trials import finished, objective_names, objective_value, scored
from optnas.record import End, Target, end

if TYPE_CHECKING:
    from optuna.importance import BaseImportanceEvaluator

MIN_TRIALS = 10
"""COMPLETE, feasible trials with a finite value that importance needs."""

_FEW_TRIALS = 12  # below, a decision's interval itself is a rough guess
_MAX_PAIRS = 10
_PAIR_LEVELS = 4  # numbers in four classes: sixteen cells of a pair still get several trials each


@dataclass(frozen=True)
class Share:
    """An importance with its 95 % interval; `n_trials` is the number of trials where it was active."""

    name: str
    value: float
    low: float
    high: float
    n_trials: int


@dataclass(frozen=True)
class Importance(Shown):
    """Importances, largest first: of `decisions`, of all decisions at one position (`block.2.*`), of all
    decisions of one kind (`*.op`), and of `pairs` of decisions beyond their own effects.

    `constant` names decisions that had one answer only; `notes` are caveats in words.

    Examples:
        >>> found = optnas.importance(study, n_bootstrap=10)
        >>> [share.name for share in found.decisions][:2]
        ['depth', 'width']
    """

    decisions: tuple[Share, ...]
    positions: tuple[Share, ...]
    kinds: tuple[Share, ...]
    pairs: tuple[Share, ...]
    constant: tuple[str, ...]
    method: str
    n_trials: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def _table(self) -> RichTable:
        table = RichTable(
            title=f"Importance, {self.n_trials} trials", caption=escape("\n".join(self.notes)) or None
        )
        table.add_column("decision")
        for title in ("share", "95 %", "trials"):
            table.add_column(title, justify="right")
        for share in (*self.decisions, *self.positions, *self.kinds, *self.pairs):
            interval = f"{share.low:.3f} to {share.high:.3f}"
            table.add_row(Text(share.name), f"{share.value:.3f}", interval, str(share.n_trials))
        return table


def importance(
    study: Study,
    *,
    of: str | None = None,
    evaluator: BaseImportanceEvaluator | None = None,
    target: Target | None = None,
    pad: bool = False,
    n_bootstrap: int = 100,
    seed: int = 0,
) -> Importance:
    """What share of the metric's variance each decision explains among the trials where it is active.

    `of`, for a study of several objectives: the name of one; or "front", for what brings trials close to the
    front (`distance_to_front`).
    `evaluator`: `ConditionalAnovaEvaluator()` unless given, which defines the share. Optuna's evaluators keep
    their own definitions, normalized to sum 1: `PedAnovaImportanceEvaluator` asks what sets the best 10 %
    apart, over all trials; fANOVA and mean decrease impurity see only decisions that all trials share, unless
    `pad` fills in random answers to what a trial was not asked (then over all trials, and diluted so).
    `target`: the number to explain, the objective unless given. Intervals are percentiles of `n_bootstrap`
    resamples of the trials, shifted by the bootstrap's own bias; they hold the truth in 87 to 96 of 100
    studies (studies/benchmarks/importance.py). Read a pair's with care: only pairs that passed a test are
    shown.

    A position or kind adds its decisions' variances, per trial where any of them is active (with another
    evaluator: their importances). Pairs always come from the analysis of variance: the share that only the
    combination of two answers explains, shown where an F-test over all pairs (Bonferroni, 5 %) finds it.

    Only COMPLETE, feasible trials with a finite value take part; `notes` say what was left out.

    Raises:
        ValueError: fewer than 10 such trials, several objectives and neither `of` nor `target`, or both of
            these; or `pad` with our own evaluator, which knows what was asked.

    Examples:
        >>> found = optnas.importance(study, n_bootstrap=10)
        >>> found.decisions[0].name  # the decision that explains most
        'depth'
    """
    from optnas.analysis.evaluator import ConditionalAnovaEvaluator  # here, as it loads scikit-learn

    if of is not None and target is not None:
        raise ValueError(f"of={of!r} and target= are two answers to one question; leave one of them out.")
    if of is not None:
        study = as_one(study, of)
    elif target is None and len(study.directions) > 1:
        raise ValueError(f"Study {study.study_name!r} has {several(study)}.")
    value = objective_value(study, target)
    trials = scored(study, target)
    if words := too_few(study, len(trials)):
        raise ValueError(words)
    anova = evaluator if isinstance(evaluator, ConditionalAnovaEvaluator) else ConditionalAnovaEvaluator()
    if pad and evaluator in (None, anova):
        raise ValueError("pad=True is for Optuna's evaluators; give one with evaluator=, or leave pad out.")
    given = padded(trials, seed) if pad else trials
    table = tabulate(trials, value, anova.levels)
    groups = group(table.names)
    coarse = tabulate(trials, value, min(anova.levels, _PAIR_LEVELS))
    pairs = _strongest_pairs(coarse, decompose(table).residual)

    def scores(rows: Ints) -> dict[str, float]:
        sample = table.take(rows)
        parts = decompose(sample)
        cells = coarse.take(rows)
        result = {_pair_name(table, a, b): interaction(cells, parts.residual, a, b).share for a, b in pairs}
        if evaluator is None or evaluator is anova:
            own = dict(zip(table.names, parts.shares.tolist(), strict=True))
            return result | own | {k: joint_share(sample, parts, v) for k, v in groups.items()}
        own = dict.fromkeys(table.names, 0.0)
        if np.ptp(sample.y) > 0:  # or some of Optuna's evaluators raise, or warn
            own = _optuna_scores(study, [given[row] for row in rows], evaluator, target)
        return result | own | {k: sum(own.get(table.names[j], 0.0) for j in v) for k, v in groups.items()}

    estimate = scores(np.arange(len(trials)))
    rng = np.random.default_rng(seed)
    resamples = [scores(rng.integers(len(trials), size=len(trials))) for _ in range(n_bootstrap)]

    def shares(
        members: Mapping[str, Sequence[int]], together: Callable[..., Any] = np.any
    ) -> tuple[Share, ...]:
        rows = [
            Share(
                name,
                estimate[name],
                *_interval(estimate[name], [r[name] for r in resamples if name in r]),
                n_trials=int(together(table.codes[:, list(columns)] >= 0, axis=1).sum()),
            )
            for name, columns in members.items()
            if name in estimate
        ]
        return tuple(sorted(rows, key=lambda share: -share.value))

    varied = {n: (j,) for j, n in enumerate(table.names) if table.n_answers(j) > 1}
    return Importance(
        decisions=shares(varied),
        positions=shares({k: v for k, v in groups.items() if k.endswith(".*")}),
        kinds=shares({k: v for k, v in groups.items() if k.startswith("*.")}),
        pairs=shares({_pair_name(table, a, b): (a, b) for a, b in pairs}, np.all),
        constant=tuple(name for name in table.names if name not in varied),
        method=f"conditional ANOVA, {anova.levels} levels"
        if evaluator in (None, anova)
        else type(evaluator).__name__ + ", padded" * pad,
        n_trials=len(trials),
        notes=_notes(study, table, len(finished(study)) - len(trials)),
    )


def too_few(study: Study, n_scored: int) -> str:
    """Why so many COMPLETE trials with a finite value have no importance; "" if they have."""
    if n_scored >= MIN_TRIALS:
        return ""
    return (
        f"Importance needs at least {MIN_TRIALS} COMPLETE trials with a finite value; study "
        f"{study.study_name!r} has {n_scored}. Run more trials."
    )


def several(study: Study) -> str:
    """How many objectives the study has, and what to say which is meant."""
    names = objective_names(study)
    choices = ", ".join(f"of={name!r}" for name in [*names, FRONT])
    return f"{len(names)} objectives; say which is meant: {choices}"


def group(names: Sequence[str]) -> dict[str, list[int]]:
    """Places in `names` of all decisions below one position (`block.2.*`) and of one kind (`*.op`).

    A position is a part of a name that starts with a digit; a kind is the last part. Groups of one are left
    out, and those that are called like a decision.
    """
    groups: dict[str, list[int]] = {}
    for j, name in enumerate(names):
        parts = name.split(".")
        for i, part in enumerate(parts[:-1]):
            if part[:1].isdigit():
                groups.setdefault(".".join(parts[: i + 1]) + ".*", []).append(j)
        if len(parts) > 1:
            groups.setdefault("*." + parts[-1], []).append(j)
    return {name: members for name, members in groups.items() if len(members) > 1 and name not in names}


def _strongest_pairs(table: Table, residual: Floats) -> list[tuple[int, int]]:
    """Pairs whose interaction is beyond chance: F-test at 5 %, Bonferroni over all pairs."""
    candidates = list(combinations(range(len(table.names)), 2))
    found = {pair: interaction(table, residual, *pair) for pair in candidates}
    beyond_chance = [pair for pair in candidates if found[pair].p_value * len(candidates) < 0.05]
    return sorted(beyond_chance, key=lambda pair: -found[pair].share)[:_MAX_PAIRS]


def _pair_name(table: Table, first: int, second: int) -> str:
    return f"{table.names[first]} × {table.names[second]}"


def _optuna_scores(
    study: Study, trials: Sequence[FrozenTrial], evaluator: BaseImportanceEvaluator, target: Target | None
) -> dict[str, float]:
    drawn = [copy.copy(trial) for trial in trials]  # a resample has some several times
    for number, trial in enumerate(drawn):
        trial.number = number
    sample = quiet_study(study.directions, drawn)  # or each resample announces its study
    return optuna.importance.get_param_importances(sample, evaluator=evaluator, target=target)


def _interval(estimate: float, resampled: Sequence[float]) -> tuple[float, float]:
    if not resampled:
        return 0.0, 1.0
    # Repeated trials in a resample look like exact repeats of a measurement, which inflates every share.
    bias = float(np.mean(resampled)) - estimate
    low, high = np.quantile(resampled, [0.025, 0.975]) - bias
    return float(np.clip(min(low, estimate), 0, 1)), float(np.clip(max(high, estimate), 0, 1))


def _notes(study: Study, table: Table, n_not_finite: int) -> tuple[str, ...]:
    notes = []
    ends = [end(t) for t in study.get_trials(deepcopy=False)]
    for kind, (one, many), why in (
        (
            End.PRUNED,
            ("has", "have"),
            "no final value, so decisions that lead to pruning look less important",
        ),
        (End.INFEASIBLE, ("broke", "broke"), "a constraint"),
        (End.FAILED, ("has", "have"), "no value"),
    ):
        if (count := ends.count(kind)) == 1:
            notes.append(f"1 {kind} trial is left out: it {one} {why}.")
        elif count:
            notes.append(f"{count} {kind} trials are left out: they {many} {why}.")
    if n_not_finite:
        trials_are = (
            "trial without a finite value is" if n_not_finite == 1 else "trials without a finite value are"
        )
        notes.append(f"{n_not_finite} {trials_are} left out.")
    rare = [
        n for n, active in zip(table.names, table.codes.T >= 0, strict=True) if active.sum() < _FEW_TRIALS
    ]
    if rare:
        notes.append(f"Active in fewer than {_FEW_TRIALS} trials, so a rough guess: {', '.join(rare)}.")
    if np.ptp(table.y) == 0:
        notes.append("All trials have the same value: nothing to explain.")
    return tuple(notes)
