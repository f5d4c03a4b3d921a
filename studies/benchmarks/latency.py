"""How well the latency of all cells of NAS-Bench-201 is predicted from a few measured ones.

    python studies/benchmarks/latency.py path/to/nasbench201_cifar10.npz path/to/nasbench201_hw.npz
    python studies/benchmarks/latency.py --repeat 20

Prints a row for each device of HW-NAS-Bench: Spearman's correlation of the prediction with the published
latency on cells that were not measured, after 10, 20 and 30 measurements, beside FLOPs alone; what the
predictor itself says of its rank with 30 (from held-out cells); how often it refuses to be a limit; and that
of the surrogate of a `PredictorSampler` after 30 trials, to which the latency is an objective like any other.
Means over `--seeds` choices of the measured cells. Cells that a device could not run (latency not above 0)
are left out. `--repeat` prints something else: how many of so many measurements of each of ten networks on
this machine lie within the interval of another one.

Fields of the files: `optnas.hub.nasbench201.table_from`; `hw_<device>_latency` (15625,).
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import create_trial
from scipy.stats import spearmanr
from torch import nn

from optnas.devices import measure_latency
from optnas.devices.prediction import fit_operations
from optnas.facts.layers import Operation, operations
from optnas.hub import nasbench201
from optnas.strategy.structures import Structures
from optnas.surrogate.front import HEADROOM
from optnas.surrogate.model import Surrogate
from optnas.trial import replay

IMAGE = (1, 3, 32, 32)
SIZES = (10, 20, 30)
CELLS = 600  # of which some are measured


def network(ops: tuple[str, ...], **settings: int) -> nn.Module:
    return nasbench201.network(replay(answers_of(ops)), **settings)


def found_in(ops: tuple[str, ...]) -> list[Operation]:
    with torch.device("meta"):
        return operations(network(ops, cells=1), IMAGE)  # what is stacked is repeated


def answers_of(ops: tuple[str, ...]) -> dict[str, str]:
    return {f"edge.{i}-{j}": op for (i, j), op in zip(nasbench201.EDGES, ops, strict=True)}


def predict(table: str, latencies: str, seeds: int) -> None:
    keys = nasbench201.table_from(table).keys
    rows = np.random.default_rng(0).choice(len(keys), CELLS, replace=False)
    cells = [found_in(keys[row]) for row in rows]
    params = [answers_of(keys[row]) for row in rows]
    seen = Structures(lambda trial: nasbench201.network(trial, cells=1), IMAGE)
    flops = np.array([sum(o.flops for o in cell) for cell in cells])
    head = " | ".join(f"{n} measured" for n in SIZES)
    titles = f"FLOPs alone | {head} | says of itself | refuses | as an objective"
    print(f"| device | {titles} |\n|{'---|' * (len(SIZES) + 5)}")
    means = []
    with np.load(latencies, allow_pickle=False) as file:
        for name in (name for name in file.files if name.endswith("_latency")):
            y = file[name][rows]
            runs = [one(cells, y, seed) for seed in range(seeds)]
            ranks = np.array([run[0] for run in runs])
            valid = y > 0
            free = spearmanr(flops[valid], y[valid]).statistic
            shown = " | ".join(f"{mean:.3f}" for mean in ranks.mean(0))
            says = np.mean([run[1] for run in runs])
            refuses = sum(not run[2] for run in runs)
            aims = np.mean([as_objective(params, seen, y, seed) for seed in range(seeds)])
            device = name.removeprefix("hw_").removesuffix("_latency")
            print(
                f"| {device} | {free:.3f} | {shown} | {says:.3f} | {refuses} of {seeds} | {aims:.3f} |",
                flush=True,
            )
            means.append([*ranks.mean(0), aims])
    *known, aims = np.mean(means, 0)
    print(f"| mean | | {' | '.join(f'{mean:.3f}' for mean in known)} | | | {aims:.3f} |")


def as_objective(params: list[dict[str, str]], seen: Structures, y: np.ndarray, seed: int) -> float:
    """Spearman on the other cells of what a sampler expects after as many trials as measurements."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(y > 0))
    choices = {name: CategoricalDistribution(nasbench201.OPS) for name in params[0]}
    trials = [
        create_trial(params=params[i], distributions=choices, value=float(y[i])) for i in order[: max(SIZES)]
    ]
    surrogate = Surrogate(StudyDirection.MINIMIZE, seen, HEADROOM).fit(trials)
    others = order[max(SIZES) :]
    expected, _ = surrogate.predict([params[i] for i in others])
    return float(spearmanr(expected, y[others]).statistic)


def one(cells: list[list[Operation]], y: np.ndarray, seed: int) -> tuple[list[float], float, bool]:
    """Spearman on the other cells after each number of measurements; what the last predictor says."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(y > 0))
    ranks = []
    for n in SIZES:
        known, other = order[:n], order[max(SIZES) :]
        predictor = fit_operations([cells[i] for i in known], y[known], IMAGE)
        predicted = [predictor.predict_operations(cells[i]) for i in other]
        ranks.append(float(spearmanr(predicted, y[other]).statistic))
    return ranks, predictor.rank.spearman.value, predictor.trusted


def repeat(n: int) -> None:
    rng = np.random.default_rng(0)
    print("| network | median ms | narrow | within another's interval |\n|---|---|---|---|")
    held = []
    for i in range(10):
        ops = tuple(nasbench201.OPS[k] for k in rng.integers(len(nasbench201.OPS), size=6))
        found = [measure_latency(network(ops, cells=1), IMAGE, threads=1) for _ in range(n)]
        held.append(np.mean([a.low <= b.median <= a.high for a in found for b in found if a is not b]))
        narrow = sum(one.narrow for one in found)
        print(
            f"| {i} | {1000 * np.median([o.median for o in found]):.3f} | {narrow} of {n} | {held[-1]:.1%} |"
        )
    print(f"| all | | | {np.mean(held):.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Predict latencies from a few, or repeat measurements.")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.repeat:
        repeat(arguments.repeat)
    else:
        predict(*arguments.files, arguments.seeds)


if __name__ == "__main__":
    main()
