"""Trainings that are paused and go on later, while workers are killed; then all are trained again in peace.

    python studies/benchmarks/pauses.py [--promotions 100] [--kills 20]

The pruner stops trainings after 1, 2 and 4 of 8 epochs and lets them go on later, until so many have;
meanwhile workers are killed (SIGKILL). Prints one table. What it should say: every trial has its epochs once,
and each of their values is equal bit for bit to that of the same training left in peace.
"""

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import optuna
import pytorch_lightning as pl
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from optnas import Classification, Digits, Objective, Training, create_study, optimize, record
from optnas.strategy.halving import HalvingPruner

EPOCHS = 8
WORKERS = 2


class Slow(pl.Callback):
    """Makes an epoch long enough to be hit."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        time.sleep(0.05)


def space(trial: optuna.Trial) -> nn.Module:
    width = trial.suggest_int("width", 4, 64)
    dropout = trial.suggest_float("dropout", 0.0, 0.5)
    layers = [nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 10)]
    return nn.Sequential(*layers)


def make_objective(folder: Path) -> Objective:
    training = Training(
        Classification(10, lr=(1e-4, 1e-1)),
        Digits(batch_size=256),
        monitor="val_loss",
        mode="min",
        max_epochs=EPOCHS,
        folder=folder / "runs",
        callbacks=[Slow()],
    )
    return Objective(space, training)


def make_study(objective: Objective, pruner: optuna.pruners.BasePruner, storage: str | None) -> optuna.Study:
    random_sampler = lambda seed: optuna.samplers.RandomSampler(seed=seed)  # noqa: E731
    return create_study(
        objective, study_name="pauses", storage=storage, sampler=random_sampler, pruner=pruner, seed=0
    )


def n_promoted(trial: FrozenTrial) -> int:
    """How often it went on after a pause."""
    hows = [attempt.get("how") for attempt in record.attempts(trial)]
    return hows[:-1].count("paused")


class Killer(threading.Thread):
    """Kills workers now and then, no trial twice at one point; ends the search when enough was promoted."""

    def __init__(self, study: optuna.Study, n_promotions: int, n_kills: int) -> None:
        super().__init__(name="killer", daemon=True)
        self.study, self.n_promotions, self.n_kills = study, n_promotions, n_kills
        self.hit: set[tuple[int, int]] = set()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            trials = self.study.get_trials(deepcopy=False)
            share = sum(map(n_promoted, trials)) / self.n_promotions
            running = [t for t in trials if t.state == TrialState.RUNNING and record.attempts(t)]
            free = [t for t in running if (t.number, len(t.intermediate_values)) not in self.hit]
            if free and len(self.hit) < self.n_kills * min(1.0, share + 0.1):
                victim = random.choice(free)
                self.hit.add((victim.number, len(victim.intermediate_values)))
                with suppress(ProcessLookupError):
                    os.kill(record.attempts(victim)[-1]["pid"], signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pauses, promotions and kills.")
    parser.add_argument("--promotions", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    arguments = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.perf_counter()
        objective = make_objective(folder)
        pruner = HalvingPruner(n_startup_trials=4, finish=0.9)
        study = make_study(objective, pruner, f"sqlite:///{folder}/pauses.db")
        killer = Killer(study, arguments.promotions, arguments.kills)
        killer.start()
        n_trials = 0
        while sum(map(n_promoted, study.get_trials(deepcopy=False))) < arguments.promotions:
            n_trials += 20
            optimize(study, objective, n_trials, n_workers=WORKERS)
        killer.over.set()
        killer.join()
        trials = study.trials
        seconds = time.perf_counter() - began
        missing = sum(list(t.intermediate_values) != list(range(len(t.intermediate_values))) for t in trials)
        different = differently(trials, folder / "again")
    print(f"{'trials':<50}{len(trials):>6}")
    print(f"{'  complete':<50}{sum(t.state == TrialState.COMPLETE for t in trials):>6}")
    print(f"{'times a paused training went on':<50}{sum(map(n_promoted, trials)):>6}")
    print(f"{'workers killed':<50}{len(killer.hit):>6}")
    print(f"{'trials that failed':<50}{sum(t.state == TrialState.FAIL for t in trials):>6}")
    print(f"{'trials whose epochs are not one after the other':<50}{missing:>6}")
    print(f"{'trials that come out differently in peace':<50}{len(different):>6}")
    print(f"{'seconds of the search':<50}{seconds:>6.0f}")


def differently(trials: list[FrozenTrial], folder: Path) -> list[int]:
    """The numbers of the trials that are not the beginning, or all, of the same training left in peace."""
    folder.mkdir()
    objective = make_objective(folder)
    study = make_study(objective, optuna.pruners.NopPruner(), None)
    for trial in trials:
        study.enqueue_trial(trial.params, user_attrs={record.SEED.name: record.SEED.of(trial)})
    optimize(study, objective, len(trials))
    found = []
    for trial, again in zip(trials, study.trials, strict=True):
        reports = list(trial.intermediate_values.items())
        same = reports == list(again.intermediate_values.items())[: len(reports)]
        whole = (trial.value, record.METRICS.of(trial)) == (again.value, record.METRICS.of(again))
        if not same or (trial.state == TrialState.COMPLETE and not whole):
            found.append(trial.number)
    return found


if __name__ == "__main__":
    main()
