"""Compare strategies on tables of published results: every sampler, many seeds, one table.

    python studies/benchmarks/strategies.py --table nasbench201-cifar10
    python studies/benchmarks/strategies.py --table synthetic --seeds 10 --samplers random evolution
    python studies/benchmarks/strategies.py --table natsbench-size --data path/to/folder
    python studies/benchmarks/strategies.py --table nasbench201-cifar10 --running 8 --noisy

Tables that anyone can install: nasbench201-{cifar10,cifar100,imagenet16}, fcnet-{naval,parkinsons,protein,
slice}, and two formulas: synthetic, conditional, and mixed, of 8 numbers and 12 choices. From a folder of
`.npz` files: natsbench-size, nasbench-macro, and nasbench201-cifar10-test, which adds the test accuracy of
the architecture that validation chose.

The value of a trial is the mean over the published trainings; with `--noisy`, that of one of them, drawn anew
for each trial. Seeds start at 0; settings were chosen on nasbench201-cifar10 with seeds from 1000. Columns:
the mean value (never a single training's) of the architecture that is best after so many evaluations, ± half
of its 95 % interval; the difference from random search, or from `--against ROW`, after 100; in how many runs
the best row of the table was tried, and after how many evaluations on average in those; milliseconds of
processor time a trial, study bookkeeping included.

`--keep FILE` appends every run to a file and repeats none that it holds: an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from scipy import stats

from optnas.benchmarks import synthetic
from optnas.benchmarks.tabular import Table, Tabular
from optnas.hub import fcnet, nasbench201, nasbench_macro, natsbench_size
from optnas.space.explore import sample
from optnas.strategy.cmaes import MixedCmaEsSampler
from optnas.strategy.distinct import DistinctSampler
from optnas.strategy.evolution import RegularizedEvolutionSampler
from optnas.strategy.local_search import LocalSearchSampler
from optnas.strategy.padded import PaddedSampler, Slots
from optnas.strategy.predictor import PredictorSampler
from optnas.strategy.reinforce import ReinforceSampler
from optnas.trial import Space, Trial, replay

COUNTS = (25, 50, 100, 200, 300)
COMPARED = 100  # evaluations after which the difference from random search is taken

Make = Callable[[int], BaseSampler]

N_NUMBERS, N_CHOICES = 8, 12  # of the mixed formula


@dataclass(frozen=True)
class Problem:
    """What is searched; without a table, the space is the objective and its optimum is 0."""

    space: Space[Any]
    slots: Slots
    table: Table | None = None

    @property
    def direction(self) -> str:
        return self.table.direction if self.table else "minimize"

    @property
    def optimum(self) -> float:
        return float(self.table.means[self.table.best]) if self.table else 0.0


@dataclass(frozen=True)
class Run:
    """One search: what each trial was told, what that stands for, its test value; seconds a trial."""

    values: list[float]
    means: list[float]
    tests: list[float]
    seconds: float


def main() -> None:
    arguments = _arguments()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problem = _problem(arguments.table, arguments.data)
    makers = _samplers(problem)
    if unknown := {arguments.against, *(arguments.samplers or ())} - makers.keys():
        raise SystemExit(f"No such row: {', '.join(unknown)}. Rows: {', '.join(makers)}.")
    kept = _kept(arguments.keep)
    setting = f"{arguments.table}, {arguments.trials} trials, {arguments.running} running"
    setting += ", noisy" * arguments.noisy
    print(f"{setting}, {arguments.seeds} seeds from {arguments.first_seed}; optimum {problem.optimum:.6g}\n")
    counts = [count for count in COUNTS if count <= arguments.trials]
    columns = ["sampler", *(f"@{n}" for n in counts), f"- {arguments.against} @{COMPARED}"]
    columns += [f"test @{counts[-1]}"] * _has_test(problem) + ["found", "evaluations", "ms a trial"]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    others: list[Run] = []
    for name in dict.fromkeys([arguments.against, *(arguments.samplers or makers)]):
        runs = []
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            key = f"{setting}, {name}, {seed}"
            if key not in kept:
                noise = seed if arguments.noisy else None
                kept[key] = _run(makers[name](seed), problem, arguments.trials, arguments.running, noise)
                if arguments.keep:
                    with arguments.keep.open("a") as file:
                        file.write(json.dumps([key, asdict(kept[key])]) + "\n")
            runs.append(kept[key])
        others = others or runs
        print("| " + " | ".join([name, *_row(runs, others, problem, counts)]) + " |", flush=True)


def _samplers(problem: Problem) -> dict[str, Make]:
    def distinct(make: Make) -> Make:
        return lambda seed: DistinctSampler(make(seed), problem.space, seed=seed)

    def padded(make: Make) -> Make:
        return lambda seed: PaddedSampler(make(seed), problem.slots)

    def tpe_group(seed: int) -> BaseSampler:
        return TPESampler(seed=seed, multivariate=True, group=True)

    def tpe(seed: int) -> BaseSampler:
        return TPESampler(seed=seed)

    def nsga2(seed: int) -> BaseSampler:
        return NSGAIISampler(seed=seed, population_size=25)

    def nsga3(seed: int) -> BaseSampler:
        return NSGAIIISampler(seed=seed, population_size=25)

    def gp(seed: int) -> BaseSampler:
        return GPSampler(seed=seed)

    def cma_es(seed: int) -> BaseSampler:
        return CmaEsSampler(seed=seed, warn_independent_sampling=False)

    def qmc(seed: int) -> BaseSampler:
        return QMCSampler(
            seed=seed, scramble=True, warn_independent_sampling=False, warn_asynchronous_seeding=False
        )

    alone: dict[str, Make] = {
        "random": lambda seed: RandomSampler(seed=seed),
        "QMC": qmc,
        "brute force": lambda seed: BruteForceSampler(seed=seed),
        "CMA-ES": cma_es,
        "NSGA-III": nsga3,
        "NSGA-II": nsga2,
        "NSGA-II, padded": padded(nsga2),
        "TPE": tpe,
        "TPE, padded": padded(tpe),
        "TPE group": tpe_group,
        "GP": gp,
        "GP, padded": padded(gp),
        "mixed CMA-ES": lambda seed: MixedCmaEsSampler(problem.slots, seed=seed),
        "evolution": lambda seed: RegularizedEvolutionSampler(seed=seed),
        "local search": lambda seed: LocalSearchSampler(seed=seed),
        "REINFORCE": lambda seed: ReinforceSampler(seed=seed),
        "predictor": lambda seed: PredictorSampler(problem.space, seed=seed),
    }
    if problem.table:
        for name in ("NSGA-II, padded", "TPE, padded", "TPE group", "GP, padded"):
            del alone[name]  # every trial asks all questions: there is nothing to pad or to group
    else:
        del alone["brute force"]  # it refuses what is continuous
    return alone | {f"{name}, distinct": distinct(make) for name, make in alone.items()}


def _problem(name: str, folder: Path | None) -> Problem:
    if name == "synthetic":
        return Problem(synthetic.loss, synthetic.SLOTS)
    if name == "mixed":
        return Problem(mixed, _slots(mixed))
    table = _table(name, folder)
    return Problem(table.space, _slots(table.space), table)


def _slots(space: Space[Any]) -> Slots:
    """What a space asks that asks every trial the same."""
    asked = replay(sample(space, 0))
    space(asked)
    return asked.distributions


def mixed(trial: Trial) -> float:
    """How far 8 numbers and 12 choices of four are from the best, 0 or more.

    Every second number has a logarithmic range. A bowl whose axes differ tenfold and are not those of the
    numbers; choices cost up to 0.5, alike ones next to each other 0.2; the first choice moves two numbers.
    """
    rng = np.random.default_rng(0)
    scores = np.sort(rng.uniform(0.1, 0.5, (N_CHOICES, 4)), axis=1)
    scores[:, 0] = 0.0
    scores = rng.permuted(scores, axis=1)
    axes, _ = np.linalg.qr(rng.normal(size=(N_NUMBERS, N_NUMBERS)))
    bowl = axes @ np.diag(np.geomspace(0.3, 3.0, N_NUMBERS)) @ axes.T
    target = rng.uniform(0.2, 0.8, N_NUMBERS)
    choices = [trial.suggest_categorical(f"choice.{i}", range(4)) for i in range(N_CHOICES)]
    numbers = [
        (np.log10(trial.suggest_float(f"number.{i}", 1e-4, 1.0, log=True)) + 4) / 4
        if i % 2
        else trial.suggest_float(f"number.{i}", 0.0, 1.0)
        for i in range(N_NUMBERS)
    ]
    target[:2] += 0.1 * (choices[0] - int(scores[0].argmin()))
    alike = sum(a == b for a, b in itertools.pairwise(choices))
    least = sum(a == b for a, b in itertools.pairwise(scores.argmin(axis=1)))
    away = np.array(numbers) - target
    return float(away @ bowl @ away + scores[range(N_CHOICES), choices].sum() + 0.2 * max(0, alike - least))


def _table(name: str, folder: Path | None) -> Table:
    benchmark, _, rest = name.partition("-")
    if name in _FROM_FILES:
        if folder is None:
            raise SystemExit(f"--table {name} needs --data, the folder that holds its .npz file.")
        load, file = _FROM_FILES[name]
        return load(folder / file)
    if benchmark == "fcnet":
        return fcnet.table(next(task for task in fcnet.TASKS if task.startswith(rest)))
    return nasbench201.table(rest)


_FROM_FILES: dict[str, tuple[Callable[[Path], Table], str]] = {
    "nasbench201-cifar10-test": (nasbench201.table_from, "nasbench201_cifar10.npz"),
    "natsbench-size": (natsbench_size.table_from, "natsbench_size_cifar10.npz"),
    "nasbench-macro": (nasbench_macro.table_from, "nasbench_macro.npz"),
}


def _has_test(problem: Problem) -> bool:
    return problem.table is not None and problem.table.test is not None


def _kept(path: Path | None) -> dict[str, Run]:
    if path is None or not path.exists():
        return {}
    return {key: Run(**run) for key, run in map(json.loads, path.read_text().splitlines())}


def _run(sampler: BaseSampler, problem: Problem, n_trials: int, running: int, noise: int | None) -> Run:
    """Search with `running` trials under way all the time, of which the oldest ends first."""
    study = optuna.create_study(direction=problem.direction, sampler=sampler)
    objective = Tabular(problem.table, noise).objective if problem.table else problem.space
    asked: list[tuple[optuna.Trial, float]] = []
    start = time.process_time()
    for _ in range(n_trials):
        while len(asked) < running:
            trial = study.ask()
            asked.append((trial, objective(trial)))
        study.tell(*asked.pop(0))
    seconds = (time.process_time() - start) / n_trials
    trials = study.get_trials(deepcopy=False)[:n_trials]
    values = [trial.value for trial in trials]
    if problem.table is None:
        return Run(values, values, [], seconds)
    rows = [problem.table.row(problem.table.space(trial)) for trial in trials]
    tests = problem.table.test[rows].tolist() if _has_test(problem) else []
    return Run(values, problem.table.means[rows].tolist(), tests, seconds)


def _row(runs: list[Run], others: list[Run], problem: Problem, counts: list[int]) -> list[str]:
    best = [_best(run, problem) for run in runs]
    means = np.array([np.array(run.means)[chosen] for run, chosen in zip(runs, best, strict=True)])
    cells = [_interval(means[:, count - 1]) for count in counts]
    if len(means[0]) < COMPARED or len(runs) == 1 or runs is others:
        cells.append("")
    else:
        theirs = [run.means[_best(run, problem)[COMPARED - 1]] for run in others]
        cells.append(_difference(means[:, COMPARED - 1], np.array(theirs)))
    if _has_test(problem):
        cells.append(
            _interval(np.array([run.tests[b[counts[-1] - 1]] for run, b in zip(runs, best, strict=True)]))
        )
    is_found = np.abs(np.array([run.means for run in runs]) - problem.optimum) < 1e-9
    first = [row.argmax() + 1 for row in is_found if row.any()]
    cells += [f"{len(first)} of {len(runs)}", f"{np.mean(first):.0f}" if first else ""]
    return [*cells, f"{1e3 * np.mean([run.seconds for run in runs]):.1f}"]


def _best(run: Run, problem: Problem) -> np.ndarray:
    """After each trial, the index of the best so far by what the search was told."""
    values = np.array(run.values) * (1 if problem.direction == "maximize" else -1)
    before = np.maximum.accumulate(np.concatenate([[-np.inf], values[:-1]]))
    return np.maximum.accumulate(np.where(values > before, np.arange(len(values)), 0))


def _interval(values: np.ndarray) -> str:
    """The mean and half of its 95 % interval (Student)."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    return f"{values.mean():.4g} ± {0 if half < 1e-12 else half:.2g}"


def _difference(values: np.ndarray, others: np.ndarray) -> str:
    """The difference of two means and half of its 95 % interval (Welch)."""
    errors = np.array([stats.sem(values), stats.sem(others)]) ** 2
    freedom = errors.sum() ** 2 / (errors**2 / [len(values) - 1, len(others) - 1]).sum()
    half = stats.t.ppf(0.975, freedom) * errors.sum() ** 0.5
    return f"{values.mean() - others.mean():+.3g} ± {half:.2g}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare strategies on a table of published results.")
    parser.add_argument("--table", default="nasbench201-cifar10")
    parser.add_argument("--data", type=Path, help="folder of the .npz files")
    parser.add_argument("--samplers", nargs="*", help="only these rows")
    parser.add_argument("--against", default="random", help="the row that the others are compared with")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--running", type=int, default=1, help="trials under way at the same time")
    parser.add_argument("--noisy", action="store_true", help="one published training a trial, not their mean")
    parser.add_argument("--keep", type=Path, help="file that keeps finished runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
