"""Compare strategies on tables of published results: every sampler, many seeds, one table.

    python studies/benchmarks/strategies.py --table nasbench201-cifar10 --seeds 20
    python studies/benchmarks/strategies.py --table synthetic --seeds 10 --samplers random evolution
    python studies/benchmarks/strategies.py --table natsbench-size --data path/to/folder

Tables that anyone can install: nasbench201-{cifar10,cifar100,imagenet16}, fcnet-{naval,parkinsons,protein,
slice}, synthetic (a formula, conditional). From a folder of `.npz` files: natsbench-size, nasbench-macro, and
nasbench201-cifar10-test, which adds the test accuracy of the architecture that validation chose.

The value of a trial is the mean over the published trainings. Seeds start at 0; settings were chosen on
nasbench201-cifar10 with seeds from 1000. Columns: mean best value after so many evaluations, with the half
width of its 95 % interval; in how many runs the best row of the table was found, and after how many
evaluations on average in those; milliseconds of processor time a trial, study
bookkeeping included.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from optnas.estimation import tables
from optnas.estimation.tabular import Table, Tabular
from optnas.space import synthetic
from optnas.space.explore import sample
from optnas.strategy.cmaes import MixedCmaEsSampler
from optnas.strategy.distinct import DistinctSampler
from optnas.strategy.evolution import RegularizedEvolutionSampler
from optnas.strategy.local_search import LocalSearchSampler
from optnas.strategy.padded import PaddedSampler, Slots
from optnas.strategy.predictor import PredictorSampler
from optnas.strategy.reinforce import ReinforceSampler
from optnas.trial import Space, replay

COUNTS = (50, 100, 200, 300)


@dataclass(frozen=True)
class Problem:
    """What is searched: its objective, its space, and the value of its best architecture."""

    objective: Callable[[optuna.Trial], float]
    space: Space[object]
    slots: Slots
    direction: str
    optimum: float


def main() -> None:
    arguments = _arguments()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problem = _problem(arguments.table, arguments.data)
    makers = _samplers(problem)
    if unknown := set(arguments.samplers or ()) - makers.keys():
        raise SystemExit(f"No such row: {', '.join(unknown)}. Rows: {', '.join(makers)}.")
    counts = [count for count in COUNTS if count <= arguments.trials]
    seeds = f"{arguments.seeds} seeds from {arguments.first_seed}"
    print(f"{arguments.table}, {seeds}; optimum {problem.optimum:.6g}\n")
    columns = ["sampler", *(f"best @{n}" for n in counts), "found", "evaluations", "ms a trial"]
    if _tests(problem):
        columns.insert(-3, f"test @{counts[-1]}")
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for name in arguments.samplers or makers:
        runs = [
            _run(makers[name](seed), problem, arguments.trials)
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        ]
        print("| " + " | ".join([name, *_row(runs, problem, counts)]) + " |", flush=True)


def _samplers(problem: Problem) -> dict[str, Callable[[int], BaseSampler]]:
    def distinct(make: Callable[[int], BaseSampler]) -> Callable[[int], BaseSampler]:
        return lambda seed: DistinctSampler(make(seed), problem.space, seed=seed)

    def padded(make: Callable[[int], BaseSampler]) -> Callable[[int], BaseSampler]:
        return lambda seed: PaddedSampler(make(seed), problem.slots)

    def tpe_group(seed: int) -> BaseSampler:
        return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=False)

    def tpe(seed: int) -> BaseSampler:
        return TPESampler(seed=seed)

    def nsga2(seed: int) -> BaseSampler:
        return NSGAIISampler(seed=seed, population_size=25)

    def gp(seed: int) -> BaseSampler:
        return GPSampler(seed=seed)

    makers: dict[str, Callable[[int], BaseSampler]] = {
        "random": lambda seed: RandomSampler(seed=seed),
        "random, distinct": distinct(lambda seed: RandomSampler(seed=seed)),
        "NSGA-II": nsga2,
        "NSGA-II, padded": padded(nsga2),
        "TPE": tpe,
        "TPE, padded": padded(tpe),
        "TPE group": tpe_group,
        "TPE group, distinct": distinct(tpe_group),
        "mixed CMA-ES": lambda seed: MixedCmaEsSampler(problem.slots, seed=seed),
        "mixed CMA-ES, distinct": distinct(lambda seed: MixedCmaEsSampler(problem.slots, seed=seed)),
        "evolution": lambda seed: RegularizedEvolutionSampler(seed=seed),
        "evolution, distinct": distinct(lambda seed: RegularizedEvolutionSampler(seed=seed)),
        "local search": lambda seed: LocalSearchSampler(seed=seed),
        "local search, distinct": distinct(lambda seed: LocalSearchSampler(seed=seed)),
        "REINFORCE": lambda seed: ReinforceSampler(seed=seed),
        "predictor": lambda seed: PredictorSampler(problem.space, seed=seed),
        "GP": gp,
        "GP, padded": padded(gp),
    }
    if problem.space is not synthetic.loss:
        for name in ("NSGA-II, padded", "TPE, padded", "GP, padded"):
            del makers[name]  # every trial asks all questions: there is nothing to pad
    return makers


def _problem(name: str, folder: Path | None) -> Problem:
    if name == "synthetic":
        return Problem(synthetic.loss, synthetic.loss, synthetic.SLOTS, "minimize", 0.0)
    table = _table(name, folder)
    asked = replay(sample(table.space, 0))  # every trial is asked the same
    table.space(asked)
    optimum = float(table.means[table.best])
    return Problem(Tabular(table).objective, table.space, asked.distributions, table.direction, optimum)


def _table(name: str, folder: Path | None) -> Table:
    benchmark, _, rest = name.partition("-")
    if name in _FROM_FILES:
        if folder is None:
            raise SystemExit(f"--table {name} needs --data, the folder that holds its .npz file.")
        load, file = _FROM_FILES[name]
        return load(folder / file)
    if benchmark == "fcnet":
        return tables.fcnet(next(task for task in tables.FCNET_TASKS if task.startswith(rest)))
    return tables.nasbench201(rest)


_FROM_FILES: dict[str, tuple[Callable[[Path], Table], str]] = {
    "nasbench201-cifar10-test": (tables.nasbench201_npz, "nasbench201_cifar10.npz"),
    "natsbench-size": (tables.natsbench_size_npz, "natsbench_size_cifar10.npz"),
    "nasbench-macro": (tables.nasbench_macro_npz, "nasbench_macro.npz"),
}


@dataclass(frozen=True)
class Run:
    """One search: each trial's value and, where there is one, test value; processor seconds a trial."""

    values: np.ndarray
    tests: np.ndarray
    seconds: float


def _run(sampler: BaseSampler, problem: Problem, n_trials: int) -> Run:
    study = optuna.create_study(direction=problem.direction, sampler=sampler)
    start = time.process_time()
    study.optimize(problem.objective, n_trials=n_trials)
    seconds = (time.process_time() - start) / n_trials
    trials = study.trials
    tests = [trial.user_attrs.get("metrics", {}).get("test", np.nan) for trial in trials]
    return Run(np.array([trial.value for trial in trials]), np.array(tests), seconds)


def _row(runs: list[Run], problem: Problem, counts: list[int]) -> list[str]:
    sign = 1 if problem.direction == "maximize" else -1
    values = np.array([run.values for run in runs]) * sign
    best = np.maximum.accumulate(values, axis=1)
    cells = [_interval(sign * best[:, count - 1]) for count in counts]
    if _tests(problem):
        chosen = [run.tests[row[: counts[-1]].argmax()] for run, row in zip(runs, values, strict=True)]
        cells.append(_interval(np.array(chosen)))
    is_found = best >= sign * problem.optimum - 1e-9
    first = [row.argmax() + 1 for row in is_found if row.any()]
    milliseconds = 1e3 * np.mean([run.seconds for run in runs])
    return [
        *cells,
        f"{len(first)} of {len(runs)}",
        f"{np.mean(first):.0f}" if first else "",
        f"{milliseconds:.1f}",
    ]


def _interval(values: np.ndarray) -> str:
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{values.mean():.4g} ± {0 if half < 1e-12 else half:.2g}"


def _tests(problem: Problem) -> bool:
    """Whether the table has test values; asked of a random trial."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    study.optimize(problem.objective, n_trials=1)
    return "test" in study.trials[0].user_attrs.get("metrics", {})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare strategies on a table of published results.")
    parser.add_argument("--table", default="nasbench201-cifar10")
    parser.add_argument("--data", type=Path, help="folder of the .npz files")
    parser.add_argument("--samplers", nargs="*", help="only these rows")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=300)
    return parser.parse_args()


if __name__ == "__main__":
    main()
