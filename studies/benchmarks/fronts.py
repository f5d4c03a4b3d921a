"""Several objectives on NAS-Bench-201: how much of the true front does each sampler find, and how soon?

    python studies/benchmarks/fronts.py nasbench201_cifar10.npz
    python studies/benchmarks/fronts.py nasbench201_cifar10.npz --latency nasbench201_hw.npz --seeds 3

Validation accuracy (mean over the published trainings, maximized) against FLOPs, or against the latencies of
HW-NAS-Bench, a table for each device, which nobody knows before the trial; what a device could not run has
the largest latency of all. The hypervolume is that up to (60 %, the largest cost); near its end it is flat,
so that 1 - hypervolume / that of the true front is what tells. Columns: that after 50, 100 and 200
evaluations, mean ± half of its 95 % interval over the seeds; how many members of the true front were tried;
at how many networks a trial the sampler looked; milliseconds of processor time a trial, without these looks.
What a look takes is printed last. Settings were chosen with seeds from 1000.

Rows: random search, the floor; Optuna's samplers; evolution and local search of ours; the predictor from the
six answers alone, and as `create_study` makes it, which looks at networks, of one cell a stage here. It knows
FLOPs exactly before the trial, and models latencies as it models the accuracy. A network that one seed has
looked at takes no other seed time; each seed knows of its own looks only.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from scipy import stats

from optnas import private
from optnas.answers import ParamsKey, params_key
from optnas.hub import nasbench201
from optnas.strategy.evolution import RegularizedEvolutionSampler
from optnas.strategy.local_search import LocalSearchSampler
from optnas.strategy.predictor import PredictorSampler
from optnas.strategy.structures import Structures
from optnas.trial import Trial, replay

COUNTS = (50, 100, 200)
WORST_ACCURACY = 60.0
EXAMPLE = (2, 3, 32, 32)
LOOKS: list[float] = []
"""Seconds of each look at a network that no seed had looked at before."""

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


class _Looks(Structures):
    """As one seed alone has them, in the time of those that no seed had before."""

    _shared: ClassVar = Structures(lambda trial: nasbench201.network(trial, cells=1), EXAMPLE)

    def __init__(self, table: nasbench201.Table) -> None:
        super().__init__(table.space, EXAMPLE)
        self.own: set[ParamsKey] = set()

    def space(self, trial: Trial) -> Any:
        return self._space(trial)

    def knows(self, params: Params) -> bool:
        return params_key(params) in self.own

    def __call__(self, params: Params) -> Mapping[str, float]:
        self.own.add(params_key(params))
        start = time.process_time()
        new = not self._shared.knows(params)
        seen = self._shared(params)
        if new:
            LOOKS.append(time.process_time() - start)
        return seen


def _looking(problem: Problem, seed: int) -> PredictorSampler:
    sampler = PredictorSampler(problem.table.space, costs=problem.costs, example=EXAMPLE, seed=seed)
    sampler._structures = _Looks(problem.table)  # in place of those that build what the questions come from
    return sampler


def _samplers(problem: Problem) -> dict[str, Callable[[int], BaseSampler]]:
    space, costs = problem.table.space, problem.costs
    return {
        "random": lambda seed: RandomSampler(seed=seed),
        "NSGA-II": lambda seed: NSGAIISampler(seed=seed),
        "NSGA-II, population 20": lambda seed: NSGAIISampler(seed=seed, population_size=20),
        "TPE": lambda seed: TPESampler(seed=seed),
        "GP": lambda seed: GPSampler(seed=seed),
        "evolution": lambda seed: RegularizedEvolutionSampler(seed=seed),
        "local search": lambda seed: LocalSearchSampler(seed=seed),
        "predictor": lambda seed: PredictorSampler(space, costs=costs, seed=seed),
        "predictor, structure": lambda seed: _looking(problem, seed),
    }


def _run(sampler: BaseSampler, problem: Problem, n_trials: int) -> tuple[list[float], int, float, float]:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.set_metric_names(["val_acc", "cost"])
    start, looked = time.process_time(), sum(LOOKS)
    study.optimize(problem, n_trials=n_trials)
    seconds = (time.process_time() - start - (sum(LOOKS) - looked)) / n_trials
    looks = sampler._structures if isinstance(sampler, PredictorSampler) else None
    n_looks = len(looks.own) if isinstance(looks, _Looks) else 0
    losses = np.array([trial.values for trial in study.get_trials(deepcopy=False)]) * [-1.0, 1.0]
    missing = [
        1 - private.hypervolume(losses[:n], problem.reference) / problem.volume
        for n in COUNTS
        if n <= n_trials
    ]
    return missing, len(set(map(tuple, losses.tolist())) & problem.front), n_looks / n_trials, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--latency", type=Path, metavar="FILE")
    parser.add_argument("--devices", nargs="+", help="by default all of the file")
    parser.add_argument("--samplers", nargs="+")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=200)
    given = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name, problem in _problems(given):
        print(f"\naccuracy against {name}: {len(problem.front)} cells on the front; {given.seeds} seeds\n")
        _compare(problem, given)


def _problems(given: argparse.Namespace) -> Iterator[tuple[str, Problem]]:
    table = nasbench201.table_from(given.table)
    if given.latency is None:
        yield "FLOPs", Problem(table, np.asarray(table.facts["flops"], dtype=float), known=True)
        return
    with np.load(given.latency) as file:
        for field in file.files:
            device = field.removeprefix("hw_").removesuffix("_latency")
            if given.devices is None or device in given.devices:
                latency = file[field].astype(float)
                latency[latency <= 0] = latency.max()
                yield f"the latency on {device}", Problem(table, latency, known=False)


def _compare(problem: Problem, given: argparse.Namespace) -> None:
    counts = [count for count in COUNTS if count <= given.trials]
    print("| sampler | " + " | ".join(f"@{n}" for n in counts) + " | found | looks | ms a trial |")
    print("|---" * (len(counts) + 4) + "|")
    for row, make in _samplers(problem).items():
        if given.samplers and row not in given.samplers:
            continue
        seeds = range(given.first_seed, given.first_seed + given.seeds)
        runs = [_run(make(seed), problem, given.trials) for seed in seeds]
        cells = [_interval([missing[i] for missing, *_ in runs]) for i in range(len(counts))]
        found, looks, took = np.mean([rest for _, *rest in runs], axis=0)
        shown = [row, *cells, f"{found:.1f}", f"{looks:.0f}", f"{1000 * took:.0f}"]
        print("| " + " | ".join(shown) + " |", flush=True)
    if LOOKS:
        print(f"\nA look takes {1000 * np.median(LOOKS):.1f} ms.")


def _interval(values: list[float]) -> str:
    half = stats.t.ppf(0.975, max(1, len(values) - 1)) * stats.sem(values) if len(values) > 1 else np.nan
    return f"{np.mean(values):.4f} ± {half:.4f}"


if __name__ == "__main__":
    main()
