"""Are the explanations true? On NAS-Bench-201, where the value of every other architecture is known.

    pip install "optnas[bench]"
    python studies/benchmarks/explain.py               # 100 studies of 200 random trials, two minutes

Each trial's value is one published training, drawn at random; the truth is the mean of all of them. Two
questions: how near are the predicted changes when one decision of the best architecture is changed, and does
the suggested smaller space still hold architectures as good as the best there is?

Measured: the median error of a predicted change is 0.45 points of accuracy (95 % interval over the studies:
0.41 to 0.50), where the median change is 0.62. The 95 % ranges hold 95 % of the true changes; narrower ones
hold more than they state (the 50 % ranges 65 %), as a few errors are much larger than the others. Of the
changes said to be improvements with a chance under 5 %, which are half of all, 3 % are. The smaller space
keeps 52 % of the architectures; its best one is 0.04 points below the best of all on average, 0.60 in the
worst study, and the best trial 0.52.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table as RichTable
from scipy.stats import norm, spearmanr

from optnas.analysis import importance
from optnas.analysis.narrow import Narrowed, smaller_space
from optnas.analysis.worth import decision_worth
from optnas.benchmarks.tabular import Table, Tabular
from optnas.hub import nasbench201
from optnas.trial import replay

NAMES = [f"edge.{i}-{j}" for i, j in nasbench201.EDGES]


def run(table: Table, seed: int, n_trials: int) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed), direction=table.direction)
    study.optimize(Tabular(table, seed=seed).objective, n_trials=n_trials)
    return study


def changes(table: Table, study: optuna.Study) -> list[tuple[float, float, float, float]]:
    """Every other answer of the best trial: true and predicted change, its standard deviation, and the stated
    probability that it is an improvement."""

    def truth(params: dict[str, object]) -> float:
        return float(table.means[table.row(table.space(replay(params)))])

    best = study.best_trial
    return [
        (truth({**best.params, w.name: a.answer}) - truth(best.params), a.predicted, a.deviation, a.better)
        for w in decision_worth(study, best)
        for a in w.alternatives
    ]


def inside(table: Table, narrowed: tuple[Narrowed, ...]) -> np.ndarray:
    """Which rows of the table the smaller space holds."""
    keys = np.array(table.keys)
    mask = np.ones(len(keys), dtype=bool)
    for n in narrowed:
        mask &= np.isin(keys[:, NAMES.index(n.name)], n.choices)
    return mask


def interval(figure: Callable[[Sequence[np.ndarray]], float], studies: Sequence[np.ndarray]) -> str:
    """A figure of the changes of all studies, with its 95 % interval by bootstrap over the studies."""
    rng = np.random.default_rng(0)
    drawn = [figure([studies[i] for i in rng.integers(0, len(studies), len(studies))]) for _ in range(1000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{figure(studies):.3f} ({low:.3f} to {high:.3f})"


def median_error(studies: Sequence[np.ndarray]) -> float:
    truth, predicted, _, _ = np.vstack(studies).T
    return float(np.median(np.abs(predicted - truth)))


def correlation(studies: Sequence[np.ndarray]) -> float:
    truth, predicted, _, _ = np.vstack(studies).T
    return float(spearmanr(predicted, truth)[0])


def held(studies: Sequence[np.ndarray], level: float) -> float:
    """The share of true changes within the central range of this probability."""
    truth, predicted, deviation, _ = np.vstack(studies).T
    return float(np.mean(np.abs(predicted - truth) < norm.ppf((1 + level) / 2) * deviation))


def improving(studies: Sequence[np.ndarray], low: float, high: float) -> float:
    """The share of improvements among the changes with a stated chance between these."""
    truth, _, _, chance = np.vstack(studies).T
    return float(np.mean(truth[(low <= chance) & (chance < high)] > 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    n_seeds = parser.parse_args().seeds
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    table = nasbench201.table()
    means = table.means
    found, regrets, best_found, sizes = [], [], [], []
    for seed in range(n_seeds):
        study = run(table, seed, 200)
        found.append(np.array(changes(table, study)))
        mask = inside(table, smaller_space(study, study.best_trial, importance(study)))
        regrets.append(means.max() - means[mask].max())
        best_found.append(means.max() - means[table.row(table.space(replay(study.best_trial.params)))])
        sizes.append(mask.mean())
    true_changes, _, _, chances = np.vstack(found).T
    result = RichTable(
        title=f"{n_seeds} studies of 200 random trials of {table.name}, validation accuracy in %"
    )
    result.add_column("")
    result.add_column("value", justify="right")
    for name, value in (
        ("changes compared", f"{len(true_changes)}"),
        ("true change, median size", f"{np.median(np.abs(true_changes)):.3f}"),
        ("error of the predicted change, median", interval(median_error, found)),
        ("rank correlation of predicted and true change", interval(correlation, found)),
        *(
            (f"{level:.0%} ranges that hold the true change", interval(partial(held, level=level), found))
            for level in (0.5, 0.8, 0.95)
        ),
        *(
            (
                f"improvements, where {low:.0%} to {high:.0%} was stated "
                f"({np.mean((low <= chances) & (chances < high)):.0%} of the changes)",
                interval(partial(improving, low=low, high=high), found),
            )
            for low, high in ((0.0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 1.0))
        ),
        ("smaller space, share of all architectures", f"{np.mean(sizes):.0%}"),
        ("its best below the best of all, mean", f"{np.mean(regrets):.3f}"),
        ("its best below the best of all, worst study", f"{np.max(regrets):.3f}"),
        ("best trial below the best of all, mean", f"{np.mean(best_found):.3f}"),
    ):
        result.add_row(name, value)
    Console(width=100).print(result)


if __name__ == "__main__":
    main()
