"""Several objectives on NAS-Bench-201: how much of the true front does each sampler find, and how soon?

    python studies/benchmarks/fronts.py nasbench201_cifar10.npz
    python studies/benchmarks/fronts.py nasbench201_cifar10.npz --latency nasbench201_hw.npz raspi4

Validation accuracy (mean over the published trainings, maximized) against FLOPs, or against a latency of
HW-NAS-Bench, which nobody knows before the trial. The hypervolume is that up to (60 %, the largest cost);
near its end it is flat, so that 1 - hypervolume / that of the true front is what tells. Columns: that after
50, 100 and 200 evaluations, mean ± half of its 95 % interval over the seeds; how many members of the true
front were tried; milliseconds of processor time a trial, those for structures included. Settings were chosen
with seeds from 1000.

Rows: random search, the floor; Optuna's samplers; evolution and local search of ours; the predictor from the
six answers alone, and with the structure of the networks, of one cell a stage, as features
(`optnas.facts.structure`). It knows FLOPs exactly before the trial, and models latencies as it models the
accuracy. What is known of a structure is known to later seeds.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from scipy import stats

from optnas import private
from optnas.facts.structure import structure
from optnas.hub import nasbench201
from optnas.strategy.evolution import RegularizedEvolutionSampler
from optnas.strategy.local_search import LocalSearchSampler
from optnas.strategy.predictor import PredictorSampler
from optnas.trial import replay

COUNTS = (50, 100, 200)
WORST_ACCURACY = 60.0

Array = NDArray[np.float64]
Params = Mapping[str, Any]


class Problem:
    """Losses of all cells, and what of them is worth finding."""

    def __init__(self, table: nasbench201.Table, cost: Array, known: bool) -> None:
        self.table, self.cost, self.known = table, cost, known
        self.losses = np.column_stack([-table.means, cost])
        self.reference = np.array([-WORST_ACCURACY, cost.max()])
        self.front = _front(self.losses)
        self.volume = private.hypervolume(np.array(list(self.front)), self.reference)

    def row(self, params: Params) -> int:
        return self.table.row(self.table.space(replay(params)))

    def costs(self, params: Params) -> dict[str, float]:
        return {"cost": float(self.cost[self.row(params)])} if self.known else {}

    def __call__(self, trial: optuna.Trial) -> tuple[float, float]:
        accuracy, cost = self.losses[self.table.row(self.table.space(trial))]
        return -accuracy, cost


def _front(losses: Array) -> set[tuple[float, float]]:
    """In one pass over all rows, the cheapest first."""
    found, best = set(), np.inf
    for loss, cost in losses[np.lexsort((losses[:, 0], losses[:, 1]))].tolist():
        if loss < best:
            found.add((loss, cost))
            best = loss
    return found


@cache
def _structure(key: tuple[tuple[str, str], ...]) -> dict[str, float]:
    with torch.device("meta"):
        return structure(nasbench201.network(replay(dict(key)), cells=1), (2, 3, 32, 32))


def _samplers(problem: Problem) -> dict[str, Callable[[int], BaseSampler]]:
    space, costs = problem.table.space, problem.costs

    def structures(params: Params) -> dict[str, float]:
        return _structure(tuple(sorted(params.items())))

    return {
        "random": lambda seed: RandomSampler(seed=seed),
        "NSGA-II": lambda seed: NSGAIISampler(seed=seed),
        "NSGA-II, population 20": lambda seed: NSGAIISampler(seed=seed, population_size=20),
        "TPE": lambda seed: TPESampler(seed=seed),
        "GP": lambda seed: GPSampler(seed=seed),
        "evolution": lambda seed: RegularizedEvolutionSampler(seed=seed),
        "local search": lambda seed: LocalSearchSampler(seed=seed),
        "predictor": lambda seed: PredictorSampler(space, costs=costs, seed=seed),
        "predictor, structure": lambda seed: PredictorSampler(
            space, features=structures, costs=costs, seed=seed
        ),
    }


def _run(sampler: BaseSampler, problem: Problem, n_trials: int) -> tuple[list[float], int, float]:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.set_metric_names(["val_acc", "cost"])
    start = time.process_time()
    study.optimize(problem, n_trials=n_trials)
    seconds = (time.process_time() - start) / n_trials
    losses = np.array([trial.values for trial in study.get_trials(deepcopy=False)]) * [-1.0, 1.0]
    missing = [
        1 - private.hypervolume(losses[:n], problem.reference) / problem.volume
        for n in COUNTS
        if n <= n_trials
    ]
    return missing, len(set(map(tuple, losses.tolist())) & problem.front), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--latency", nargs=2, metavar=("FILE", "DEVICE"))
    parser.add_argument("--samplers", nargs="+")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=200)
    given = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = nasbench201.table_from(given.table)
    if given.latency:
        file, device = given.latency
        problem = Problem(table, np.load(file)[f"hw_{device}_latency"].astype(float), known=False)
    else:
        problem = Problem(table, np.asarray(table.facts["flops"], dtype=float), known=True)
    name = f"latency on {given.latency[1]}" if given.latency else "FLOPs"
    print(f"accuracy against {name}: {len(problem.front)} cells on the front; {given.seeds} seeds\n")
    counts = [count for count in COUNTS if count <= given.trials]
    print("| sampler | " + " | ".join(f"@{n}" for n in counts) + " | found | ms a trial |")
    print("|---" * (len(counts) + 3) + "|")
    for row, make in _samplers(problem).items():
        if given.samplers and row not in given.samplers:
            continue
        seeds = range(given.first_seed, given.first_seed + given.seeds)
        runs = [_run(make(seed), problem, given.trials) for seed in seeds]
        cells = [_interval([missing[i] for missing, _, _ in runs]) for i in range(len(counts))]
        found = np.mean([n for _, n, _ in runs])
        took = 1000 * np.mean([seconds for _, _, seconds in runs])
        print("| " + " | ".join([row, *cells, f"{found:.1f}", f"{took:.0f}"]) + " |", flush=True)


def _interval(values: list[float]) -> str:
    half = stats.t.ppf(0.975, max(1, len(values) - 1)) * stats.sem(values) if len(values) > 1 else np.nan
    return f"{np.mean(values):.4f} ± {half:.4f}"


if __name__ == "__main__":
    main()
