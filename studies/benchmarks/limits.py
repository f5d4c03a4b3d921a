"""A limit that 90 % of NAS-Bench-201 breaks: does a search within it lose anything?

    python studies/benchmarks/limits.py nasbench201_cifar10.npz --latency nasbench201_hw.npz pixel3

The latency (of HW-NAS-Bench, looked up before the trial) may be at most what one cell in ten has. Each
sampler runs under `LimitedSampler` and `DistinctSampler`, as `optnas.optimize` puts them around any. Columns:
the mean validation accuracy of the best cell within the limit after 50 and 100 trainings, ± half of a 95 %
interval over the seeds; how often the best one of all was found; trials over the limit, of all. The floors:
cells within the limit drawn at random, none twice; the slowest of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from scipy import stats

from optnas.hub import nasbench201
from optnas.limits import Limit, Within
from optnas.strategy.base import TrialSampler
from optnas.strategy.distinct import DistinctSampler
from optnas.strategy.evolution import RegularizedEvolutionSampler
from optnas.strategy.limited import LimitedSampler
from optnas.strategy.predictor import PredictorSampler
from optnas.strategy.seeded import SeededSampler
from optnas.trial import replay

COUNTS = (50, 100)

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: SeededSampler(lambda s: RandomSampler(seed=s), seed),
    "TPE": lambda seed: SeededSampler(lambda s: TPESampler(seed=s), seed),
    "evolution": lambda seed: RegularizedEvolutionSampler(seed=seed),
    "predictor": lambda seed: PredictorSampler(nasbench201.cell, seed=seed),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--latency", nargs=2, metavar=("FILE", "DEVICE"), required=True)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = nasbench201.table_from(given.table)
    file, device = given.latency
    costs = np.load(file)[f"hw_{device}_latency"].astype(float)
    high = float(np.quantile(costs, 0.1))
    feasible = np.flatnonzero(costs <= high)
    best = table.means[feasible].max()
    print(f"{len(feasible)} of {len(costs)} cells take at most {high:.3g} ms; the best has {best:.2f} %\n")
    print("| sampler | " + " | ".join(f"@{n}" for n in COUNTS) + " | found | over the limit |")
    print("|---" * (len(COUNTS) + 3) + "|")
    floor = [np.random.default_rng(seed).permutation(feasible)[: COUNTS[-1]] for seed in range(given.seeds)]
    _print("random draws of the tenth alone", [table.means[rows] for rows in floor], best, 0)
    largest = table.means[feasible[costs[feasible].argmax()]]
    print(f"| the slowest cell within it | {largest:.3f} | | | |")

    def facts(params: dict[str, str]) -> dict[str, float]:
        return {"latency": float(costs[table.row(table.space(replay(params)))])}

    for name in given.samplers:
        make = SAMPLERS[name]
        runs, n_over = [], 0
        for seed in range(given.seeds):
            within = Within(facts, [Limit("latency", high=high)])
            inner = make(seed)
            if isinstance(inner, TrialSampler):
                inner.within = within
            limited = LimitedSampler(inner, table.space, within, seed)
            sampler = DistinctSampler(limited, table.space, within=within, seed=seed)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.optimize(lambda trial: table.means[table.row(table.space(trial))], n_trials=COUNTS[-1])
            rows = [table.row(table.space(replay(trial.params))) for trial in study.trials]
            n_over += int((costs[rows] > high).sum())
            runs.append(table.means[rows])
        _print(name, runs, best, n_over)


def _print(name: str, runs: list[np.ndarray], best: float, n_over: int) -> None:
    cells = []
    for n in COUNTS:
        values = [float(run[:n].max()) for run in runs]
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
        cells.append(f"{np.mean(values):.3f} ± {half:.3f}")
    found = sum(bool((run == best).any()) for run in runs)
    n_all = sum(len(run) for run in runs)
    print(f"| {name} | {' | '.join(cells)} | {found} of {len(runs)} | {n_over} of {n_all:,} |", flush=True)


if __name__ == "__main__":
    main()
