"""What pruners save and what they lose, on learning curves of real trainings taken in random order.

    python studies/benchmarks/pruners.py --storage sqlite:///curves.db
    python studies/benchmarks/pruners.py --data path/to/folder

The first trains 200 random networks of studies/digits_cnn.py without pruning (half an hour; what is in the
storage is not trained again) and replays their curves. The second replays published ones from `.npz` files:
`cnn_cifar10_lc` (265 CNNs, 40 epochs) and `taskset_curves` (1,000 optimizer settings of four text RNNs, 51
points).

A search sees the trainings in an order of its own (20 orders, ± half of a 95 % interval over them). Columns:
how many of all trainings are better than the best that it completed, after 60 trials, and once it paid for
as many epochs as 15 and 30 trainings have; what those 60 trials cost, in trainings; how many of them were
completed. A training's value is that of its best epoch, as `Training` returns it.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.trial import TrialState
from scipy import stats

from optnas import create_study, optimize
from optnas.search.study import default_pruner

sys.path.insert(0, str(Path(__file__).parents[1]))
import digits_cnn

N_TRAINED = 200
N_TRIALS = 60
PAID = (15, 30)

# Of the number of steps.
PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "none": lambda n: NopPruner(),
    "median, Optuna's default": lambda n: MedianPruner(),
    "median after 1/8 (ours)": default_pruner,
    "median after 1/4": lambda n: MedianPruner(n_warmup_steps=math.ceil(n / 4)),
    "worst quarter after 1/8": lambda n: PercentilePruner(75.0, n_warmup_steps=math.ceil(n / 8)),
    "successive halving": lambda n: SuccessiveHalvingPruner(),
    "successive halving by 3 from 1/12": lambda n: SuccessiveHalvingPruner(math.ceil(n / 12), 3),
    "Hyperband": lambda n: HyperbandPruner(max_resource=n),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare pruners on learning curves.")
    parser.add_argument("--storage", help="train networks of digits_cnn.py, and keep them there")
    parser.add_argument("--data", type=Path, help="folder of the published curves")
    parser.add_argument("--orders", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.storage is None and arguments.data is None:
        parser.error("say --storage, --data, or both")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tables = dict(_published(arguments.data)) if arguments.data else {}
    if arguments.storage:
        tables["digits_cnn"] = _train(arguments.storage)
    paid = " | ".join(f"paid for {n}" for n in PAID)
    print(f"| curves | pruner | after {N_TRIALS} trials | cost | completed | {paid} |")
    print("|---|---|---|---|---|" + "---|" * len(PAID))
    for name, curves in tables.items():
        for pruner, make in PRUNERS.items():
            runs = [_search(curves, make(curves.shape[1]), seed) for seed in range(arguments.orders)]
            cells = (_interval(column) for column in np.transpose(runs))
            print(f"| {name} | {pruner} | {' | '.join(cells)} |", flush=True)


def _train(storage: str) -> NDArray[np.float64]:
    """The validation loss of random networks after each epoch, `(networks, epochs)`."""
    study = create_study(
        digits_cnn.objective,
        study_name="curves",
        storage=storage,
        sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed),
        pruner=NopPruner(),
        seed=0,
    )
    optimize(study, digits_cnn.objective, N_TRAINED)
    curves = [list(trial.intermediate_values.values()) for trial in study.get_trials(deepcopy=False)]
    return np.array([curve for curve in curves if len(curve) == digits_cnn.estimator.max_epochs])


def _published(folder: Path) -> Iterator[tuple[str, NDArray[np.float64]]]:
    yield "CNNs, CIFAR-10", np.load(folder / "cnn_cifar10_lc.npz")["valid_error"]
    with np.load(folder / "taskset_curves.npz") as taskset:
        names = [name for name in taskset.files if name.endswith("__valid")]
        for i, name in enumerate(names, 1):
            yield f"TaskSet, text RNN {i}", taskset[name]


def _search(curves: NDArray[np.float64], pruner: BasePruner, seed: int) -> list[float]:
    """One row of the table, from one order."""
    n, n_steps = curves.shape
    values = np.nanmin(np.where(np.isfinite(curves), curves, np.nan), axis=1, initial=np.inf)
    study = optuna.create_study(pruner=pruner)
    best, steps, n_complete = np.inf, 0, 0
    after: dict[str, float] = {}
    for count, row in enumerate(np.random.default_rng(seed).permutation(n), 1):
        trial = study.ask()
        for step, value in enumerate(curves[row]):
            trial.report(float(value), step)
            steps += 1
            if not np.isfinite(value) or trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, float(values[row]))
            best = min(best, values[row])
            n_complete += 1
        better = int((values < best).sum())
        for n_paid in PAID:
            if steps <= n_paid * n_steps:
                after[f"paid {n_paid}"] = better
        if count == N_TRIALS:
            after |= {"trials": better, "cost": steps / n_steps, "completed": n_complete}
        if count >= N_TRIALS and steps > max(PAID) * n_steps:
            break
    return [after[name] for name in ("trials", "cost", "completed", *(f"paid {n}" for n in PAID))]


def _interval(column: NDArray[np.float64]) -> str:
    half = stats.t.ppf(0.975, len(column) - 1) * column.std(ddof=1) / math.sqrt(len(column))
    return f"{column.mean():.3g} ± {half:.2g}"


if __name__ == "__main__":
    main()
