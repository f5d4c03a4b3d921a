"""What is a finished study on other data worth?

    python studies/benchmarks/transfer.py --seeds 30

NAS-Bench-201: a study of 100 trials on CIFAR-10 is searched, and others learn from it
(`create_study(learn_from=...)`). Prints after how many evaluations the cell of the best mean validation
accuracy was found on other data: without the study, with it, with its values shuffled (it says nothing), and
with their signs changed (all that it says is wrong). Runs that did not find it within the limit count as the
limit. ± is half of a 95 % interval over the seeds; *paired* is the difference to the row without the study,
seed by seed. The sampler sees answers only. Needs `pip install optnas[bench]`.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import optuna
from optuna.trial import create_trial

from optnas import record
from optnas.benchmarks.tabular import Table
from optnas.hub import nasbench201
from optnas.strategy.predictor import PredictorSampler
from optnas.surrogate.prior import hear

ROWS = ("without", "CIFAR-10", "CIFAR-10, shuffled", "CIFAR-10, signs changed")


def told(n_trials: int, seed: int) -> optuna.Study:
    """A study on CIFAR-10."""
    table = nasbench201.table("cifar10")
    study = optuna.create_study(direction="maximize", sampler=PredictorSampler(table.space, seed=seed))
    study.optimize(lambda trial: float(table.means[table.row(table.space(trial))]), n_trials=n_trials)
    return study


def changed(study: optuna.Study, row: str, seed: int) -> optuna.Study:
    """The study with other values."""
    trials = study.get_trials(deepcopy=False)
    values = np.array([trial.value for trial in trials])
    if row.endswith("shuffled"):
        values = np.random.default_rng(seed).permutation(values)
    elif row.endswith("changed"):
        values = -values
    other = optuna.create_study(direction="maximize")
    for trial, value in zip(trials, values, strict=True):
        other.add_trial(
            create_trial(params=trial.params, distributions=trial.distributions, value=float(value))
        )
    return other


def evaluations(table: Table, other: optuna.Study | None, seed: int, limit: int) -> int:
    """Until the best cell."""
    sampler = PredictorSampler(table.space, seed=seed)
    study = optuna.create_study(direction=table.direction, sampler=sampler)
    if other is not None:
        record.write_heard(study, [hear(other)])

    def stop(study: optuna.Study, trial: Any) -> None:
        if trial.value == table.means[table.best]:
            study.stop()

    study.optimize(
        lambda trial: float(table.means[table.row(table.space(trial))]), n_trials=limit, callbacks=[stop]
    )
    return len(study.trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--trials", type=int, default=100, help="of the study that is learned from")
    parser.add_argument("--limit", type=int, default=150)
    parser.add_argument("--datasets", nargs="+", default=["cifar100"], help="or imagenet16")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    studies = {seed: told(arguments.trials, seed) for seed in seeds}
    print("| data | learned from | mean | median | worst | paired |\n|---|---|---|---|---|---|", flush=True)
    for dataset in arguments.datasets:
        table, first = nasbench201.table(dataset), np.zeros(0)
        for row in arguments.rows:
            needed = np.array(
                [
                    evaluations(
                        table,
                        None if row == "without" else changed(studies[seed], row, seed),
                        seed + 10_000,
                        arguments.limit,
                    )
                    for seed in seeds
                ],
                float,
            )
            first = first if len(first) else needed
            half, apart = (1.96 * x.std(ddof=1) / len(x) ** 0.5 for x in (needed, needed - first))
            print(
                f"| {dataset} | {row} | {needed.mean():.1f} ± {half:.1f} | {np.median(needed):.0f} "
                f"| {needed.max():.0f} | {(needed - first).mean():+.1f} ± {apart:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
