"""How many evaluations PredictorSampler needs to the best cell of NAS-Bench-201.

    python studies/benchmarks/predictor.py --seeds 50 --first-seed 100
    python studies/benchmarks/predictor.py --seeds 20 --running 8
    python studies/benchmarks/predictor.py --dataset imagenet16 --limit 100 --answers-only
    python studies/benchmarks/predictor.py --late
    python studies/benchmarks/predictor.py --seeds 20 --variants "no sums" "narrower prior"

Prints one row a variant: the mean number of evaluations to the cell with the best mean validation accuracy
(runs that do not find it within the limit count as the limit), half of its 95 % interval, median and worst
run, how many did not find it, and processor milliseconds a trial. With `--running 8` eight trials are
always running. The surrogate sees the structure of the networks (one cell a stage), but for
`--answers-only`. `--late` prints something else: processor milliseconds a trial once 300 are finished,
there and on the conditional synthetic space. Needs `pip install optnas[bench]`. Settings were chosen with
seeds from 1000.
"""

from __future__ import annotations

import argparse
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from unittest.mock import patch

import numpy as np
import optuna

from optnas.benchmarks import synthetic
from optnas.benchmarks.tabular import Table, Tabular
from optnas.hub import nasbench201
from optnas.strategy.predictor import PredictorSampler
from optnas.strategy.structures import Structures
from optnas.surrogate import encoder, gaussian_process

VARIANTS: dict[str, tuple[int, AbstractContextManager[object]]] = {
    "as it comes": (10, nullcontext()),
    "5 startup trials": (5, nullcontext()),
    "no sums": (10, patch.object(encoder, "_families", lambda distributions: [])),
    "narrower prior": (10, patch.object(gaussian_process, "SPREAD", 0.6)),
}
"""Startup trials, and what is changed."""


def evaluations(table: Table, sampler: PredictorSampler, running: int, limit: int) -> int:
    """Trials told until the best cell is, with so many always running; more than `limit` if it is not."""
    study = optuna.create_study(direction=table.direction, sampler=sampler)
    asked: list[tuple[optuna.Trial, int]] = []
    for n in range(1, limit + 1):
        while len(asked) < running:
            trial = study.ask()
            asked.append((trial, table.row(table.space(trial))))
        trial, row = asked.pop(0)
        study.tell(trial, float(table.means[row]))
        if row == table.best:
            return n
    return limit + 1


def late() -> None:
    """Print the median of 20 trials after 300."""
    table = nasbench201.table("cifar10")
    rows = {
        "NAS-Bench-201": (table.space, Tabular(table).objective, table.direction),
        "synthetic": (synthetic.loss, synthetic.loss, "minimize"),
    }
    print("| space | ms a trial |\n|---|---|")
    for name, (space, objective, direction) in rows.items():
        study = optuna.create_study(direction=direction, sampler=PredictorSampler(space, seed=0))
        study.optimize(objective, n_trials=300)
        times = []
        for _ in range(20):
            start = time.process_time()
            study.optimize(objective, n_trials=1)
            times.append(1e3 * (time.process_time() - start))
        print(f"| {name} | {np.median(times):.0f} |", flush=True)


def compare(arguments: argparse.Namespace) -> None:
    table = nasbench201.table(arguments.dataset)
    seen = Structures(partial(nasbench201.network, cells=1), (2, 3, 32, 32))
    features = None if arguments.answers_only else seen
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    print(f"{arguments.seeds} seeds from {arguments.first_seed}, {arguments.running} running\n")
    print("| variant | mean | median | worst | not found | ms a trial |\n|---|---|---|---|---|---|")
    for name in arguments.variants:
        n_startup, change = VARIANTS[name]
        start = time.process_time()
        with change:
            needed = [
                evaluations(
                    table,
                    PredictorSampler(table.space, n_startup, features, seed=seed),
                    arguments.running,
                    arguments.limit,
                )
                for seed in seeds
            ]
        capped = np.minimum(needed, arguments.limit)
        milliseconds = 1e3 * (time.process_time() - start) / capped.sum()
        half = 1.96 * capped.std(ddof=1) / len(capped) ** 0.5 if len(capped) > 1 else np.nan
        missed = sum(n > arguments.limit for n in needed)
        print(
            f"| {name} | {capped.mean():.1f} ± {half:.1f} | {np.median(capped):.0f} | {capped.max()} "
            f"| {missed} of {len(needed)} | {milliseconds:.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--limit", type=int, default=300, help="evaluations after which a run is given up")
    parser.add_argument("--running", type=int, default=1, help="trials that are always running")
    parser.add_argument("--dataset", default="cifar10", help="or cifar100, imagenet16")
    parser.add_argument("--answers-only", action="store_true", help="do not show networks to the surrogate")
    parser.add_argument("--late", action="store_true")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["as it comes"])
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    late() if arguments.late else compare(arguments)


if __name__ == "__main__":
    main()
