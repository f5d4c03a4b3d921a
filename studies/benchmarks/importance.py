"""Does importance rank the decisions of a conditional space rightly? Ours beside Optuna's evaluators.

    python studies/benchmarks/importance.py            # 100 studies of 200 random trials, ten minutes
    python studies/benchmarks/importance.py --seeds 20 --only "fANOVA, padded"

The metric is a sum of independent effects of known variance plus noise (standard deviation 0.3), so the share
of variance that a decision explains among the trials where it is active is known in closed form. Five of the
ten decisions matter; `family.a.kernel` and the irrelevant `family.b.kernel` are active in a fifth of the
trials. A study is ranked rightly when the five come first, in the right order.

Every evaluator is also held against its own definition: its ranking of 20,000 random trials (2,000 for the
forests, which see only what all trials share, so never the most important decision here).

Measured: ours ranks 99 of 100 studies rightly; its 95 % intervals hold the truth in 87 to 96 of 100 studies
(87: a continuous number, which loses what varies within its ten classes). PED-ANOVA ranks 11 of 100 rightly
by its own definition: it compares the best tenth, 20 of 200 trials, with all, and so has hardly a trial for
each answer; and what is active in a fifth of the trials counts little for it, by definition.
"""

import argparse
import warnings
from collections.abc import Mapping

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    MeanDecreaseImpurityImportanceEvaluator,
    PedAnovaImportanceEvaluator,
)
from rich.console import Console
from rich.table import Table

from optnas import record
from optnas.analysis.evaluator import ConditionalAnovaEvaluator
from optnas.analysis.importance import importance
from optnas.analysis.padded import padded

NOISE = 0.3
# Standard deviation of each effect, over the decision's own uniform answers.
EFFECTS = {"lr": 1.0, "family": 0.7, "family.a.kernel": 1.6, "block.depth": 0.45, "block.0.op": 0.32}
OPS = ["conv", "separable", "pool", "skip"]
FAMILIES = ["b", "a", "d", "c", "e"]


def objective(trial: optuna.Trial) -> float:
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    trial.suggest_float("dropout", 0.0, 0.5)
    u = (np.log10(lr) + 2.5) / 1.5  # uniform in -1..1
    value = EFFECTS["lr"] * (1 / 3 - u**2) / np.sqrt(4 / 45)
    family = trial.suggest_categorical("family", sorted(FAMILIES))
    value += EFFECTS["family"] * scale(5)[FAMILIES.index(family)]
    if family in "ab":
        kernel = trial.suggest_categorical(f"family.{family}.kernel", [3, 5, 7])
        value += EFFECTS.get(f"family.{family}.kernel", 0.0) * scale(3)[[3, 5, 7].index(kernel)]
    depth = trial.suggest_int("block.depth", 1, 4)
    value += EFFECTS["block.depth"] * scale(4)[depth - 1]
    for i in range(depth):
        op = trial.suggest_categorical(f"block.{i}.op", OPS)
        value += EFFECTS.get(f"block.{i}.op", 0.0) * scale(4)[OPS.index(op)]
    noise = np.random.default_rng([record.SEED.of(trial.study), trial.number])
    return float(value + noise.normal(0, NOISE))


def scale(n: int) -> np.ndarray:
    """n equally spaced effects of mean 0 and variance 1."""
    effects = np.arange(n) - (n - 1) / 2
    return effects / effects.std()


def truth() -> dict[str, float]:
    variance = {name: sd**2 for name, sd in EFFECTS.items()} | {"noise": NOISE**2}
    everywhere = sum(variance.values()) - variance["family.a.kernel"] * 4 / 5
    in_family_a = (
        sum(variance.values()) - variance["family"]
    )  # family does not vary where its kernel is asked
    return {
        name: variance[name] / (in_family_a if name == "family.a.kernel" else everywhere) for name in EFFECTS
    }


def run(seed: int, n_trials: int) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed), direction="maximize")
    study.set_user_attr(record.SEED.name, seed)
    study.optimize(objective, n_trials=n_trials)
    return study


def as_padded(study: optuna.Study) -> optuna.Study:
    """With a random answer to whatever a trial was not asked."""
    filled = optuna.create_study(direction="maximize")
    filled.add_trials(padded(study.trials))
    return filled


def ranking(scores: Mapping[str, float], n: int) -> list[str]:
    return sorted(scores, key=lambda name: -scores[name])[:n]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--only", nargs="+", help="rows of the table")
    arguments = parser.parse_args()
    n_seeds = arguments.seeds
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", ExperimentalWarning)  # normalize=False is one

    fanova, impurity = FanovaImportanceEvaluator(seed=0), MeanDecreaseImpurityImportanceEvaluator(seed=0)
    evaluators: dict[str, tuple[BaseImportanceEvaluator, int, bool]] = {
        "conditional ANOVA (ours)": (ConditionalAnovaEvaluator(), 20_000, False),
        "PED-ANOVA (Optuna's default)": (PedAnovaImportanceEvaluator(), 20_000, False),
        "fANOVA": (fanova, 2_000, False),
        "fANOVA, padded": (fanova, 2_000, True),
        "mean decrease impurity": (impurity, 2_000, False),
        "mean decrease impurity, padded": (impurity, 2_000, True),
    }
    chosen = arguments.only or list(evaluators)
    right = ranking(truth(), 5)
    large = {n: run(10_000, n) for n in {evaluators[name][1] for name in chosen}}
    studies = [run(seed, 200) for seed in range(n_seeds)]
    table = Table(
        title=f"{n_seeds} studies of 200 random trials; truth: "
        + ", ".join(f"{name} {truth()[name]:.3f}" for name in right)
    )
    for title in ("evaluator", "right", "right by its own definition", "own definition", "scores of study 0"):
        table.add_column(title)
    for name in chosen:
        evaluator, n_large, pad = evaluators[name]
        own = evaluator.evaluate(as_padded(large[n_large]) if pad else large[n_large])
        own_right = ranking({k: v for k, v in own.items() if v > 0}, 5)
        found = [evaluator.evaluate(as_padded(study) if pad else study) for study in studies]
        table.add_row(
            name,
            f"{sum(ranking(f, 5) == right for f in found)} of {n_seeds}",
            f"{sum(ranking(f, 5) == own_right for f in found)} of {n_seeds}",
            ", ".join(f"{k} {own[k]:.3g}" for k in own_right),
            ", ".join(f"{k} {found[0][k]:.3g}" for k in ranking(found[0], 6)),
        )
    Console(width=160).print(table)
    if "conditional ANOVA (ours)" in chosen:
        print("95 % intervals of ours that hold the truth, of", n_seeds, "studies:", coverage(studies, right))


def coverage(studies: list[optuna.Study], names: list[str]) -> dict[str, int]:
    """In how many studies the interval of each decision holds the truth."""
    covered = dict.fromkeys(names, 0)
    for study in studies:
        for share in importance(study).decisions:
            if share.name in covered:
                covered[share.name] += share.low <= truth()[share.name] <= share.high
    return covered


if __name__ == "__main__":
    main()
