"""Evolution whose children begin with their parents' weights: what is it worth, beside plain evolution?

    python studies/inherit.py [--fashion FOLDER/fashion_mnist.npz] [--seeds 10] [--epochs 4] [--trials 24]
        [--ways anew net2net] [--storage sqlite:///inherit.db]

A convolutional network for handwritten digits, or for tiny pictures of clothes. A child changes one of its
widths, kernels and depths, which are up to 18 decisions, so that random networks are far from the best.
Plain evolution trains `--trials` networks for `--epochs` epochs each. The others have half of these epochs:
plain evolution of half as many networks; and of as many, for half of the epochs each, whose children begin
`anew`, or with their parents' weights: as they are (`exact`), shrunk and perturbed, or grown by Net2Net where
the child is larger.

The two networks of each search with the best validation accuracy are trained from scratch for `--epochs`
epochs, twice each. The winner, which a user would take, is the one with the better mean validation
accuracy then. The table has the mean of its two test accuracies, as means over seeds; and the lead over
plain evolution with the same seed, which begins with the same networks; all with 95 % intervals by Student.
What was done is kept in the storage: an interrupted run goes on.

Fields of the file: `x_train` (n, 28, 28), `y_train`, `x_test`, `y_test`.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import cast

import numpy as np
import optuna
import torch
from scipy import stats
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

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
from optnas.data import Batches
from optnas.search import train
from optnas.seeds import derive_seed
from optnas.space.blocks import conv, head
from optnas.training.inheritance import Inherit

POPULATION = 5
FINALISTS, REPEATS = 2, 2
BATCH = 16
"""So small that an epoch has some 40 steps: after two epochs of 13 steps, the running statistics of BatchNorm
have not caught up with the weights, and validation says little about a network."""

PLAIN, HALF = "plain", "plain, half as many"
WAYS: dict[str, str] = {
    "anew": "plain, short trainings",
    "exact": "inherited",
    "shrink_perturb": "shrunk and perturbed",
    "net2net": "inherited by Net2Net",
}


def space(trial: Trial) -> nn.Module:
    layers = []
    for stage in range(2):
        of_stage = scope(trial, "stage", stage)
        for i in range(of_stage.suggest_int("depth", 1, 4)):
            layer = scope(of_stage, "conv", i)
            layers.append(conv(layer, width=(4, 8, 16, 32), kernel=(1, 3), stride=2 if i == 0 else 1))
    return nn.Sequential(*layers, head(trial, n_classes=10))


class AtOnce(TensorData):
    """Validates and tests on one batch, which takes a fraction of the time of many small ones."""

    def val_dataloader(self) -> Batches:
        return Batches(self.val, len(self.val[1]))

    def test_dataloader(self) -> Batches:
        return Batches(self.test, len(self.test[1]))


def digits(batch_size: int = BATCH) -> TensorData:
    """629 samples to train on, 539 to validate on and 629 to test on."""
    found = load_digits()
    x = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    return AtOnce((x, torch.tensor(found.target)), val=0.3, test=0.35, batch_size=batch_size)


def fashion(path: str) -> TensorData:
    """600 pictures of 7 by 7 pixels to train on, 1000 to validate on and 10000 to test on."""
    with np.load(path, allow_pickle=False) as file:
        parts = [
            (torch.from_numpy(file[f"x_{s}"]), torch.from_numpy(file[f"y_{s}"])) for s in ("train", "test")
        ]
    (x, y), (x_test, y_test) = (
        (functional.avg_pool2d(x[:10_000, None].float() / 255, 4), y[:10_000].long()) for x, y in parts
    )
    val, test = (x[600:1600], y[600:1600]), (x_test, y_test)
    return AtOnce((x[:600], y[:600]), val=val, test=test, batch_size=BATCH)


def training(data: TensorData, epochs: int, inherit: Inherit | None = None, keep: int = 1) -> Training:
    task = Classification(10, lr=1e-2)
    return Training(
        task, data, monitor="val_acc", mode="max", max_epochs=epochs, inherit=inherit, keep=keep
    )  # fmt: skip


def searched(
    data: TensorData, name: str, inherit: Inherit | None, epochs: int, trials: int, seed: int, storage: str
) -> optuna.Study:
    objective = Objective(space, training(data, epochs, inherit, keep=trials))
    study = create_study(
        objective,
        study_name=f"{name}-{epochs}-{seed}",
        storage=storage,
        sampler=RegularizedEvolutionSampler(population_size=POPULATION, tournament_size=3, seed=seed),
        pruner=optuna.pruners.NopPruner(),
        seed=seed,
    )
    optimize(study, objective, n_trials=trials, show_progress=False)
    return study


def tested(study: optuna.Study, data: TensorData, epochs: int, first: int) -> float:
    """Mean test accuracy of the winner of the first trials that count."""
    counted = [trial for trial in study.trials if record.counts(trial)][:first]
    complete = [trial for trial in counted if record.end(trial) is record.End.COMPLETE]
    best = sorted(complete, key=lambda trial: -trial.values[0])[:FINALISTS]
    scores = []
    for trial in best:
        runs = record.retrained(study, trial.number, epochs)
        if not runs:
            objective, origin = Objective(space, training(data, epochs)), record.origin(study)
            seeds = [derive_seed("finalists", i) for i in range(REPEATS)]
            runs = [train(objective, trial.params, seed, origin=origin) for seed in seeds]
            record.write_retrained(study, trial.number, epochs, runs)
        scores.append([statistics.fmean(run[of] for run in runs) for of in ("val_acc", "test_acc")])
    return max(scores)[1]


def interval(numbers: Sequence[float], sign: str = "") -> str:
    """The mean with its 95 % interval."""
    half = stats.t.ppf(0.975, len(numbers) - 1) * statistics.stdev(numbers) / len(numbers) ** 0.5
    return f"{statistics.fmean(numbers):{sign}.4f} ± {half:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fashion", help="a file; without it, digits only")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["anew", "net2net"])
    parser.add_argument("--storage", default="sqlite:///inherit.db")
    given = parser.parse_args()
    if given.seeds < 2:
        raise SystemExit("--seeds must be at least 2: one search has no interval.")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sets = {"digits": digits()} | ({"clothes": fashion(given.fashion)} if given.fashion else {})
    n, few, short = given.trials, given.trials // 2, given.epochs // 2
    found = defaultdict(list)
    for seed in range(given.seeds):
        for of, data in sets.items():
            for way, name in [(None, PLAIN), *((way, WAYS[way]) for way in given.ways)]:
                epochs = short if way else given.epochs
                inherit = cast("Inherit | None", None if way == "anew" else way)
                study = searched(data, f"{of}-{name}", inherit, epochs, n, seed, given.storage)
                found[of, name].append(tested(study, data, given.epochs, n))
                if name == PLAIN:  # the same search, stopped half-way
                    found[of, HALF].append(tested(study, data, given.epochs, few))
            last = {name: round(runs[-1], 4) for (its, name), runs in found.items() if its == of}
            print(seed, of, last, file=sys.stderr, flush=True)
    print(f"{given.seeds} seeds from 0.\n")
    print("| data | search | trainings | epochs in all | test accuracy of the winner | its lead |")
    print("|---|---|---|---|---|---|")
    for (of, name), runs in found.items():
        trainings, epochs = {PLAIN: (n, given.epochs), HALF: (few, given.epochs)}.get(name, (n, short))
        lead = [a - b for a, b in zip(runs, found[of, PLAIN], strict=True)]
        shown = [interval(runs), "" if name == PLAIN else interval(lead, "+")]
        print(f"| {of} | {name} | {trainings} of {epochs} | {trainings * epochs} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
