"""Evolution whose children begin with their parents' weights: what is it worth, beside plain evolution?

    python studies/inherit.py [--fashion FOLDER/fashion_mnist.npz] [--seeds 10] [--epochs 9] [--trials 12]
        [--ways net2net] [--storage sqlite:///inherit.db]

A convolutional network for handwritten digits, or for small pictures of clothes, whose widths, kernels and
depths a child changes one at a time. Plain evolution trains `--trials` networks for `--epochs` epochs each.
The others have half of these epochs: plain evolution of half as many networks; and of half as many more, for
a third of the epochs each, whose children begin anew, or with their parents' weights: as they are (`exact`),
shrunk and perturbed, or grown by Net2Net where the child is larger.

The two networks of each search with the best validation accuracy are trained from scratch for `--epochs`
epochs. The table has the test accuracy of the one with the better validation accuracy then, which a user
would take, and the mean of the two, as means over seeds; and their leads over plain evolution with the same
seed, which begins with the same networks; all with 95 % intervals by Student. What was done is kept in the
storage: an interrupted run goes on.

Fields of the file: `x_train` (n, 28, 28), `y_train`, `x_test`, `y_test`.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence

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
from optnas.search import train
from optnas.seeds import derive_seed
from optnas.space.blocks import conv, head
from optnas.training.inheritance import Inherit

POPULATION = 5
FINALISTS = 2
PART = 3  # of the epochs of a full training, a short one has one in so many
PLAIN, HALF, SHORT = "plain", "plain, half as many", "plain, short trainings"
WAYS: dict[Inherit, str] = {
    "exact": "inherited",
    "shrink_perturb": "shrunk and perturbed",
    "net2net": "inherited by Net2Net",
}


def space(trial: Trial) -> nn.Module:
    layers = []
    for stage in range(2):
        of_stage = scope(trial, "stage", stage)
        for i in range(of_stage.suggest_int("depth", 1, 3)):
            layer = scope(of_stage, "conv", i)
            layers.append(conv(layer, width=(4, 8, 12, 16), kernel=(1, 3), stride=2 if i == 0 else 1))
    return nn.Sequential(*layers, head(trial, n_classes=10))


def digits() -> TensorData:
    """629 samples to train on, 809 to validate on: few ties between networks."""
    found = load_digits()
    x = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    return TensorData((x, torch.tensor(found.target)), val=0.45, test=0.2, batch_size=32)


def fashion(path: str) -> TensorData:
    """600 pictures of 14 by 14 pixels to train on, 1000 to validate on and 2000 to test on."""
    with np.load(path, allow_pickle=False) as file:
        parts = [
            (torch.from_numpy(file[f"x_{s}"]), torch.from_numpy(file[f"y_{s}"])) for s in ("train", "test")
        ]
    (x, y), (x_test, y_test) = (
        (functional.avg_pool2d(x[:2000, None].float() / 255, 2), y[:2000].long()) for x, y in parts
    )
    val, test = (x[600:1600], y[600:1600]), (x_test, y_test)
    return TensorData((x[:600], y[:600]), val=val, test=test, batch_size=32)


def searched(
    data: TensorData, name: str, inherit: Inherit | None, epochs: int, trials: int, seed: int, storage: str
) -> optuna.Study:
    training = Training(
        Classification(10, lr=5e-3), data, monitor="val_acc", mode="max", max_epochs=epochs, inherit=inherit,
        keep=trials,
    )  # fmt: skip
    objective = Objective(space, training)
    study = create_study(
        objective,
        study_name=f"{name}-{epochs}-{seed}",
        storage=storage,
        sampler=RegularizedEvolutionSampler(population_size=POPULATION, tournament_size=2, seed=seed),
        pruner=optuna.pruners.NopPruner(),
        seed=seed,
    )
    optimize(study, objective, n_trials=trials, show_progress=False)
    return study


def tested(study: optuna.Study, data: TensorData, epochs: int, first: int) -> tuple[float, float]:
    """Test accuracy of the best of the first trials that count, trained from scratch: of the better one by
    validation, and the mean.
    """
    training = Training(Classification(10, lr=5e-3), data, monitor="val_acc", mode="max", max_epochs=epochs)
    counted = [trial for trial in study.trials if record.counts(trial)][:first]
    complete = [trial for trial in counted if record.end(trial) is record.End.COMPLETE]
    best = sorted(complete, key=lambda trial: -trial.values[0])[:FINALISTS]
    kept = f"finalists of {first}"
    runs = record.retrained(study, kept, epochs)
    if not runs:
        seed, origin = derive_seed(record.origin(study), "finalists"), record.origin(study)
        runs = [train(Objective(space, training), trial.params, seed, origin=origin) for trial in best]
        record.write_retrained(study, kept, epochs, runs)
    winner = max(runs, key=lambda run: run["val_acc"])
    return winner["test_acc"], statistics.fmean(run["test_acc"] for run in runs)


def interval(numbers: Sequence[float], sign: str = "") -> str:
    """The mean with its 95 % interval."""
    half = stats.t.ppf(0.975, len(numbers) - 1) * statistics.stdev(numbers) / len(numbers) ** 0.5
    return f"{statistics.fmean(numbers):{sign}.4f} ± {half:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fashion", help="a file; without it, digits only")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["net2net"])
    parser.add_argument("--storage", default="sqlite:///inherit.db")
    given = parser.parse_args()
    if given.seeds < 2:
        raise SystemExit("--seeds must be at least 2: one search has no interval.")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sets = {"digits": digits()} | ({"clothes": fashion(given.fashion)} if given.fashion else {})
    n, short = given.trials, given.epochs // PART
    few, many = n // 2, n * PART // 2
    found = defaultdict(list)
    for seed in range(given.seeds):
        for of, data in sets.items():
            for name, inherit, epochs, trials in (
                (PLAIN, None, given.epochs, n),
                (SHORT, None, short, many),
                *((WAYS[way], way, short, many) for way in given.ways),
            ):
                study = searched(data, f"{of}-{name}", inherit, epochs, trials, seed, given.storage)
                found[of, name].append(tested(study, data, given.epochs, trials))
                if name == PLAIN:  # the same search, stopped half-way
                    found[of, HALF].append(tested(study, data, given.epochs, few))
            print(
                seed,
                of,
                {name: [round(x, 4) for x in runs[-1]] for (its, name), runs in found.items() if its == of},
                file=sys.stderr,
                flush=True,
            )
    print(f"{given.seeds} seeds from 0.\n")
    print("| data | search | trainings | epochs in all | winner | its lead | mean of the two | its lead |")
    print("|---|---|---|---|---|---|---|---|")
    for (of, name), runs in found.items():
        trainings, epochs = {PLAIN: (n, given.epochs), HALF: (few, given.epochs)}.get(name, (many, short))
        cells = [of, name, f"{trainings} of {epochs}", str(trainings * epochs)]
        for numbers, plain in zip(zip(*runs, strict=True), zip(*found[of, PLAIN], strict=True), strict=True):
            lead = [a - b for a, b in zip(numbers, plain, strict=True)]
            cells += [interval(numbers), "" if name == PLAIN else interval(lead, "+")]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
