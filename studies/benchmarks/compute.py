"""What a search is worth for its compute, on real trainings: optnas beside what a user could take instead.

    python studies/benchmarks/compute.py [--task digits TREC ...] [--method random ...] [--searches 5]
        [--trainings 22] [--file studies/benchmarks/results/compute.jsonl]

Every method has the same space, training code, data, seeds of trainings and budget in epochs; no training
begins once the budget is spent, so the last one may overrun it. An epoch is counted when it is trained,
whoever trains it: one that went on after a pause counts once, those of repeats and of a final count too.

    optnas                   as it comes: all defaults, and the final among leaders that ends `optnas run`
    Optuna, TPE and median   plain Optuna as its tutorials have it: TPESampler, MedianPruner
    random                   plain Optuna, RandomSampler, nothing is pruned
    random and halving       plain Optuna, RandomSampler, SuccessiveHalvingPruner
    by hand                  one network designed by hand, trained from as many seeds as the budget has, each
                             with a random learning rate of the range that all searches have

Then the winner of each search is trained anew from five seeds, the same for all methods of that search: these
seeds and the test data decide nothing. Beside that stands the test accuracy of the very weights with which
the search ended; for the network by hand those are the best of its restarts by validation. Intervals are of
95 % and over searches (Student's t), each search counting as the mean of its five trainings; differences are
between searches of one number.

Every search is a line of `--file` when it ends, so what was cut goes on, and rounds in which all methods and
tasks have been searched count before the others have. Where a method has changed since, delete its lines.
Needs the data in `../shared/data` beside the repository (digits needs none, Fashion-MNIST may be that of
Debian's package `dataset-fashion-mnist`).
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from optnas import (
    Classification,
    Objective,
    TensorData,
    Training,
    Trial,
    best,
    create_study,
    optimize,
    record,
    scope,
)
from optnas.data import Digits, in_turn, random_flip, random_shift
from optnas.data.tensors import Augment
from optnas.hub import inception_time, nasbench201
from optnas.search.best import SHARE, final, train
from optnas.seeds import derive_seed
from optnas.space.blocks import conv, head, mbconv, residual, separable_conv
from optnas.trial import replay

sys.path.insert(0, str(Path(__file__).parents[1]))

N_ANEW = 5
LR = (1e-3, 3e-2)
KEPT = Path(__file__).parent / "results" / "compute.jsonl"


# ---- tasks ----


@dataclass(frozen=True)
class Task:
    """A space, a network by hand, data, and how long and by what is trained."""

    space: Callable[[Trial], nn.Module]
    by_hand: Callable[[Trial], nn.Module]
    data: TensorData
    n_classes: int
    monitor: str
    max_epochs: int

    def objective(self, folder: Path, *, by_hand: bool = False, reuse_twins: bool = True) -> Objective:
        """Whoever answers decides about the learning rate, too, of the network by hand as well."""
        training = Training(
            Classification(self.n_classes, lr=LR),
            self.data,
            monitor=self.monitor,
            mode="min" if self.monitor.endswith("loss") else "max",
            max_epochs=self.max_epochs,
            folder=folder,
            callbacks=[Paid()],
        )
        return Objective(self.by_hand if by_hand else self.space, training, reuse_twins=reuse_twins)


class Paid(pl.Callback):
    """Counts the epochs that this process has trained, in whichever training."""

    epochs = 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        Paid.epochs += 1


def digits() -> Task:
    import digits_cnn

    data = some(Digits(), 384, 359, 359, batch_size=64)
    return Task(digits_cnn.space, digits_cnn.baseline, data, 10, "val_loss", max_epochs=6)


def garments(trial: Trial) -> nn.Module:
    """Residual blocks of three kinds behind a strided stem."""
    ops = {"conv": conv, "separable": separable_conv, "mbconv": mbconv}
    layers: list[nn.Module] = [conv(scope(trial, "stem"), width=(8, 16, 32), stride=2)]
    for i in range(trial.suggest_int("depth", 1, 4)):
        block = scope(trial, "block", i)
        op = ops[block.suggest_categorical("op", list(ops))]
        stride = block.suggest_int("stride", 1, 2)
        layers.append(residual(block, partial(op, width=(8, 16, 32), stride=stride)))
    layers.append(head(scope(trial, "head"), n_classes=10, hidden=(None, 64), dropout=(0.0, 0.2)))
    return nn.Sequential(*layers)


def garments_by_hand(trial: Trial) -> nn.Module:
    """Four 3x3 convolutions that widen as the maps shrink."""
    fixed = partial(conv, trial, kernel=3)
    widths = ((16, 2), (16, 1), (32, 2), (32, 1))
    layers = [fixed(width=width, stride=stride) for width, stride in widths]
    return nn.Sequential(*layers, head(trial, n_classes=10, hidden=64, dropout=0.2))


def fashion() -> Task:
    """Images of half the size: 14 x 14."""
    import fashion_mobile

    found = fashion_mobile.images()
    if found is None:
        raise FileNotFoundError(fashion_mobile.SHARED)
    x, y, x_test, y_test = found
    scale = lambda images: (avg_pool2d(images.float(), 2) - 72) / 90  # noqa: E731
    whole = TensorData((scale(x[:4000]), y[:4000]), val=0.25, test=(scale(x_test[:2000]), y_test[:2000]))
    data = some(whole, 768, 500, 2000, batch_size=64)
    return Task(garments, garments_by_hand, data, 10, "val_acc", max_epochs=5)


def cifar() -> Task:
    """Images of half the size, 16 x 16, mirrored and moved; cells half as wide as in the study."""
    import cifar_cells

    _there(cifar_cells.FILE)
    augment = in_turn(random_flip, random_shift)
    data = some(cifar_cells.data(), 768, 500, 1000, batch_size=64, augment=augment)
    space, by_hand = (partial(made, channels=4) for made in (cifar_cells.space, residual_cells))
    return Task(space, by_hand, data, 10, "val_acc", max_epochs=5)


def residual_cells(trial: Trial, channels: int) -> nn.Module:
    """The cell of the study's baseline, ResNet's block."""
    block = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
    return nasbench201.network(replay(nasbench201.params_of(block)), channels=channels, cells=1)


def ford() -> Task:
    """The first 200 of 500 values of each series."""
    import fordA_series

    _there(fordA_series.FILE)
    data = some(fordA_series.data(), 450, 150, 800, batch_size=32, change=lambda x: x[..., :200])
    network = partial(inception_time.network, classes=2)
    space = partial(network, depth=(2, 3, 4), width=(4, 8, 12), kernel=(10, 20, 40), bottleneck=(4, 8))
    by_hand = partial(network, depth=3, width=8, kernel=40, bottleneck=8)
    return Task(space, by_hand, data, 2, "val_loss", max_epochs=5)


def trec() -> Task:
    import trec_text

    _there(trec_text.FOLDER / "trec6.train.tsv.gz")
    data = some(trec_text.data, 1024, 500, 500, batch_size=64)
    classes = len(trec_text.KINDS)
    return Task(trec_text.space, trec_text.baseline, data, classes, "val_loss", max_epochs=5)


def some(
    whole: TensorData,
    n_train: int,
    n_val: int,
    n_test: int,
    *,
    batch_size: int,
    augment: Augment | None = None,
    change: Callable[[Tensor], Tensor] = lambda x: x,
) -> TensorData:
    """The first rows of each part."""
    sizes = zip((whole.train, whole.val, whole.test), (n_train, n_val, n_test), strict=True)
    train, val, test = ((change(x[:n]), y[:n]) for (x, y), n in sizes)
    return TensorData(train, val=val, test=test, batch_size=batch_size, augment=augment)


def _there(file: Path) -> None:
    if not file.exists():
        raise FileNotFoundError(file)


TASKS: dict[str, Callable[[], Task]] = {
    "digits": digits,
    "Fashion-MNIST": fashion,
    "CIFAR-10": cifar,
    "FordA": ford,
    "TREC": trec,
}


# ---- methods ----


@dataclass(frozen=True)
class Winner:
    """What a search found, and how its weights do on the test data."""

    study: optuna.Study
    trial: FrozenTrial
    in_hand: float


def ours(task: Task, n_trainings: float, seed: int, folder: Path) -> Winner:
    """As `optnas run` does it; the final costs a share of the search, and both have the budget together."""
    objective = task.objective(folder)
    study = create_study(objective, study_name=f"search_{seed}", seed=seed)
    optimize(study, objective, n_trainings=n_trainings / (1 + SHARE))
    final(study, objective)
    found = best(study, objective)
    return Winner(study, found.trial, found.test()["test_acc"])


def plain(
    task: Task,
    n_trainings: float,
    seed: int,
    folder: Path,
    *,
    sampler: Callable[[int], BaseSampler] = lambda seed: RandomSampler(seed=seed),
    pruner: Callable[[], BasePruner] = NopPruner,
    by_hand: bool = False,
) -> Winner:
    """Optuna's own loop around the same objective, which trains repeats like any other trial."""
    objective = task.objective(folder, by_hand=by_hand, reuse_twins=False)
    study = optuna.create_study(
        study_name=f"search_{seed}",
        direction=objective.directions[0],
        sampler=sampler(seed),
        pruner=pruner(),
    )
    record.SEED.write(study, seed)  # trial n is trained from the seed that it has in our study
    most = Paid.epochs + math.ceil(n_trainings * task.max_epochs)

    def stop(study: optuna.Study, trial: FrozenTrial) -> None:
        if Paid.epochs >= most:
            study.stop()

    study.optimize(objective, callbacks=[stop])
    trial = study.best_trial
    tested = objective.estimator.test(objective.build(trial), study, trial)
    return Winner(study, trial, tested["test_acc"])


Method = Callable[[Task, float, int, Path], Winner]
OURS = "optnas"
BY_HAND = "by hand"
METHODS: dict[str, Method] = {
    OURS: ours,
    "Optuna, TPE and median": partial(plain, sampler=lambda seed: TPESampler(seed=seed), pruner=MedianPruner),
    "random": plain,
    "random and halving": partial(plain, pruner=SuccessiveHalvingPruner),
    BY_HAND: partial(plain, by_hand=True),
}


# ---- searches ----


def run(task: Task, name: str, method: str, search: int, n_trainings: float, n_anew: int) -> dict[str, Any]:
    """One search, and its winner trained anew."""
    with tempfile.TemporaryDirectory() as folder:
        before, clock, processor = Paid.epochs, time.perf_counter(), time.process_time()
        winner = METHODS[method](task, n_trainings, derive_seed("compute", name, search), Path(folder))
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        paid = (Paid.epochs - before) / task.max_epochs
        objective = task.objective(Path(folder), by_hand=method == BY_HAND)
        anew = [
            train(objective, winner.trial.params, derive_seed("compute anew", name, search, i))
            for i in range(n_anew)
        ]
    trials = winner.study.get_trials(deepcopy=False)
    return {
        "task": name,
        "method": method,
        "search": search,
        "trainings": n_trainings,
        "paid": paid,
        "trials": record.n_counted(trials),
        "complete": sum(t.state == TrialState.COMPLETE and record.counts(t) for t in trials),
        "seconds": clock,
        "processor": processor,
        "found": winner.trial.value,
        "in_hand": winner.in_hand,
        "anew": [metrics["test_acc"] for metrics in anew],
        "anew_found": [metrics[task.monitor] for metrics in anew],
        "params": winner.trial.params,
        "of": [[t.state.name, record.n_reports(t), t.value] for t in trials],
    }


# ---- what they say ----


Done = dict[tuple[str, str, int], dict[str, Any]]
"""Of each task, method and search its line of the file."""


def read(file: Path, n_trainings: float) -> Done:
    """The searches of this budget that are done. A line that was cut in the middle is none."""
    done: Done = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row["trainings"] == n_trainings:
            done[row["task"], row["method"], row["search"]] = row
    return done


@dataclass(frozen=True)
class Interval:
    """A mean and half of its 95 % interval, NaN of a single number."""

    mean: float
    half: float

    @classmethod
    def of(cls, *groups: Sequence[float]) -> Interval:
        """Of the mean of the means of groups, each with a spread of its own (Welch and Satterthwaite)."""
        mean = statistics.fmean(map(statistics.fmean, groups))
        if min(map(len, groups)) < 2:
            return cls(mean, math.nan)
        parts = [statistics.variance(group) / len(group) / len(groups) ** 2 for group in groups]
        total = sum(parts)
        if not total:
            return cls(mean, 0.0)
        freedom = total**2 / sum(v**2 / (len(g) - 1) for v, g in zip(parts, groups, strict=True))
        return cls(mean, float(student.ppf(0.975, freedom)) * math.sqrt(total))

    def __str__(self) -> str:
        return f"{self.mean:+.2f}" + ("" if math.isnan(self.half) else f" ± {self.half:.2f}")


def percents(done: Done, task: str, method: str, searches: range, kind: str) -> list[float]:
    """Test accuracy after each search, in %."""
    rows = (done[task, method, search] for search in searches)
    return [100 * statistics.fmean(row[kind] if kind == "anew" else [row[kind]]) for row in rows]


def overview(done: Done, tasks: Sequence[str], searches: range) -> list[str]:
    """Accuracy by task and method, and of ours minus theirs."""
    columns = [(method, "anew") for method in METHODS] + [(BY_HAND, "in_hand")]
    names = [*METHODS, "best restart by hand"]
    lines = [f"| test accuracy, % (optnas minus it) | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    groups = [[task] for task in tasks] + ([list(tasks)] if len(tasks) > 1 else [])
    for shown in groups:
        cells = []
        for method, kind in columns:
            theirs = [percents(done, task, method, searches, kind) for task in shown]
            mine = [percents(done, task, OURS, searches, kind) for task in shown]
            mean = f"{statistics.fmean(map(statistics.fmean, theirs)):.2f}"
            difference = Interval.of(*map(_minus, mine, theirs))
            cells.append(mean if method == OURS else f"{mean} ({difference})")
        name = shown[0] if len(shown) == 1 else f"mean of the {len(shown)}"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _minus(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def details(done: Done, tasks: Sequence[str], searches: range) -> list[str]:
    """What each method paid, tried and ended with; means over the searches."""
    names = ["paid trainings", "trials", "completed", "seconds", "of the processor", "its best score"]
    names += ["that of it anew", "test, %, anew", "test, %, in hand"]
    lines = [f"| task | method | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for task in tasks:
        for method in METHODS:
            rows = [done[task, method, search] for search in searches]
            mean = {
                key: statistics.fmean(row[key] for row in rows) for key in rows[0] if _is_number(rows[0][key])
            }
            anew = statistics.fmean(statistics.fmean(row["anew_found"]) for row in rows)
            test, hand = (
                statistics.fmean(percents(done, task, method, searches, kind)) for kind in ("anew", "in_hand")
            )
            cells = [f"{mean['paid']:.1f}", f"{mean['trials']:.0f}", f"{mean['complete']:.0f}"]
            cells += [f"{mean['seconds']:.0f}", f"{mean['processor']:.0f}", f"{mean['found']:.3f}"]
            lines.append(
                f"| {' | '.join([task, method, *cells, f'{anew:.3f}', f'{test:.2f}', f'{hand:.2f}'])} |"
            )
    return lines


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def whole(done: Done, tasks: Sequence[str], n_searches: int) -> range:
    """The rounds, from the first, in which every method has searched on every task."""
    rounds = range(n_searches)
    cells = [(task, method) for task in tasks for method in METHODS]
    missing = (i for i in rounds if any((*cell, i) not in done for cell in cells))
    return range(next(missing, n_searches))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--searches", type=int, default=5)
    parser.add_argument("--trainings", type=float, default=22, help="budget of a search, in whole trainings")
    parser.add_argument("--file", type=Path, default=KEPT)
    arguments = parser.parse_args()
    made: dict[str, Task] = {}
    done = read(arguments.file, arguments.trainings)
    for search in range(arguments.searches):
        for name in arguments.task:
            for method in arguments.method:
                if (name, method, search) in done:
                    continue
                try:
                    task = made.get(name) or made.setdefault(name, TASKS[name]())
                except FileNotFoundError as missing:
                    parser.error(f"{name} needs {missing}; choose others with --task.")
                row = run(task, name, method, search, arguments.trainings, N_ANEW)
                done[name, method, search] = row
                with arguments.file.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                accuracy = 100 * statistics.fmean(row["anew"])
                told = f"{accuracy:.2f} %, {row['paid']:.1f} paid, {row['processor']:.0f} s"
                print(f"{name}, {method}, search {search}: {told}", file=sys.stderr, flush=True)
    searches = whole(done, arguments.task, arguments.searches)
    if not searches:
        sys.exit("No round of searches is whole yet.")
    print(f"{len(searches)} searches a method, {arguments.trainings:g} trainings each.\n")
    print("\n".join(overview(done, arguments.task, searches)), end="\n\n")
    print("\n".join(details(done, arguments.task, searches)))


def be_quiet() -> None:
    """Thousands of trainings have nothing new to say."""
    for name in ("pytorch_lightning", "lightning_fabric", "optnas"):
        logging.getLogger(name).setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore")


if __name__ == "__main__":
    be_quiet()
    main()
