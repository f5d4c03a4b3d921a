"""Learn a cell for handwritten digits by gradients (DARTS), and train what comes of it.

    python studies/digits_darts.py [--way repaired] [--epochs 30] [--seed 0]
        [--storage sqlite:///digits_darts.db]

A cell of four nodes, whose six edges are a skip, a pooling or a convolution with a kernel of 1 or 3 each:
4096 cells, three of which follow each other in a network, as in NAS-Bench-201 but small. A mixture of all of
them is trained once, weights and decisions in turn. Its five most promising cells are trained from scratch;
beside them stand as many random cells as could have been trained in the same time, and, decided before
anything ran, the cell with a 3x3 convolution on every edge. The table has the validation loss by which each
chose, and test accuracy (mean of three further trainings). What was done is kept in the storage: an
interrupted run goes on.
"""

import argparse
import math
from functools import partial

import optuna
import torch
from sklearn.datasets import load_digits
from torch import nn

from optnas import (
    Choice,
    Classification,
    Darts,
    Mixture,
    Objective,
    TensorData,
    Training,
    Trial,
    best,
    create_study,
    optimize,
    record,
    scope,
)
from optnas.hub.cells import pool, relu_conv_bn
from optnas.hub.nasbench201 import EDGES, Cell, Reduction
from optnas.search.best import Best, Mean

EPOCHS = 15
WAYS = {
    "repaired": {"oles": 0.4, "perturb": 1},
    "plain": {},
    "second": {"second_order": True},
    "gumbel": {"temperatures": (10.0, 0.1)},
    "partial": {"partial": 4},
    "beta": {"beta": 50.0},
}
BY_HAND = {f"edge.{i}-{j}": "conv3" for i, j in EDGES}


def skip(trial: Trial) -> nn.Module:
    return nn.Identity()


def average(trial: Trial) -> nn.Module:
    return pool("avg", 3, 1)


def convolution(trial: Trial, width: int, kernel: int) -> nn.Module:
    return relu_conv_bn(width, width, kernel)


def cell(trial: Trial, width: int) -> Cell:
    """Its decisions have the same names wherever it stands: one cell, repeated."""
    ops = {f"conv{kernel}": partial(convolution, width=width, kernel=kernel) for kernel in (1, 3)}
    ops |= {"skip": skip, "pool": average}
    edges = [f"{i}-{j}" for i, j in EDGES]
    return Cell({edge: Choice(edge, ops)(scope(trial, "edge")) for edge in edges})


def network(trial: Trial) -> nn.Module:
    stem = [nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)]
    body = [cell(trial, 4), Reduction(4, 8), cell(trial, 8), Reduction(8, 16), cell(trial, 16)]
    end = [nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
    return nn.Sequential(*stem, *body, *end)


def digits() -> TensorData:
    """629 samples to train on, 809 to validate on."""
    found = load_digits()
    x = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    return TensorData((x, torch.tensor(found.target)), val=0.45, test=0.2, batch_size=64)


def training(task, max_epochs: int, monitor: str, mode: str) -> Training:
    return Training(task, digits(), monitor=monitor, mode=mode, max_epochs=max_epochs)


def seconds(study: optuna.Study) -> list[float]:
    return [record.DURATION.of(trial) or 0.0 for trial in study.trials if record.counts(trial)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--way", choices=WAYS, default="repaired")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", default="sqlite:///digits_darts.db")
    given = parser.parse_args()
    way, seed = given.way, given.seed

    def study_of(objective: Objective, name: str) -> optuna.Study:
        return create_study(
            objective,
            study_name=f"{name}-{seed}",
            storage=given.storage,
            sampler=optuna.samplers.RandomSampler(seed=seed),
            pruner=optuna.pruners.NopPruner(),
            seed=seed,
        )

    task = Classification(10)
    learned = Objective(
        Mixture(network, (2, 1, 8, 8)).untrained,
        training(Darts(task, lr=0.01, **WAYS[way]), given.epochs, "progress", "max"),
    )
    once = study_of(learned, f"{way}-{given.epochs}")
    optimize(once, learned, n_trials=1, show_progress=False)
    mixture = best(once, learned).model()
    metrics = record.METRICS.of(once.trials[0]) or {}
    print(f"The mixture: skips {metrics['skips']:.2f}, gap {metrics['gap']:.3f}.")

    alone = Objective(network, training(task, EPOCHS, "val_loss", "min"))
    by_hand = study_of(alone, "by-hand")
    by_hand.enqueue_trial(BY_HAND, skip_if_exists=True)
    optimize(by_hand, alone, n_trials=1, show_progress=False)
    finals = study_of(alone, f"finals-{way}-{given.epochs}")
    mixture.enqueue(finals, n_trials=5)
    optimize(finals, alone, n_trials=5, show_progress=False)
    one = sum(seconds(finals)) / len(seconds(finals))
    spent = sum(seconds(once)) / one + len(seconds(finals))
    plain = study_of(alone, "random")
    optimize(plain, alone, n_trials=math.ceil(spent), show_progress=False)

    print(f"{'':<28}{'trainings':>10}{'val_loss':>10}{'test accuracy':>18}")
    for name, cost, study in (
        (f"DARTS ({way}), best of five", spent, finals),
        ("random", math.ceil(spent), plain),
        ("3x3 convolutions everywhere", 1, by_hand),
    ):
        complete = [trial for trial in study.trials[: math.ceil(spent)] if trial.values]
        found = Best(study, alone, min(complete, key=lambda trial: trial.values[0]))
        accuracy = Mean.of([run["test_acc"] for run in found.retrain(3)])
        print(f"{name:<28}{cost:>10.1f}{found.value:>10.4f}{accuracy!s:>18}   {found.params}")


if __name__ == "__main__":
    main()
