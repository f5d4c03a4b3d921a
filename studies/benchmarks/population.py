"""Is population-based training worth its epochs, beside random search with and without pausing?

    python studies/benchmarks/population.py [--seeds 10] [--size 8] [--epochs 16] [--file population.jsonl]

The space and the digits of `studies/inherit.py`, in batches of 48, and the learning rate. Each search has the
epochs of `--size` whole trainings, of `--epochs` each. *As found*: test accuracy of the trial with the best
validation accuracy, as the search left it; the network of a population has its weights from ancestors, and
the learning rates of several trials behind it. *From scratch*: the same answers, trained anew from one seed.
Means over seeds with 95 % intervals by Student; a lead is that over random search with the same seed. Halving
may take some epochs more than its share. Searches that stand in the file are not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import optuna
import torch
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import RandomSampler

from optnas import (
    Classification,
    HalvingPruner,
    Objective,
    TensorData,
    Training,
    create_study,
    optimize,
    record,
)
from optnas.search import train
from optnas.seeds import derive_seed
from optnas.strategy import PopulationPruner
from optnas.training.inheritance import Inherit

sys.path.insert(0, str(Path(__file__).parents[1]))
from inherit import digits, interval, space

RANDOM = "random search"
PAUSES = 3
"""How often a population pauses."""


Way: TypeAlias = tuple[BasePruner, Callable[[int], Any], Inherit | None]


def ways(size: int, epochs: int) -> dict[str, Way]:
    """Pruner, sampler of a seed, and how children inherit."""
    found: dict[str, Way] = {
        RANDOM: (NopPruner(), RandomSampler, None),
        "random search, halving": (HalvingPruner(), RandomSampler, None),
    }
    inherited: dict[Inherit, str] = {"shrink_perturb": "shrunk and perturbed", "exact": "exact"}
    for how, name in inherited.items():
        population = PopulationPruner(size, every=epochs // (PAUSES + 1))
        found[f"population, {name}"] = population, population.sampler, how
    return found


def searched(way: Way, seed: int, size: int, epochs: int, data: TensorData) -> dict[str, float]:
    """What one search cost and found."""
    pruner, sampler, how = way
    with tempfile.TemporaryDirectory() as folder:
        training = Training(
            Classification(10, lr=(1e-3, 3e-2)),
            data,
            monitor="val_acc",
            mode="max",
            max_epochs=epochs,
            inherit=how,
            keep=3 * size,
            folder=folder,
        )
        objective = Objective(space, training)
        study = create_study(objective, sampler=sampler(seed), pruner=pruner, seed=seed)
        optimize(study, objective, n_trainings=size, show_progress=False)
        best = study.best_trial
        model = training.trained(objective.build(best), study, best)
        again = train(objective, best.params, derive_seed(seed, "again"), origin=record.origin(study))
        return {
            "spent": record.n_reported(study.trials),
            "completed": sum(record.end(trial) is record.End.COMPLETE for trial in study.trials),
            "seen": best.values[0],
            "found": training.test(model, study, best)["test_acc"],
            "scratch": again["test_acc"],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="Population-based training beside random search.")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--file", type=Path, default=Path("population.jsonl"))
    given = parser.parse_args()
    if given.seeds < 2:
        raise SystemExit("--seeds must be at least 2: one search has no interval.")
    if given.epochs <= PAUSES:
        raise SystemExit(f"--epochs must be above {PAUSES}: a population pauses so often.")
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kept = [json.loads(line) for line in given.file.read_text().splitlines()] if given.file.exists() else []
    rows = {(row["of"], row["seed"]): row for row in kept if row["size"] == [given.size, given.epochs]}
    data, all_ways = digits(batch_size=48), ways(given.size, given.epochs)
    for seed in range(given.seeds):
        for name, way in all_ways.items():
            if (name, seed) in rows:
                continue
            found = searched(way, seed, given.size, given.epochs, data)
            rows[name, seed] = {"of": name, "seed": seed, "size": [given.size, given.epochs], **found}
            with given.file.open("a") as file:
                file.write(json.dumps(rows[name, seed]) + "\n")
    print(f"{given.seeds} seeds from 0; {given.size * given.epochs} epochs a search.\n")
    print("| search | epochs | completed | validation | test, as found | lead | test, from scratch | lead |")
    print("|---|---|---|---|---|---|---|---|")
    for name in all_ways:
        of = {key: np.array([rows[name, seed][key] for seed in range(given.seeds)]) for key in rows[name, 0]}
        shown = [f"{of['spent'].mean():.0f}", f"{of['completed'].mean():.1f}", interval(of["seen"])]
        for key in ("found", "scratch"):
            plain = np.array([rows[RANDOM, seed][key] for seed in range(given.seeds)])
            lead = "" if name == RANDOM else interval(of[key] - plain, "+")
            shown += [interval(of[key]), lead]
        print(f"| {name} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
