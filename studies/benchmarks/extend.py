"""Is a search that was extended as good as one that had the whole space from the start?

    python studies/benchmarks/extend.py --seeds 20

NAS-Bench-201 on CIFAR-10. A study of 200 trials has four of the five operations on five of the six edges;
then `optnas.extend` adds the fifth to each of them, and the search goes on. Prints, for each operation that
is added, how many trials were carried over, the best mean validation accuracy before, after 25 more and after
100 more trials, that of a study with the whole space after 25, 100 and 300 trials, and after how many trials
either found the best cell, counted from the extension and from the start (those that did not within 100 and
300 count as that). ± is half of a 95 % interval over the seeds. The sampler sees answers only; values are
from the table, so a network that is quickly built stands for each cell. Needs `pip install optnas[bench]`.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import optuna
from torch import nn

import optnas
from optnas.benchmarks.tabular import Table, Tabular
from optnas.hub import nasbench201
from optnas.search.study import SamplerFactory
from optnas.strategy.predictor import PredictorSampler
from optnas.trial import Trial

BEFORE, MORE = 200, 100


class Restricted:
    """A trial that offers operations but one, on all edges but the first."""

    def __init__(self, trial: Trial, without: str) -> None:
        self._trial, self._without = trial, without

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        first = f"edge.{'-'.join(map(str, nasbench201.EDGES[0]))}"
        left = [op for op in choices if name == first or op != self._without]
        return self._trial.suggest_categorical(name, left)


def network(trial: Trial, without: str = "") -> nn.Module:
    """Another graph for each cell."""
    kinds = dict(zip(nasbench201.OPS, (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.GELU), strict=True))
    cell = nasbench201.cell(Restricted(trial, without))  # type: ignore[arg-type]  # it asks nothing else
    return nn.Sequential(nn.Linear(2, 2), *(kinds[op]() for op in cell))


class Rows(Tabular):
    """The table, for either space."""

    def __init__(self, table: Table, without: str = "") -> None:
        super().__init__(table)
        self.without = without

    def __call__(self, model: object, trial: Any) -> dict[str, float]:
        row = self.table.row(nasbench201.cell(Restricted(trial, self.without)))  # type: ignore[arg-type]
        return {self.table.metric: float(self.table.means[row])}

    def ask(self, model: object, trial: Trial) -> None:
        nasbench201.cell(Restricted(trial, self.without))  # type: ignore[arg-type]


def objective(table: Table, without: str = "") -> optnas.Objective:
    return optnas.Objective(
        partial(network, without=without), Rows(table, without), example=(1, 2), reuse_twins=False
    )


def search(study: optuna.Study, own: optnas.Objective, n_trials: int, best: float) -> None:
    """Up to the best cell."""

    def stop(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if trial.value == best:
            study.stop()

    optnas.optimize(study, own, n_trials=n_trials, callbacks=[stop])


def best_after(study: optuna.Study, n: int) -> float:
    return max(trial.value for trial in study.get_trials(deepcopy=False)[:n] if trial.value is not None)


def compare(table: Table, added: str, seeds: int) -> list[list[float]]:
    best, rows = float(table.means.max()), []
    for seed in range(seeds):
        full, part = objective(table), objective(table, added)

        def create(own: optnas.Objective, name: str, seed: int = seed) -> optuna.Study:
            return optnas.create_study(own, study_name=name, sampler=_sampler(own), seed=seed)

        study, whole = create(part, "part"), create(full, "whole")
        optnas.optimize(study, part, n_trials=BEFORE)
        extension = optnas.extend(study, full, study_name="grown", sampler=_sampler(full))
        search(extension.study, full, BEFORE + MORE, best)
        search(whole, full, BEFORE + MORE, best)
        grown = extension.study
        rows.append(
            [
                len(extension.carried),
                best_after(grown, BEFORE),
                *(best_after(grown, BEFORE + n) for n in (25, MORE)),
                *(best_after(whole, n) for n in (25, MORE, BEFORE + MORE)),
                *(_found(s, best) - n for s, n in ((grown, BEFORE), (whole, 0))),
            ]
        )
        print(f"{added}, seed {seed}: {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def _sampler(own: optnas.Objective) -> SamplerFactory:
    """It asks, and builds nothing."""
    return lambda seed: PredictorSampler(lambda trial: own.estimator.ask(nn.Identity(), trial), seed=seed)


def _found(study: optuna.Study, best: float) -> int:
    values = [trial.value for trial in study.get_trials(deepcopy=False)]
    return values.index(best) + 1 if best in values else len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--added", nargs="+", default=["nor_conv_3x3", "skip_connect"])
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    table = nasbench201.table("cifar10")
    print(
        "| added | carried | extended: before | after 25 more | after 100 more | whole space: after 25 "
        "| after 100 | after 300 | trials to the best cell, extended | whole space |"
    )
    print("|" + "---|" * 10)
    for added in arguments.added:
        found = np.array(compare(table, added, arguments.seeds))
        half = 1.96 * found.std(axis=0, ddof=1) / len(found) ** 0.5 if len(found) > 1 else 0 * found[0]
        cells = [f"{m:.4g} ± {h:.2g}" for m, h in zip(found.mean(axis=0), half, strict=True)]
        print(f"| {added} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
