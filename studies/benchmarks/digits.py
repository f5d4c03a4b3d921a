"""The digits study against a hand-designed network and against random search, on the test split.

    python studies/benchmarks/digits.py [--seeds 10] [--trials 50] [--samplers TPE random]
        [--storage sqlite:///digits_benchmark.db]

One search per sampler, equal budgets. The winner of each, the winner of a final among its best five
(trained anew from three seeds each, the best mean validation wins) and the baseline are then trained from
the same seeds, the same epochs. The table shows test accuracy over the seeds and the paired difference to
the baseline with its 95 % interval (Student's t): what the spread of training allows to say about these
networks. It does not hold the spread over searches. What was done is kept in the storage, so an
interrupted run goes on.
"""

import argparse
import math
import statistics
import sys
from pathlib import Path

import optuna
from scipy.stats import t as student

from optnas import Objective, best, create_study, optimize, record

sys.path.insert(0, str(Path(__file__).parents[1]))
import digits_cnn

SAMPLERS = {
    "predictor": None,  # the default
    "TPE": lambda seed: optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}

FINALISTS = 5


def search(name: str, storage: str, n_trials: int) -> optuna.Study:
    study = create_study(
        digits_cnn.objective,
        study_name=f"digits_{name}",
        storage=storage,
        sampler=SAMPLERS[name],
        pruner=digits_cnn.pruner,
        seed=0,
    )
    optimize(study, digits_cnn.objective, n_trials=n_trials, show_progress=True)
    return study


def winner(study: optuna.Study, finalists: int, n_seeds: int) -> tuple[list[float], str]:
    found = best(study, digits_cnn.objective, finalists)
    facts = found.trial.user_attrs
    seconds = sum((record.DURATION.of(t) or 0.0) for t in study.trials)
    about = f"search score {found.value:.4f}, {facts['n_params']:,} parameters, {seconds:.0f} s of training"
    return accuracies(found.retrain(n_seeds)), f"{about}; {found.params}"


def baseline(storage: str, n_seeds: int) -> tuple[list[float], str]:
    objective = Objective(digits_cnn.baseline, digits_cnn.estimator)
    study = create_study(objective, study_name="digits_baseline", storage=storage, seed=0)
    optimize(study, objective, n_trials=1)
    found = best(study, objective)
    about = f"search score {found.value:.4f}, {found.trial.user_attrs['n_params']:,} parameters"
    return accuracies(found.retrain(n_seeds)), about


def accuracies(runs: list[dict[str, float]]) -> list[float]:
    return [run["test_acc"] for run in runs]


def paired(ours: list[float], other: list[float]) -> str:
    differences = [a - b for a, b in zip(ours, other, strict=True)]
    n = len(differences)
    half = student.ppf(0.975, n - 1) * statistics.stdev(differences) / math.sqrt(n)
    return f"{statistics.fmean(differences):+.4f} ± {half:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--storage", default="sqlite:///digits_benchmark.db")
    arguments = parser.parse_args()

    scores, about = baseline(arguments.storage, arguments.seeds)
    rows = {"hand-designed baseline": (scores, about)}
    for name in arguments.samplers:
        study = search(name, arguments.storage, arguments.trials)
        rows[f"best of {name}"] = winner(study, 1, arguments.seeds)
        rows[f"... after a final of {FINALISTS}"] = winner(study, FINALISTS, arguments.seeds)
    print(f"{'':<26}{'test accuracy':>18}{'minus baseline':>22}   ({arguments.seeds} seeds each)")
    for name, (accuracy, _) in rows.items():
        spread = f"{statistics.fmean(accuracy):.4f} ± {statistics.stdev(accuracy):.4f}"
        difference = "" if accuracy is scores else paired(accuracy, scores)
        print(f"{name:<26}{spread:>18}{difference:>22}")
    for name, (_, note) in rows.items():
        print(f"{name}: {note}")


if __name__ == "__main__":
    main()
