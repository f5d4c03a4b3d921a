"""Pruning with two objectives, on 265 published learning curves of CNNs, against their parameters.

    python studies/benchmarks/front_pruners.py path/to/cnn_cifar10_lc.npz

The search sees the trainings in a random order, `--orders` times from the seed `--first-order` on: validation
accuracy after 40 epochs is to be maximized, the parameters (of three 3x3 convolutions of these widths)
minimized. The hypervolume is counted up to (50 %, the most parameters), on a logarithmic scale of parameters.
Columns, ± half of a 95 % interval
over the orders: 1 - hypervolume / that of all trainings, once a search paid for as many epochs as 15, 30 and
60 trainings have; how many of the true front's members the whole search completed, of how many; how many of
them it lost, in that nothing it completed with as few parameters comes within half a point (0.5 %) of the
accuracy; by how many points the worst of these losses was, in all orders; epochs of the search.

Rows: no pruning; the rule of OptunaHub's multi_metric_pruner, written anew from its description: the
non-dominated rank of the reports so far, and the median pruner on that rank; `FrontPruner` with pruners of
one objective; `PausingFrontPruner` as it comes, under which what stops may go on. Its `chance` was chosen on
orders 0 to 19 of these curves, so that orders begin at 100.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.pruners import BasePruner, MedianPruner, NopPruner, PercentilePruner, SuccessiveHalvingPruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from optnas import private, record
from optnas.estimation.run import Run
from optnas.pareto import MultiObjectivePruner
from optnas.search.turns import end_hopeless, take_paused
from optnas.storage.base import HELD
from optnas.storage.open import claim, open_storage, storage_of
from optnas.strategy.front_pruner import FrontPruner
from optnas.strategy.halving import PromotingPruner
from optnas.strategy.pausing import PausingFrontPruner

PAID = (15, 30, 60)
WORST_ACCURACY = 0.5
TOLERANCE = 0.5  # points of accuracy
WARM_UP = 5  # an eighth of the curves

Array = NDArray[np.float64]


class RankPruner(MultiObjectivePruner):
    """Stop what has a worse non-dominated rank at its last step than the median of the others."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        step = max(record.REPORTS.of(trial) or {}, key=int)
        if int(step) < WARM_UP:
            return False
        rows, mine = [], -1
        for other in study.get_trials(deepcopy=False):
            reports = record.REPORTS.of(trial if other.number == trial.number else other) or {}
            if step in reports:
                if other.number == trial.number:
                    mine = len(rows)
                rows.append([-reports[step]["accuracy"], reports[step]["params"]])
        if len(rows) <= 5:
            return False
        ranks = private.ranks(np.array(rows))
        return bool(ranks[mine] > np.median(np.delete(ranks, mine)))


PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "none": NopPruner,
    "rank of the reports": RankPruner,
    "FrontPruner(median)": lambda: FrontPruner(MedianPruner(n_warmup_steps=WARM_UP)),
    "FrontPruner(worse than the best quarter)": lambda: FrontPruner(
        PercentilePruner(25.0, n_warmup_steps=WARM_UP)
    ),
    "FrontPruner(worse than the best tenth)": lambda: FrontPruner(
        PercentilePruner(10.0, n_warmup_steps=WARM_UP)
    ),
    "FrontPruner(successive halving)": lambda: FrontPruner(SuccessiveHalvingPruner(min_resource=2)),
    "PausingFrontPruner": PausingFrontPruner,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("curves", type=Path)
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--first-order", type=int, default=100)
    parser.add_argument("--pruners", nargs="+")
    given = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with np.load(given.curves) as file:
        curves = 1 - file["valid_error"].astype(float)
        widths = np.round(2 ** file["hp"][:, 2:].astype(float)).T
    params = 27 * widths[0] + 9 * widths[0] * widths[1] + 9 * widths[1] * widths[2] + 10 * widths[2]
    losses = np.column_stack([-curves[:, -1], np.log(params)])
    reference = np.array([-WORST_ACCURACY, losses[:, 1].max()])
    volume = private.hypervolume(losses, reference)
    front = set(np.flatnonzero(private.ranks(losses) == 0).tolist())
    print(
        "| pruner | "
        + " | ".join(f"@{n} trainings" for n in PAID)
        + f" | front, of {len(front)} | lost | worst | epochs |"
    )
    print("|---" * (len(PAID) + 5) + "|")
    for name, make in PRUNERS.items():
        if given.pruners and name not in given.pruners:
            continue
        rows = []
        for seed in range(given.first_order, given.first_order + given.orders):
            order = np.random.default_rng(seed).permutation(len(curves))
            completed, paid, epochs = _search(make(), curves, params, order)
            missing = [
                1 - private.hypervolume(losses[completed[paid <= n * curves.shape[1]]], reference) / volume
                for n in PAID
            ]
            short = 100 * _shortfalls(losses, sorted(front), completed)
            found = len(front & set(completed.tolist()))
            rows.append([*missing, found, (short > TOLERANCE).sum(), short.max(), epochs])
        means, half = np.mean(rows, axis=0), _half(np.array(rows))
        cells = [f"{mean:.4f} ± {spread:.4f}" for mean, spread in zip(means[:3], half[:3], strict=True)]
        worst = np.max(rows, axis=0)[5]
        print(
            f"| {name} | {' | '.join(cells)} | {means[3]:.1f} | {means[4]:.1f} | {worst:.1f} "
            f"| {means[6]:,.0f} |",
            flush=True,
        )


def _shortfalls(losses: Array, front: list[int], completed: NDArray[np.int64]) -> Array:
    """By how much each of the front is more accurate than the best completed that costs no more."""
    found = losses[completed]
    return np.array([found[found[:, 1] <= losses[i, 1], 0].min(initial=0.0) - losses[i, 0] for i in front])


def _search(
    pruner: BasePruner, curves: Array, params: Array, order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """The rows that were completed, how many epochs had been paid for when each was, and all of them."""
    study = optuna.create_study(
        directions=["maximize", "minimize"], pruner=pruner, storage=open_storage(None)
    )
    study.set_metric_names(["accuracy", "params"])
    completed, paid, epochs = [], [], 0
    while (run := _next(study, len(order))) is not None:
        row = order[run.number]
        record.write_facts(run, {"params": float(params[row])})
        steps = range(record.n_reports(private.stored(run)), curves.shape[1])
        for step in steps:
            epochs += 1
            run.report(step, {"accuracy": float(curves[row, step]), "params": float(params[row])})
            if step == steps[-1]:
                study.tell(run.number, [float(curves[row, step]), float(params[row])])
                completed.append(row)
                paid.append(epochs)
            elif run.should_prune():
                if isinstance(pruner, PromotingPruner):
                    storage_of(study).set_trial_system_attr(run._trial_id, HELD, True)
                    storage_of(study).set_trial_state_values(run._trial_id, TrialState.WAITING)
                    deque(end_hopeless(study), maxlen=0)
                else:
                    study.tell(run.number, state=TrialState.PRUNED)
                break
    return np.array(completed), np.array(paid), epochs


def _next(study: Study, n_trials: int) -> Run | None:
    """As `optimize`: what the pruner lets go on, or else a new trial."""
    trial_id = take_paused(study, last=False)
    if trial_id is None and len(study.get_trials(deepcopy=False)) < n_trials:
        trial_id = claim(study, None, record.COUNTS.name).trial_id
    elif trial_id is None:
        trial_id = take_paused(study, last=True)
    return None if trial_id is None else Run.of(optuna.Trial(study, trial_id))


def _half(rows: Array) -> Array:
    if len(rows) < 2:
        return np.full(rows.shape[1], math.nan)
    half: Array = stats.t.ppf(0.975, len(rows) - 1) * stats.sem(rows, axis=0)
    return half


if __name__ == "__main__":
    main()
