"""Is population-based training worth its epochs, beside random search with and without pausing?

    python studies/benchmarks/population.py [--seeds 10] [--size 12] [--epochs 12]

Small convolutional networks for handwritten digits (629 to train on, 809 to validate on, 359 to test on):
widths, kernels, depths and the learning rate. Each search has the epochs of `--size` whole trainings. *As
found*: test accuracy of the trial with the best validation accuracy, as the search left it; the network of a
population has its weights from ancestors, and the learning rates of several trials behind it. *From scratch*:
the same answers, trained anew from one seed. Means over seeds with 95 % intervals by Student, and the lead
over random search with the same seed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable
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
    inherited: tuple[Inherit, ...] = ("shrink_perturb", "exact")
    for how in inherited:
        population = PopulationPruner(size, every=max(1, epochs // 4))
        found[f"population, {how}"] = population, population.sampler, how
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Population-based training beside random search.")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--size", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    if given.seeds < 2:
        raise SystemExit("--seeds must be at least 2: one search has no interval.")
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data, found = digits(), defaultdict(list)
    task = Classification(10, lr=(1e-3, 3e-2))
    for seed in range(given.seeds):
        for name, (pruner, sampler, how) in ways(given.size, given.epochs).items():
            with tempfile.TemporaryDirectory() as folder:
                training = Training(
                    task, data, monitor="val_acc", mode="max", max_epochs=given.epochs, inherit=how,
                    keep=2 * given.size, folder=folder,
                )  # fmt: skip
                objective = Objective(space, training)
                study = create_study(objective, sampler=sampler(seed), pruner=pruner, seed=seed)
                optimize(study, objective, n_trainings=given.size, show_progress=False)
                best = study.best_trial
                model = training.trained(objective.build(best), study, best)
                as_found = training.test(model, study, best)["test_acc"]
                again = train(objective, best.params, derive_seed(seed, "again"), origin=record.origin(study))
                spent = record.n_reported(study.trials)
                complete = sum(trial.values is not None for trial in study.trials)
                found[name].append((spent, complete, best.values[0], as_found, again["test_acc"]))
    print(f"{given.seeds} seeds from 0; {given.size * given.epochs} epochs a search.\n")
    print("| search | epochs | completed | best that it saw | as found | from scratch | lead, as found |")
    print("|---|---|---|---|---|---|---|")

    def interval(numbers: np.ndarray, sign: str = "") -> str:
        half = stats.t.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / len(numbers) ** 0.5
        return f"{numbers.mean():{sign}.4f} ± {half:.4f}"

    for name, rows in found.items():
        of, plain = np.array(rows), np.array(found[RANDOM])
        shown = " | ".join(interval(of[:, i]) for i in (2, 3, 4))
        lead = "" if name == RANDOM else interval(of[:, 3] - plain[:, 3], "+")
        print(f"| {name} | {of[:, 0].mean():.0f} | {of[:, 1].mean():.1f} | {shown} | {lead} |")


if __name__ == "__main__":
    main()
