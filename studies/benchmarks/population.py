"""Is population-based training worth its epochs, beside random search with and without pausing?

    python studies/benchmarks/population.py [--seeds 10] [--size 8] [--epochs 16] [--file population.jsonl]

Small convolutional networks for handwritten digits (629 to train on, 809 to validate on, 359 to test on):
widths, kernels, depths and the learning rate. Each search has the epochs of `--size` whole trainings, of
`--epochs` each. *As found*: test accuracy of the trial with the best validation accuracy, as the search left
it; the network of a population has its weights from ancestors, and the learning rates of several trials
behind it. *From scratch*: the same answers, trained anew from one seed. Means over seeds with 95 % intervals
by Student; a lead is that over random search with the same seed. Halving may take some epochs more than its
share. Searches that stand in the file are not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import optuna
import torch
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import RandomSampler
from scipy import stats
from sklearn.datasets import load_digits
from torch import nn

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
from optnas.space.blocks import conv, head
from optnas.strategy import PopulationPruner
from optnas.training.inheritance import Inherit
from optnas.trial import Trial, scope

RANDOM = "random search"
PAUSES = 3
"""How often a population pauses."""


def space(trial: Trial) -> nn.Module:
    layers = []
    for stage in range(2):
        of_stage = scope(trial, "stage", stage)
        for i in range(of_stage.suggest_int("depth", 1, 3)):
            layer = scope(of_stage, "conv", i)
            layers.append(conv(layer, width=(4, 8, 12, 16), kernel=(1, 3), stride=2 if i == 0 else 1))
    return nn.Sequential(*layers, head(trial, n_classes=10))


def digits() -> TensorData:
    found = load_digits()
    x = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    return TensorData((x, torch.tensor(found.target)), val=0.45, test=0.2, batch_size=32)


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


def interval(numbers: Sequence[float] | np.ndarray, sign: str = "") -> str:
    """The mean with its 95 % interval."""
    half = stats.t.ppf(0.975, len(numbers) - 1) * np.std(numbers, ddof=1) / len(numbers) ** 0.5
    return f"{np.mean(numbers):{sign}.4f} ± {half:.4f}"


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
    data, all_ways = digits(), ways(given.size, given.epochs)
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
