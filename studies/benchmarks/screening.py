"""Epochs to the best cell of NAS-Bench-201, where every cell is trained for 12 epochs and few for 200.

    python studies/benchmarks/screening.py nasbench201_cifar10.npz --seeds 50

A cell costs 12 epochs to screen (a training of its own, which the table has) and 200 more in full. The best
cell is that of the best mean validation accuracy, 91.61. Columns: epochs paid until it was trained in full
(of a search that did not find it, `--limit`), half of the 95 % interval of their mean, and the most; in how
many searches it was found within 2,500 epochs; and the validation and test accuracy of the best cell trained
in full within these. Rows:

- `Screening`: the default sampler and `ScreeningPruner`, both of which see the structure of the networks.
- `Screening, answers only`: both see the answers alone.
- `Screening, random cells`: the pruner sees the answers, and cells are drawn at random.
- `random cells, the best in full`: as many as 2,500 epochs allow where a tenth is trained in full, chosen by
  12 epochs alone.
- `N largest, M best in full`: no search: the cells with the most parameters for 12 epochs, and the best of
  them in full; what that finds does not depend on chance.

`--keep FILE` appends every search to a file and repeats none that it holds. Settings were chosen with seeds
from 1000.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState
from scipy import stats

from optnas import private, record
from optnas.benchmarks.tabular import Table
from optnas.hub import nasbench201
from optnas.storage.base import HELD
from optnas.storage.open import claim
from optnas.strategy.predictor import PredictorSampler
from optnas.strategy.screening import ScreeningPruner
from optnas.strategy.structures import Structures

CHEAP, WHOLE = 12, 200
"""Epochs."""

BUDGET = 2500

EXAMPLE = (2, 3, 32, 32)

Full = list[tuple[int, int]]
"""The rows that were trained in full, each with the epochs that were paid by then."""


def search(
    table: Table, cheap: np.ndarray, sampler: BaseSampler, pruner: ScreeningPruner, limit: int
) -> Full:
    """One search, until the best cell is trained in full or so many epochs are spent."""
    study = optuna.create_study(direction=table.direction, sampler=sampler, pruner=pruner)
    rows: dict[int, int] = {}
    found: Full = []
    paid = 0
    while paid < limit:
        chosen = pruner.promote(study, last=False)
        if chosen is None:
            trial = optuna.Trial(study, claim(study, None, record.COUNTS.name).trial_id)
            rows[trial.number] = table.row(table.space(trial))
            _screened(trial, float(cheap[rows[trial.number]]))
            paid += CHEAP
            continue
        row = rows[chosen.number]
        private.storage(study).set_trial_state_values(private.trial_id(chosen), TrialState.RUNNING)
        study.tell(chosen.number, float(table.means[row]))
        paid += WHOLE
        found.append((row, paid))
        if row == table.best:
            break
    return found


def _screened(trial: optuna.Trial, value: float) -> None:
    """Note the cheap score, and pause."""
    about = {"name": "val_acc", "value": value, "better": "higher", "reports": CHEAP, "seconds": 0.0}
    record.SCREENED.write(trial, about)
    storage, trial_id = private.storage(trial.study), private.trial_id(trial)
    storage.set_trial_system_attr(trial_id, HELD, True)
    storage.set_trial_state_values(trial_id, TrialState.WAITING)


def at_random(table: Table, cheap: np.ndarray, seed: int) -> Full:
    """Cells drawn at random, of which the best tenth by 12 epochs is trained in full."""
    n = int(BUDGET / (CHEAP + WHOLE / 10))
    rows = np.random.default_rng(seed).choice(len(table.keys), n, replace=False)
    return _best_in_full(rows, cheap, n // 10)


def largest(table: Table, cheap: np.ndarray, n: int, n_full: int) -> Full:
    """The cells with the most parameters, and the best of them by 12 epochs."""
    rows = np.argsort(-table.facts["n_params"], kind="stable")[:n]
    return _best_in_full(rows, cheap, n_full)


def _best_in_full(rows: np.ndarray, cheap: np.ndarray, n_full: int) -> Full:
    best = rows[np.argsort(-cheap[rows], kind="stable")[:n_full]]
    return [(int(row), len(rows) * CHEAP + (i + 1) * WHOLE) for i, row in enumerate(best)]


def line(name: str, table: Table, searches: list[Full], limit: int) -> str:
    """A row of the table."""
    paid = np.array([next((at for row, at in full if row == table.best), limit) for full in searches])
    within = [[row for row, at in full if at <= BUDGET] or [full[0][0]] for full in searches]
    best = np.array([max(rows, key=lambda row: table.means[row]) for rows in within])
    cells = [_mean(paid, ".0f"), f"{paid.max()}", f"{(paid <= BUDGET).sum()} of {len(paid)}"]
    assert table.test is not None
    cells += [_mean(table.means[best], ".2f"), _mean(table.test[best], ".2f")]
    return "| " + " | ".join([name, *cells]) + " |"


def _mean(values: np.ndarray, figures: str) -> str:
    if len(values) == 1:
        return f"{values[0]:{figures}}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():{figures}} ± {0 if half < 1e-12 else half:.2g}"


def main() -> None:
    arguments = _arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = nasbench201.table_from(arguments.path)
    with np.load(arguments.path, allow_pickle=False) as file:
        cheap = file["c10_val_acc_12"].astype(float)
    seen = Structures(partial(nasbench201.network, cells=1), EXAMPLE)
    kept: dict[str, Full] = {}
    if arguments.keep is not None and arguments.keep.exists():
        kept = dict(map(json.loads, arguments.keep.read_text().splitlines()))
    print(f"{arguments.seeds} seeds from {arguments.first_seed}; at most {arguments.limit:,} epochs\n")
    print("| | epochs | most | found | validation | test |\n|---|---|---|---|---|---|")

    def run(name: str, seed: int) -> Full:
        if name == "random cells, the best in full":
            return at_random(table, cheap, seed)
        features = seen if name == "Screening" else None
        sampler: BaseSampler = RandomSampler(seed=seed)
        if name != "Screening, random cells":
            example = None if features is None else EXAMPLE
            sampler = predictor = PredictorSampler(table.space, example=example, seed=seed)
            predictor._structures = features  # one for all searches, so that each network is looked at once
        return search(table, cheap, sampler, ScreeningPruner(features=features), arguments.limit)

    for name in arguments.rows:
        searches = []
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            key = f"{name}, {arguments.limit}, {seed}"
            if key not in kept:
                kept[key] = run(name, seed)
                if arguments.keep is not None:
                    with arguments.keep.open("a") as file:
                        file.write(json.dumps([key, kept[key]]) + "\n")
            searches.append(kept[key])
        print(line(name, table, searches, arguments.limit), flush=True)
    for n, n_full in ((32, 1), (128, 5)):
        print(
            line(
                f"{n} largest, {n_full} best in full",
                table,
                [largest(table, cheap, n, n_full)],
                arguments.limit,
            )
        )


ROWS = ("Screening", "Screening, answers only", "Screening, random cells", "random cells, the best in full")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("path", type=Path, help="nasbench201_cifar10.npz")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=6000, help="epochs after which a search is given up")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--keep", type=Path, help="file that keeps finished searches")
    return parser.parse_args()


if __name__ == "__main__":
    main()
