"""Does a search by gradients end in skips on NAS-Bench-201, and do the repairs prevent it?

    python studies/benchmarks/darts.py nasbench201_cifar10.npz cifar10.npz [--seeds 5] [--epochs 14]
        [--images 10000] [--size 8] [--channels 8] [--ways plain oles] [--scores nasbench201_zero_cost.npz]
        [--file darts.jsonl]

A mixture of all cells of NAS-Bench-201, around `--cells` cells a stage with `--channels` at first, learns on
CIFAR-10 images of `--size` pixels, four fifths of them for the weights and the rest for the decisions. What
it finds is looked up in the table of published trainings, so nothing else is trained. A row has how many of
the six edges are a skip in the best cell, over seeds; its published test accuracy; and that of the one of the
five best cells that has the best published validation accuracy, which is what enqueuing five would have
found. Below: the same of random cells, which cost a training each; and, with `--scores`, of the five of a
hundred random cells that rank first in the published `jacob_cov` and parameters together, which is what
`optnas.warm_start` enqueues. `--ways` with nothing after it does this alone. Searches that stand in the file
are not done again.

Fields of the files: `optnas.hub.nasbench201.table_from`; `x_train` (n, 32, 32, 3), `y_train`; `c10_jacov` and
`c10_params` of the cells, in the order of the table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas import (
    Choice,
    Classification,
    Darts,
    Mixture,
    Objective,
    TensorData,
    Training,
    best,
    create_study,
    optimize,
    scope,
)
from optnas.data import random_flip
from optnas.facts import log_ranks
from optnas.hub import nasbench201
from optnas.hub.cells import pool, relu_conv_bn
from optnas.tasks import Cosine, Recipe
from optnas.trial import Trial

FEW, MANY = 5, 100
"""How many cells are trained, and of how many zero-cost scores choose them."""

HELD_OUT = 0.2
"""The share of the images for the decisions."""

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "second order": {"second_order": True},
    "gumbel": {"temperatures": (10.0, 0.1)},
    "partial": {"partial": 4},
    "partial and edges": {"partial": 4},  # with edge normalization: see `search`
    "beta": {"beta": 50.0},
    "oles": {"oles": 0.4},
    "perturb": {"perturb": 1},
    "perturb alone": {"lr": 0.0, "perturb": 1},
    "oles and perturb": {"oles": 0.4, "perturb": 1},
}


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class ChannelsLast(nn.Module):
    """In this order of the numbers, small convolutions and poolings are faster on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)


def operation(trial: Trial, op: str, width: int) -> nn.Module:
    if op.startswith("nor_conv"):
        return relu_conv_bn(width, width, int(op[-1]))
    return {"none": Zero, "skip_connect": nn.Identity, "avg_pool_3x3": partial(pool, "avg", 3, 1)}[op]()


def network(trial: Trial, channels: int, cells: int) -> nn.Module:
    """`nasbench201.network`, whose decisions are nodes."""
    width = channels
    layers: list[nn.Module] = [ChannelsLast(), nn.Conv2d(3, width, 3, padding=1, bias=False)]
    layers.append(nn.BatchNorm2d(width))
    for stage in range(3):
        if stage:
            layers.append(nasbench201.Reduction(width, 2 * width))
            width *= 2
        ops = {op: partial(operation, op=op, width=width) for op in nasbench201.OPS}
        for _ in range(cells):
            names = [f"{i}-{j}" for i, j in nasbench201.EDGES]
            edges = {name: Choice(name, ops)(scope(trial, "edge")) for name in names}
            layers.append(nasbench201.Cell(edges))
    end = [nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
    return nn.Sequential(*layers, *end)


def images(path: str, n: int, size: int) -> TensorData:
    with np.load(path, allow_pickle=False) as file:
        rows = np.random.default_rng(0).choice(len(file["y_train"]), n, replace=False)
        x, y = torch.from_numpy(file["x_train"][rows]), torch.from_numpy(file["y_train"][rows]).long()
    x = ((x / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)).permute(0, 3, 1, 2)
    x = functional.avg_pool2d(x, 32 // size)
    first = round(n * (1 - HELD_OUT))
    val = (x[first:], y[first:])
    return TensorData((x[:first], y[:first]), val=val, test=val, batch_size=64, augment=random_flip)


def search(way: str, data: TensorData, seed: int, given: argparse.Namespace) -> list[Mapping[str, Any]]:
    """The five best cells."""
    sgd = partial(torch.optim.SGD, momentum=0.9, nesterov=True)
    recipe = Recipe(sgd, schedule=Cosine(warmup=0.0, floor=0.04), clip=5.0)
    task = Classification(10, lr=given.weights_lr, weight_decay=5e-4, recipe=recipe)
    space = partial(network, channels=given.channels, cells=given.cells)
    with tempfile.TemporaryDirectory() as folder:
        learning = Training(
            Darts(task, **{"lr": given.lr, **WAYS[way]}),
            data,
            monitor="progress",
            mode="max",
            max_epochs=given.epochs,
            folder=folder,
        )
        groups = [[f"edge.{i}-{j}" for i, j in nasbench201.EDGES if j == node] for node in (1, 2, 3)]
        edges = groups if "edges" in way else []
        objective = Objective(Mixture(space, (2, 3, given.size, given.size), edges=edges).untrained, learning)
        study = create_study(objective, seed=seed)
        optimize(study, objective, n_trials=1, show_progress=False)
        mixture: Mixture = best(study, objective).model()  # type: ignore[assignment]
    return mixture.networks(FEW)


def main() -> None:
    parser = argparse.ArgumentParser(description="Search a cell of NAS-Bench-201 by gradients.")
    parser.add_argument("table")
    parser.add_argument("images")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--images", type=int, default=10_000, dest="n")
    parser.add_argument("--size", type=int, default=8, choices=[4, 8, 16, 32])
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--lr", type=float, default=0.015)
    parser.add_argument("--weights-lr", type=float, default=0.05)
    parser.add_argument("--scores")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=["plain", "perturb alone"])
    parser.add_argument("--file", type=Path, default=Path("darts.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = nasbench201.table_from(given.table)
    row_of = {key: i for i, key in enumerate(table.keys)}
    validation, test = np.nanmean(table.values, 1), table.test
    assert test is not None
    data = images(given.images, given.n, given.size)
    settings = [given.epochs, given.n, given.cells, given.channels, given.lr, given.size, given.weights_lr]
    kept = [json.loads(line) for line in given.file.read_text().splitlines()] if given.file.exists() else []
    found = {
        (row["way"], row["seed"]): row
        for row in kept
        if row["settings"] == settings and row["options"] == str(WAYS.get(row["way"]))
    }
    print(
        f"{given.seeds} seeds from {given.first_seed}; {given.epochs} epochs, {given.n} images of "
        f"{given.size} pixels, {given.cells} cell(s) a stage, {given.channels} channels, weights at "
        f"{given.weights_lr}, alphas at {given.lr}.\n"
    )
    print(
        "| way | skips of six edges | test accuracy, mean (worst) | best of five, mean (worst) | s a search |"
    )
    print("|---|---|---|---|---|")

    def trained(rows: Sequence[int] | np.ndarray) -> float:
        """Test accuracy of the one that would win a study that trains them all."""
        return float(test[max(rows, key=lambda row: float(validation[row]))])

    def accuracy(of: Sequence[float]) -> str:
        return f"{np.mean(of):.2f} ({min(of):.2f})"

    for way in given.ways:
        rows, took = [], []
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            if (way, seed) not in found:
                began = time.process_time()
                cells = [
                    tuple(p[f"edge.{i}-{j}"] for i, j in nasbench201.EDGES)
                    for p in search(way, data, seed, given)
                ]
                found[way, seed] = {
                    "way": way,
                    "seed": seed,
                    "settings": settings,
                    "options": str(WAYS[way]),
                    "rows": [row_of[cell] for cell in cells],
                    "seconds": time.process_time() - began,
                }
                with given.file.open("a") as file:
                    file.write(json.dumps(found[way, seed]) + "\n")
            rows.append(found[way, seed]["rows"])
            took.append(found[way, seed]["seconds"])
        skips = ", ".join(str(table.keys[of[0]].count("skip_connect")) for of in rows)
        columns = [
            accuracy([float(test[of[0]]) for of in rows]),
            accuracy([trained(of) for of in rows]),
        ]
        print(f"| {way} | {skips} | {' | '.join(columns)} | {np.mean(took):.0f} |", flush=True)
    rng = np.random.default_rng(0)
    for n in (1, FEW, 10):
        drawn = rng.integers(len(table.keys), size=(1000, n))
        print(f"| best of {n} random, 1000 times | | | {np.mean([trained(of) for of in drawn]):.2f} | |")
    if given.scores:
        with np.load(given.scores, allow_pickle=False) as file:
            scores = {name: file[f"c10_{name}"] for name in ("jacov", "params")}
        chosen = []
        for drawn in rng.integers(len(table.keys), size=(1000, MANY)):
            order = np.argsort(-log_ranks({name: of[drawn] for name, of in scores.items()}))
            chosen.append(trained(drawn[order[:FEW]]))
        print(f"| {FEW} of {MANY} random by zero-cost scores, 1000 times | | | {accuracy(chosen)} | |")


if __name__ == "__main__":
    main()
