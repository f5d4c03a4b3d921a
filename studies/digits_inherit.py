"""Evolution whose children begin with their parents' weights: what is it worth, beside plain evolution?

    python studies/digits_inherit.py [--seeds 5] [--epochs 9] [--trials 16]
        [--storage sqlite:///digits_inherit.db]

A convolutional network for handwritten digits, whose widths, kernels and depths a child changes one at a
time. Plain evolution trains `--trials` networks for `--epochs` epochs each. The others train as many networks
for a third of the epochs each, and their children begin anew, or with the weights of their parents: as they
are, shrunk and perturbed, or grown by Net2Net where the child is larger. One more has the same compute as
these, and trains a third as many networks in full. The table has, as means over the seeds with 95 % intervals
by Student: epochs in all, the best validation accuracy that a search saw, and the test accuracy of the two
best of each search, trained from scratch for `--epochs` epochs, with its lead over plain evolution, paired by
seed. Only these last two columns compare like with like. What was done is kept in the storage: an interrupted
run goes on.
"""

import argparse
import statistics
from collections import defaultdict

import optuna
import torch
from scipy import stats
from sklearn.datasets import load_digits
from torch import nn

from optnas import (
    Classification,
    Objective,
    RegularizedEvolutionSampler,
    TensorData,
    Training,
    Trial,
    create_study,
    optimize,
    record,
    scope,
)
from optnas.search import train
from optnas.seeds import derive_seed
from optnas.space.blocks import conv, head

POPULATION = 5
FINALISTS = 2
PART = 3

PLAIN = "plain, trained in full"
WAYS = {  # what a child begins with; of the epochs one in so many; of the trials one in so many
    PLAIN: (None, 1, 1),
    "plain, trained in full, a third of the trials": (None, 1, PART),
    "plain, a third of the epochs": (None, PART, 1),
    "inherited as they are": ("exact", PART, 1),
    "inherited, shrunk and perturbed": ("shrink_perturb", PART, 1),
    "inherited by Net2Net": ("net2net", PART, 1),
}


def space(trial: Trial) -> nn.Module:
    layers = []
    for stage in range(2):
        of_stage = scope(trial, "stage", stage)
        for i in range(of_stage.suggest_int("depth", 1, 3)):
            options = {"width": (4, 8, 12, 16), "kernel": (1, 3), "stride": 2 if i == 0 else 1}
            layers.append(conv(scope(of_stage, "conv", i), **options))
    return nn.Sequential(*layers, head(trial, n_classes=10))


def digits() -> TensorData:
    """629 samples to train on, 809 to validate on: few ties between networks."""
    found = load_digits()
    x = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    return TensorData((x, torch.tensor(found.target)), val=0.45, test=0.2, batch_size=32)


def training(max_epochs: int, **options) -> Training:
    task = Classification(10, lr=5e-3)
    return Training(task, digits(), monitor="val_acc", mode="max", max_epochs=max_epochs, **options)


def searched(name: str, seed: int, given: argparse.Namespace) -> dict[str, float]:
    """What one search cost, saw, and found."""
    inherit, part, fewer = WAYS[name]
    full = Objective(space, training(given.epochs))
    objective = Objective(space, training(given.epochs // part, inherit=inherit, keep=given.trials))
    study = create_study(
        objective,
        study_name=f"{name}-{seed}",
        storage=given.storage,
        sampler=RegularizedEvolutionSampler(population_size=POPULATION, tournament_size=2, seed=seed),
        pruner=optuna.pruners.NopPruner(),
        seed=seed,
    )
    optimize(study, objective, n_trials=given.trials // fewer, show_progress=False)
    complete = [trial for trial in study.trials if record.end(trial) is record.End.COMPLETE]
    best = sorted(complete, key=lambda trial: -trial.values[0])[:FINALISTS]
    runs = record.retrained(study, "finalists", given.epochs)
    if not runs:
        of_runs, origin = derive_seed(seed, "finalists"), record.origin(study)
        runs = [train(full, trial.params, of_runs, origin=origin) for trial in best]
        record.write_retrained(study, "finalists", given.epochs, runs)
    told = [record.WEIGHTS.of(trial) or {} for trial in complete]
    return {
        "epochs": record.n_reported(study.trials),
        "seen": best[0].values[0],
        "test": statistics.fmean(run["test_acc"] for run in runs),
        "preserved": sum(one.get("how") == "net2net" for one in told),
    }


def interval(numbers: list[float], sign: str = "") -> str:
    """The mean with its 95 % interval."""
    half = stats.t.ppf(0.975, len(numbers) - 1) * statistics.stdev(numbers) / len(numbers) ** 0.5
    return f"{statistics.fmean(numbers):{sign}.4f} ± {half:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--storage", default="sqlite:///digits_inherit.db")
    given = parser.parse_args()
    if given.seeds < 2:
        raise SystemExit("--seeds must be at least 2: one search has no interval.")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = defaultdict(list)
    for seed in range(given.seeds):
        for name in WAYS:
            found[name].append(searched(name, seed, given))
    print("| search | epochs | best that it saw | test accuracy from scratch | lead over plain |")
    print("|---|---|---|---|---|")
    for name, runs in found.items():
        epochs = statistics.fmean(run["epochs"] for run in runs)
        tested, plain = ([run["test"] for run in of] for of in (runs, found[PLAIN]))
        lead = interval([a - b for a, b in zip(tested, plain, strict=True)], "+") if name != PLAIN else ""
        seen = interval([run["seen"] for run in runs])
        print(f"| {name} | {epochs:.0f} | {seen} | {interval(tested)} | {lead} |")
    grown = statistics.fmean(run["preserved"] for run in found["inherited by Net2Net"])
    print(f"\nBy Net2Net {grown:.1f} of {given.trials} networks began with their parents' function.")


if __name__ == "__main__":
    main()
