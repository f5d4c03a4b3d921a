"""What PredictorSampler owes to its settings: evaluations to the best cell of NAS-Bench-201 on CIFAR-10.

    python studies/benchmarks/predictor.py --seeds 20

Prints one row a variant: the mean number of evaluations to the cell with the best mean validation accuracy
(runs that do not find it within the limit count as the limit), its 95 % interval, the worst run, and the
share of runs that did not find it. Needs `pip install optnas[bench]`. Settings were chosen with seeds from
1000; `--first-seed 0` evaluates them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import optuna

from optnas.estimation.tables import nasbench201
from optnas.estimation.tabular import Table
from optnas.strategy.predictor import PredictorSampler


class OnePrior(PredictorSampler):
    spreads = (1.0,)


class OneNarrowPrior(PredictorSampler):
    spreads = (0.6,)


Make = Callable[[Table, int], PredictorSampler]
VARIANTS: dict[str, tuple[Make, int]] = {
    "as it comes": (lambda table, seed: PredictorSampler(table.space, seed=seed), 1),
    "10 startup trials": (lambda table, seed: PredictorSampler(table.space, 10, seed=seed), 1),
    "one prior": (lambda table, seed: OnePrior(table.space, seed=seed), 1),
    "one narrow prior": (lambda table, seed: OneNarrowPrior(table.space, seed=seed), 1),
    "8 trials running": (lambda table, seed: PredictorSampler(table.space, seed=seed), 8),
}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--limit", type=int, default=300, help="evaluations after which a run is given up")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = nasbench201("cifar10")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    print(f"{'variant':20} {'mean':>6} {'95 %':>6} {'worst':>6} {'missed':>7}")
    for name in arguments.variants:
        make, running = VARIANTS[name]
        needed = np.array([evaluations(table, make(table, s), running, arguments.limit) for s in seeds])
        capped = np.minimum(needed, arguments.limit)
        half = 1.96 * capped.std() / np.sqrt(len(capped))
        missed = np.mean(needed > arguments.limit)
        print(f"{name:20} {capped.mean():6.1f} {half:6.1f} {capped.max():6d} {missed:7.0%}", flush=True)


if __name__ == "__main__":
    main()
