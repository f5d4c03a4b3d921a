"""The best trials of a study, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from optuna.study import Study
from rich.table import Table
from rich.text import Text

from optnas import record
from optnas.analysis.trials import maximizes, objective_names, objective_value, scored
from optnas.analysis.words import answer_in_words
from optnas.limits import Limit, in_words
from optnas.pareto import front_trials, losses
from optnas.printable import printable
from optnas.record import FactKind, Target


@dataclass(frozen=True)
class Row:
    """One architecture. `facts`: what is known of it without training, by name, such as `facts["flops"]`;
    `kinds`: what they mean; `limits`: what the study allows. `params` in words: `depth=2, block.0.op=conv`.
    `twins` are the numbers of trials that carry this one's value. `weights` says where its weights come from,
    "" where it was trained from scratch."""

    rank: int
    trial: int
    value: float
    facts: Mapping[str, int | float]
    params: str
    twins: tuple[int, ...]
    weights: str = ""
    kinds: Mapping[str, FactKind] = field(default_factory=dict, repr=False, compare=False)
    limits: tuple[Limit, ...] = field(default=(), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; without `kinds` and `limits`, which are the study's."""
        return {name: value for name, value in asdict(self).items() if name not in ("kinds", "limits")}


def leaderboard(study: Study, k: int = 5, *, target: Target | None = None) -> list[Row]:
    """The `k` best COMPLETE, feasible trials, the best first; equal values by trial number. Twins are not
    repeated.

    Raises:
        ValueError: several objectives and no `target` (larger is then better as in the first objective), or a
            negative `k`.

    Examples:
        >>> rows = optnas.analysis.leaderboard(study, k=3)
        >>> rows[0].trial == study.best_trial.number, rows[0].params
        (True, 'width=4, depth=1, block.0.kernel=3')
    """
    if k < 0:
        raise ValueError(f"k={k} trials cannot be listed; give 0 or more.")
    value = objective_value(study, target)
    trials = [t for t in scored(study, target) if record.TWIN_OF.of(t) is None]
    sign = -1.0 if maximizes(study) else 1.0
    kinds, limits = record.fact_kinds(study, trials), tuple(record.limits(study))
    twins: dict[int, list[int]] = {}
    for trial in study.get_trials(deepcopy=False):
        if (original := record.TWIN_OF.of(trial)) is not None:
            twins.setdefault(original, []).append(trial.number)
    return [
        Row(
            rank=rank,
            trial=trial.number,
            value=float(value(trial)),
            facts=record.facts(trial),
            params=params_in_words(trial.params),
            twins=tuple(twins.get(trial.number, ())),
            weights=record.weights_in_words(trial),
            kinds=kinds,
            limits=limits,
        )
        for rank, trial in enumerate(sorted(trials, key=lambda t: (sign * value(t), t.number))[:k], start=1)
    ]


def front_table(study: Study, k: int = 20) -> Table:
    """For a terminal: the front of a study with several objectives, the best in the first one at the top.

    Of more than `k` trials every so many are shown, the ends included.
    """
    trials = front_trials(study)
    order = np.lexsort(losses(study, trials).T[::-1])
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(k, len(order))).round().astype(int))]
    limits = ", ".join(map(str, record.limits(study)))
    table = Table(
        title=f"Front of {len(trials)} architectures" + (f" within {printable(limits)}" if limits else "")
    )
    names = objective_names(study)
    kinds = {n: kind for n, kind in record.fact_kinds(study, trials).items() if n not in names}
    for title in ("trial", *names, *(kind.label for kind in kinds.values())):
        table.add_column(Text(printable(title)), justify="right")
    table.add_column("decisions")
    for trial in (trials[i] for i in shown):
        facts = record.facts(trial)
        known = [record.number_in_words(facts[name]) if name in facts else "" for name in kinds]
        values = [in_words(value) for value in trial.values]
        table.add_row(str(trial.number), *values, *known, Text(printable(params_in_words(trial.params))))
    return table


def params_in_words(params: dict[str, Any]) -> str:
    """`depth=2, block.0.op=conv, lr=0.001`: numbers with four digits."""
    return ", ".join(f"{name}={answer_in_words(answer)}" for name, answer in params.items())


def fact_columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """A column for each fact that some row has, its head and a cell for each row; before them one for weights
    that come from others, where some do."""
    weights = {"weights": [row.weights or "its own" for row in rows]} if any(r.weights for r in rows) else {}
    kinds = {name: kind for row in rows for name, kind in row.kinds.items()}
    facts = {
        kind.label: [record.number_in_words(row.facts[name]) if name in row.facts else "" for row in rows]
        for name, kind in kinds.items()
        if any(name in row.facts for row in rows)
    }
    return {**weights, **facts}


def leaderboard_table(rows: list[Row]) -> Table:
    """For a terminal: `rich.print(leaderboard_table(leaderboard(study)))`.

    Examples:
        >>> table = optnas.analysis.leaderboard_table(optnas.analysis.leaderboard(study, k=3))
        >>> table.row_count
        3
    """
    limits = ", ".join(map(str, rows[0].limits if rows else ()))
    table = Table(title="Best architectures" + (f" within {printable(limits)}" if limits else ""))
    columns = fact_columns(rows)
    for title in ("rank", "trial", "value", *columns):
        table.add_column(Text(printable(title)), justify="right")
    table.add_column("decisions")
    for i, row in enumerate(rows):
        facts = [Text(cells[i]) for cells in columns.values()]
        table.add_row(str(row.rank), str(row.trial), in_words(row.value), *facts, Text(printable(row.params)))
    return table
