"""The best trials of a study, in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial
from rich.table import Table
from rich.text import Text

from optnas import record
from optnas.analysis.front import quantity
from optnas.analysis.trials import maximizes, objective_value, scored
from optnas.analysis.words import answer_in_words
from optnas.record import Target


@dataclass(frozen=True)
class Row:
    """One architecture. `n_params` and `flops` (per sample) are None where not recorded; `params` in words:
    `depth=2, block.0.op=conv`. `twins` are the numbers of trials that carry this one's value."""

    rank: int
    trial: int
    value: float
    n_params: int | None
    flops: int | None
    params: str
    twins: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def leaderboard(study: Study, k: int = 5, *, target: Target | None = None) -> list[Row]:
    """The `k` best COMPLETE, feasible trials, the best first; equal values by trial number. Twins are not
    repeated.

    Raises:
        ValueError: several objectives and no `target` (larger is then better as in the first objective), or a
            negative `k`.
    """
    if k < 0:
        raise ValueError(f"k={k} trials cannot be listed; give 0 or more.")
    value = objective_value(study, target)
    trials = [t for t in scored(study, target) if record.TWIN_OF.of(t) is None]
    sign = -1.0 if maximizes(study) else 1.0
    twins: dict[int, list[int]] = {}
    for trial in study.get_trials(deepcopy=False):
        if (original := record.TWIN_OF.of(trial)) is not None:
            twins.setdefault(original, []).append(trial.number)
    return [
        Row(
            rank=rank,
            trial=trial.number,
            value=float(value(trial)),
            n_params=_fact(trial, "n_params"),
            flops=_fact(trial, "flops"),
            params=params_in_words(trial.params),
            twins=tuple(twins.get(trial.number, ())),
        )
        for rank, trial in enumerate(sorted(trials, key=lambda t: (sign * value(t), t.number))[:k], start=1)
    ]


def params_in_words(params: dict[str, Any]) -> str:
    """`depth=2, block.0.op=conv, lr=0.001`: numbers with four digits."""
    return ", ".join(f"{name}={answer_in_words(answer)}" for name, answer in params.items())


def leaderboard_table(rows: list[Row]) -> Table:
    """For a terminal: `rich.print(leaderboard_table(leaderboard(study)))`."""
    table = Table(title="Best architectures")
    for title in ("rank", "trial", "value", "parameters", "FLOPs"):
        table.add_column(title, justify="right")
    table.add_column("decisions")
    for row in rows:
        numbers = ("" if n is None else f"{n:,}" for n in (row.n_params, row.flops))
        table.add_row(str(row.rank), str(row.trial), f"{row.value:.5g}", *numbers, Text(row.params))
    return table


def _fact(trial: FrozenTrial, name: str) -> int | None:
    number = quantity(trial, name)
    return int(number) if np.isfinite(number) else None
