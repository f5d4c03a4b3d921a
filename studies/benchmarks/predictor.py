"""How many evaluations PredictorSampler needs to the best cell of NAS-Bench-201.

    python studies/benchmarks/predictor.py --seeds 50 --first-seed 100
    python studies/benchmarks/predictor.py --seeds 20 --running 8
    python studies/benchmarks/predictor.py --dataset imagenet16 --limit 100 --answers-only
    python studies/benchmarks/predictor.py --late
    python studies/benchmarks/predictor.py --seeds 20 --variants "no sums" "narrower prior"

Prints one row a variant: the mean number of evaluations to the cell with the best mean validation accuracy
(runs that do not find it within the limit count as the limit), half of its 95 % interval, median and worst
run, how many did not find it, and processor milliseconds a trial. With `--running 8` eight trials are
always running. As in `create_study`, the surrogate sees the structure of the networks, here with one cell a
stage, but for `--answers-only`. `--late` prints something else: processor milliseconds a trial once 300 are
finished, there and on the conditional synthetic space. Needs `pip install optnas[bench]`. Settings were
chosen with seeds from 1000.

`--keep FILE` appends every search to a file and repeats none that it holds: what was interrupted goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import optuna

from optnas.benchmarks import synthetic
from optnas.benchmarks.tabular import Table, Tabular
from optnas.hub import nasbench201
from optnas.strategy import predictor as strategy
from optnas.strategy.predictor import PredictorSampler
from optnas.strategy.structures import Structures
from optnas.surrogate import encoder, gaussian_process

EXAMPLE = (2, 3, 32, 32)

VARIANTS: dict[str, tuple[int, AbstractContextManager[object]]] = {
    "as it comes": (10, nullcontext()),
    "5 startup trials": (5, nullcontext()),
    "no sums": (10, patch.object(encoder, "_families", lambda distributions: [])),
    "narrower prior": (10, patch.object(gaussian_process, "SPREAD", 0.6)),
    "16 looks a batch": (10, patch.object(strategy, "LOOKED", 16)),
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


def _sampler(table: Table, n_startup: int, seed: int, seen: Structures | None) -> PredictorSampler:
    if seen is None:
        return PredictorSampler(table.space, n_startup, seed=seed)
    sampler = PredictorSampler(table.space, n_startup, example=EXAMPLE, seed=seed)
    sampler._structures = seen
    return sampler


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
    # One for all searches, so that each network is looked at once.
    seen = None if arguments.answers_only else Structures(partial(nasbench201.network, cells=1), EXAMPLE)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    kept: dict[str, tuple[int, float]] = {}
    if arguments.keep is not None and arguments.keep.exists():
        kept = dict(map(json.loads, arguments.keep.read_text().splitlines()))
    print(f"{arguments.seeds} seeds from {arguments.first_seed}\n")
    print("| variant | running | mean | median | worst | not found | ms a trial |\n|" + "---|" * 7)
    for name, running in itertools.product(arguments.variants, arguments.running):
        n_startup, change = VARIANTS[name]
        setting = f"{arguments.dataset}, {'answers' if seen is None else 'structure'}, {name}"
        setting += f", {running} running, at most {arguments.limit}"
        found = []
        for seed in seeds:
            key = f"{setting}, {seed}"
            if key not in kept:
                with change:
                    start = time.process_time()
                    sampler = _sampler(table, n_startup, seed, seen)
                    needed = evaluations(table, sampler, running, arguments.limit)
                    kept[key] = needed, time.process_time() - start
                if arguments.keep is not None:
                    with arguments.keep.open("a") as file:
                        file.write(json.dumps([key, kept[key]]) + "\n")
            found.append(kept[key])
        needed, seconds = np.array(found).T
        capped = np.minimum(needed, arguments.limit)
        half = 1.96 * capped.std(ddof=1) / len(capped) ** 0.5 if len(capped) > 1 else np.nan
        print(
            f"| {name} | {running} | {capped.mean():.1f} ± {half:.1f} | {np.median(capped):.0f} "
            f"| {capped.max():.0f} | {(needed > arguments.limit).sum()} of {len(needed)} "
            f"| {1e3 * seconds.sum() / capped.sum():.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--limit", type=int, default=300, help="evaluations after which a run is given up")
    parser.add_argument("--running", type=int, nargs="+", default=[1], help="trials that are always running")
    parser.add_argument("--dataset", default="cifar10", help="or cifar100, imagenet16")
    parser.add_argument("--answers-only", action="store_true", help="do not show networks to the surrogate")
    parser.add_argument("--late", action="store_true")
    parser.add_argument("--keep", type=Path, help="file that keeps finished searches")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["as it comes"])
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    late() if arguments.late else compare(arguments)


if __name__ == "__main__":
    main()
