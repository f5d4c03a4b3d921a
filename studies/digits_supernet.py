"""Train one supernet for handwritten digits instead of every network: can its scores be believed?

    python studies/digits_supernet.py [--paths single] [--epochs 150] [--networks 50] [--scored 150]
        [--seed 0] [--storage sqlite:///digits_supernet.db]

Six layers, each the identity or a residual convolution with a kernel of 1 or 3: 729 networks, like
NAS-Bench-Macro (Su et al., CVPR 2021) but small. Some are drawn at random and trained alone, and the supernet
is trained once. The table compares how shared weights rank these networks with how their own trainings do,
beside what costs nothing. Then evolution searches with shared weights, and the best three are trained from
scratch; the last lines have the test accuracy of the winner (mean of three trainings) beside that of the best
of as many random networks as could have been trained in the same time. What was done is kept in the storage:
an interrupted run goes on.
"""

import argparse
import math
from functools import partial

import optuna
import torch
from sklearn.datasets import load_digits
from torch import nn

from optnas import (
    Chain,
    Choice,
    Classification,
    Fair,
    Objective,
    RegularizedEvolutionSampler,
    Sandwich,
    SinglePath,
    Supernet,
    TensorData,
    Training,
    Trial,
    Validation,
    best,
    create_study,
    optimize,
    rank_correlation,
    record,
)
from optnas.search.best import Best, Mean
from optnas.space.blocks import conv, head, residual

EPOCHS = 20
PATHS = {"single": SinglePath, "fair": Fair, "sandwich": Sandwich}


def identity(trial: Trial) -> nn.Module:
    return nn.Identity()


def residual_conv(trial: Trial, width: int, kernel: int) -> nn.Module:
    return residual(trial, partial(conv, width=width, kernel=kernel))


def layer(width: int) -> Choice:
    kernels = {f"conv{kernel}": partial(residual_conv, width=width, kernel=kernel) for kernel in (1, 3)}
    return Choice("block", {"identity": identity, **kernels})


space = Chain(
    stem=partial(conv, width=8, kernel=1),
    **{f"layer{i}": layer(8) for i in range(3)},
    down=partial(conv, width=16, kernel=1, stride=2),
    **{f"layer{i}": layer(16) for i in range(3, 6)},
    head=partial(head, n_classes=10),
)


def digits() -> TensorData:
    """629 samples to train on, 809 to validate on: few ties between networks."""
    found = load_digits()
    x = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    return TensorData((x, torch.tensor(found.target)), val=0.45, test=0.2, batch_size=64)


def training(task, max_epochs: int, **options) -> Training:
    return Training(task, digits(), monitor="val_acc", mode="max", max_epochs=max_epochs, **options)


def seconds(study: optuna.Study) -> float:
    return sum(record.DURATION.of(trial) or 0.0 for trial in study.trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--paths", choices=PATHS, default="single")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--scored", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", default="sqlite:///digits_supernet.db")
    given = parser.parse_args()
    seed, how = given.seed, f"{given.paths}-{given.epochs}"

    def study_of(objective: Objective, name: str, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
        never = optuna.pruners.NopPruner()
        return create_study(
            objective,
            study_name=f"{name}-{seed}",
            storage=given.storage,
            sampler=sampler,
            pruner=never,
            seed=seed,
        )

    alone = Objective(space, training(Classification(10), EPOCHS))
    trained = study_of(alone, "alone", optuna.samplers.RandomSampler(seed=seed))
    optimize(trained, alone, n_trials=given.networks, show_progress=False)

    task = PATHS[given.paths](Classification(10))
    sharing = Objective(
        Supernet(space, (2, 1, 8, 8)).untrained,
        training(task, given.epochs, check_val_every_n_epoch=10, keep=1),
    )
    once = study_of(sharing, how, optuna.samplers.RandomSampler(seed=seed))
    optimize(once, sharing, n_trials=1, show_progress=False)
    supernet = best(once, sharing).model()

    shared = Objective(supernet.subnet, Validation(supernet, alone.estimator))
    scored = study_of(shared, f"scored-{how}", RegularizedEvolutionSampler(population_size=50, seed=seed))
    for trial in trained.trials:
        scored.enqueue_trial(trial.params, skip_if_exists=True)
    optimize(scored, shared, n_trials=given.networks, show_progress=False)
    n = len(trained.trials)
    print(rank_correlation(trained, scored, objective=alone))
    print(
        f"{n} trainings alone: {seconds(trained):.0f} s. The supernet: {seconds(once):.0f} s, and "
        f"{seconds(scored):.0f} s for the scores of as many networks."
    )

    optimize(scored, shared, n_trials=given.scored, show_progress=False)
    winner = best(scored, shared, finalists=3, n_seeds=1)
    spent = (seconds(once) + seconds(scored)) / seconds(trained) * n + 3
    complete = [trial for trial in trained.trials[: math.ceil(spent)] if trial.values]
    plain = Best(trained, alone, max(complete, key=lambda trial: trial.values[0]))
    print(f"{'':<40}{'trainings':>10}{'test accuracy':>18}")
    for name, cost, found in (
        ("shared weights, final of three", spent, winner),
        ("random", len(complete), plain),
    ):
        accuracy = Mean.of([run["test_acc"] for run in found.retrain(3)])
        print(f"{name:<40}{cost:>10.1f}{accuracy!s:>18}   {found.params}")


if __name__ == "__main__":
    main()
