"""Pruners and what they do with samplers: whole searches, replayed on learning curves of real trainings.

    python studies/benchmarks/pruners.py --storage sqlite:///curves.db
    python studies/benchmarks/pruners.py --data path/to/folder
    python studies/benchmarks/pruners.py --data path/to/folder --sampler predictor --workers 8 --orders 5

The first trains 200 random networks of studies/digits_cnn.py without pruning (half an hour; what is in the
storage is not trained again) and replays their curves. The second replays published ones from `.npz` files:
`cnn_cifar10_lc` (265 CNNs, 40 epochs) and `taskset_curves` (1,000 optimizer settings of four text RNNs, 51
points). `--file` adds curves of your own, a JSON line each: `{"task", "params", "curve"}`.

With `--sampler random` a search sees the trainings in an order of its own. Any other sampler proposes
hyperparameters, and gets the training next to them that it does not have yet. Workers are simulated: each
trains one report a time, and all reports take equally long.

Columns (± half of a 95 % interval over the orders): how many of all trainings are better than the best that
the search completed, after 60 trials, and once it paid for as many reports as 15 and 30 trainings have; what
those 60 trials cost, in trainings; how many of them were completed. A training's value is that of its best
report, as `Training` returns it.
"""

import argparse
import heapq
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from scipy import stats

from optnas import PredictorSampler, create_study, optimize, record
from optnas.storage.base import HELD
from optnas.storage.open import claim
from optnas.strategy.halving import HalvingPruner, PromotingPruner

sys.path.insert(0, str(Path(__file__).parents[1]))
import digits_cnn

N_TRAINED = 200
N_TRIALS = 60

# Of the number of reports.
PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "none": lambda n: NopPruner(),
    "median, Optuna's default": lambda n: MedianPruner(),
    "median after 1/8": lambda n: MedianPruner(n_warmup_steps=math.ceil(n / 8)),
    "worst quarter after 1/8": lambda n: PercentilePruner(75.0, n_warmup_steps=math.ceil(n / 8)),
    "successive halving": lambda n: SuccessiveHalvingPruner(),
    "Hyperband": lambda n: HyperbandPruner(max_resource=n),
    "HalvingPruner (ours)": lambda n: HalvingPruner(),
}


@dataclass(frozen=True)
class Table:
    """Trainings: their curves as losses, `(trainings, reports)`, and what they were trained with."""

    name: str
    curves: NDArray[np.float64]
    params: list[dict[str, Any]]
    distributions: Mapping[str, BaseDistribution]

    @property
    def values(self) -> NDArray[np.float64]:
        finite = np.where(np.isfinite(self.curves), self.curves, np.nan)
        return np.nanmin(finite, axis=1, initial=np.inf)

    def ask(self, trial: Any) -> None:
        """All hyperparameters; of a conditional space, those that its first answers lead to."""
        asked: dict[str, Any] = {}
        for name, distribution in self.distributions.items():
            if any(name in params and _agree(params, asked) for params in self.params):
                asked[name] = _ask(trial, name, distribution)

    def nearest(self, params: Mapping[str, Any], but: set[int]) -> int:
        """The training with the closest hyperparameters that is not in `but`."""
        apart = [
            sum(self._apart(name, params.get(name), own.get(name)) for name in self.distributions)
            if i not in but
            else np.inf
            for i, own in enumerate(self.params)
        ]
        return int(np.argmin(apart))

    def _apart(self, name: str, one: Any, other: Any) -> float:
        distribution = self.distributions[name]
        if one is None or other is None:
            return float(one is not other)
        if not isinstance(distribution, FloatDistribution):
            return float(one != other)
        scale = math.log if distribution.log else float
        return abs(scale(one) - scale(other)) / (scale(distribution.high) - scale(distribution.low))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare pruners on learning curves.")
    parser.add_argument("--storage", help="train networks of digits_cnn.py, and keep them there")
    parser.add_argument("--data", type=Path, help="folder of the published curves")
    parser.add_argument("--file", type=Path, help="curves of your own")
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--paid", type=int, nargs="+", default=[15, 30], help="in trainings")
    parser.add_argument("--sampler", choices=["random", "predictor", "TPE"], default="random")
    parser.add_argument("--pruner", action="append", choices=list(PRUNERS), help="by default all")
    parser.add_argument("--table", action="append", help="part of the name of a table; by default all")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tables = [*(_published(arguments.data) if arguments.data else ())]
    tables += [*(_own(arguments.file) if arguments.file else ())]
    if arguments.storage:
        tables.append(_train(arguments.storage))
    if not tables:
        parser.error("say --storage, --data or --file")
    paid = " | ".join(f"paid for {n}" for n in arguments.paid)
    print(f"| curves | pruner | after {N_TRIALS} trials | cost | completed | {paid} |")
    print("|---|---|---|---|---|" + "---|" * len(arguments.paid))
    for table in tables:
        if not any(part in table.name for part in arguments.table or [""]):
            continue
        for name in arguments.pruner or PRUNERS:
            runs = [
                _row(table, PRUNERS[name], arguments.sampler, arguments.workers, seed, arguments.paid)
                for seed in range(arguments.orders)
            ]
            cells = (_interval(column) for column in np.transpose(runs))
            print(f"| {table.name} | {name} | {' | '.join(cells)} |", flush=True)


def _train(storage: str) -> Table:
    """Random networks of the digits study, after each epoch."""
    study = create_study(
        digits_cnn.objective,
        study_name="curves",
        storage=storage,
        sampler=lambda seed: RandomSampler(seed=seed),
        pruner=NopPruner(),
        seed=0,
    )
    optimize(study, digits_cnn.objective, N_TRAINED)
    n = digits_cnn.estimator.max_epochs
    trials = [t for t in study.get_trials(deepcopy=False) if len(t.intermediate_values) == n]
    distributions = {name: d for trial in trials for name, d in trial.distributions.items()}
    curves = np.array([list(trial.intermediate_values.values()) for trial in trials])
    return Table("digits_cnn", curves, [trial.params for trial in trials], distributions)


def _published(folder: Path) -> Iterator[Table]:
    with np.load(folder / "cnn_cifar10_lc.npz") as cnn:
        yield Table("CNNs, CIFAR-10", cnn["valid_error"].astype(float), *_numbers(cnn["hp"], logs=False))
    with np.load(folder / "taskset_curves.npz") as taskset:
        hyperparameters = taskset["hp"].astype(float)
        hyperparameters[:, :2] = 1 - hyperparameters[:, :2]  # of the averages of Adam
        found = _numbers(hyperparameters, logs=True)
        names = [name for name in taskset.files if name.endswith("__valid")]
        for i, name in enumerate(names, 1):
            yield Table(f"TaskSet, text RNN {i}", taskset[name].astype(float), *found)


def _numbers(
    rows: NDArray[np.float64], logs: bool
) -> tuple[list[dict[str, Any]], dict[str, BaseDistribution]]:
    columns = {f"h{i}": [float(x) for x in column] for i, column in enumerate(rows.T)}
    distributions = {
        n: FloatDistribution(min(column), max(column), log=logs) for n, column in columns.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)], {
        **distributions
    }


def _own(path: Path) -> Iterator[Table]:
    """Curves of accuracies; names stand in the order in which the space asks."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for task in dict.fromkeys(line["task"] for line in lines):
        rows = [line for line in lines if line["task"] == task]
        names = dict.fromkeys(name for row in rows for name in row["params"])
        distributions: dict[str, BaseDistribution] = {}
        for name in names:
            seen = [row["params"][name] for row in rows if name in row["params"]]
            if all(type(value) is float for value in seen):
                distributions[name] = FloatDistribution(min(seen), max(seen), log=name.endswith("lr"))
            else:
                distributions[name] = CategoricalDistribution(sorted(set(seen), key=str))
        curves = 1 - np.array([row["curve"] for row in rows])
        yield Table(task, curves, [row["params"] for row in rows], distributions)


def _agree(params: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether a training was asked the same; numbers decide nothing."""
    return all(params.get(name) == value for name, value in asked.items() if not isinstance(value, float))


def _ask(trial: Any, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def _row(
    table: Table,
    make_pruner: Callable[[int], BasePruner],
    sampler: str,
    n_workers: int,
    seed: int,
    paid: Sequence[int],
) -> list[float]:
    """One row of the table, from one order."""
    n_reports = table.curves.shape[1]
    given = _Search(table, make_pruner(n_reports), sampler, seed)
    given.run(n_workers, n_trials=N_TRIALS)
    timed = _Search(table, make_pruner(n_reports), sampler, seed)
    timed.run(n_workers, n_paid=max(paid) * n_reports)
    better = [
        int((table.values < min((v for at, v in timed.found if at <= n * n_reports), default=np.inf)).sum())
        for n in paid
    ]
    best = min(value for _, value in given.found)
    return [int((table.values < best).sum()), given.n_paid / n_reports, len(given.found), *better]


class _Search:
    """`optimize` in little, with simulated time."""

    def __init__(self, table: Table, pruner: BasePruner, sampler: str, seed: int) -> None:
        self.table, self.n_paid = table, 0
        self.found: list[tuple[int, float]] = []  # what had been paid, and the value
        self._order = None
        makers: dict[str, Callable[[], BaseSampler]] = {
            "predictor": lambda: PredictorSampler(table.ask, seed=seed),
            "TPE": lambda: TPESampler(seed=seed),
            "random": lambda: RandomSampler(seed=seed),
        }
        if sampler == "random":
            self._order = iter(np.random.default_rng(seed).permutation(len(table.curves)).tolist())
        self._study = optuna.create_study(sampler=makers[sampler](), pruner=pruner)
        self._rows: dict[int, int] = {}

    def run(self, n_workers: int, n_trials: int | None = None, n_paid: int | None = None) -> None:
        """Until so many trials are done, or so many reports were paid."""
        turns = [(0, worker) for worker in range(n_workers)]  # when who is free
        running: dict[int, optuna.Trial] = {}
        while turns and (n_paid is None or self.n_paid < n_paid):
            now, worker = heapq.heappop(turns)
            if worker in running and not self._report(running[worker]):
                del running[worker]
            if worker not in running:
                trial = self._next(n_trials)
                if trial is None:
                    if running:  # what the others come to may let another go on
                        heapq.heappush(turns, (now + 1, worker))
                    continue
                running[worker] = trial
            heapq.heappush(turns, (now + 1, worker))

    def _next(self, n_trials: int | None) -> optuna.Trial | None:
        trial = self._paused(last=False)
        if trial is None and (n_trials is None or len(self._rows) < n_trials):
            if len(self._rows) == len(self.table.curves):
                return None
            trial_id = claim(self._study, None, record.COUNTS.name).trial_id
            trial = optuna.Trial(self._study, trial_id)
            if self._order is not None:
                self._rows[trial.number] = next(self._order)
            else:
                self.table.ask(trial)
                self._rows[trial.number] = self.table.nearest(trial.params, set(self._rows.values()))
        return trial or self._paused(last=True)

    def _paused(self, last: bool) -> optuna.Trial | None:
        pruner = self._study.pruner
        if (
            not isinstance(pruner, PromotingPruner)
            or (chosen := pruner.promote(self._study, last=last)) is None
        ):
            return None
        trial_id = claim(self._study, None, record.COUNTS.name, wanted=chosen._trial_id).trial_id
        record.LET_GO_ON.write(self._study, chosen, len(chosen.intermediate_values))
        return optuna.Trial(self._study, trial_id)

    def _report(self, trial: optuna.Trial) -> bool:
        """One report more; whether the trial goes on."""
        curve = self.table.curves[self._rows[trial.number]]
        storage = self._study._storage
        step = len(storage.get_trial(trial._trial_id).intermediate_values)
        self.n_paid += 1
        trial.report(float(curve[step]), step)
        if not np.isfinite(curve[step]):
            self._study.tell(trial, state=TrialState.PRUNED)
            return False
        if step + 1 == len(curve):
            value = float(self.table.values[self._rows[trial.number]])
            self._study.tell(trial, value)
            self.found.append((self.n_paid, value))
            return False
        if not trial.should_prune():
            return True
        if isinstance(self._study.pruner, PromotingPruner):
            storage.set_trial_system_attr(trial._trial_id, HELD, True)
            storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        else:
            self._study.tell(trial, state=TrialState.PRUNED)
        return False


def _interval(column: NDArray[np.float64]) -> str:
    half = stats.t.ppf(0.975, len(column) - 1) * column.std(ddof=1) / math.sqrt(len(column))
    return f"{column.mean():.3g} ± {half:.2g}"


if __name__ == "__main__":
    main()
