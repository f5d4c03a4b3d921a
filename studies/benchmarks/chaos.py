"""Kill -9 of random workers in the middle of their trials, again and again; then every trial is gone over.

    python studies/benchmarks/chaos.py [--kills 100] [--trials 150] [--storage postgresql://...]

Prints one table. What it should say: all trials count, none is left over, no epoch that was over ran again
(a kill may cost the one in progress, and, in the milliseconds between its end and its stored state, that
one), and every value, of every epoch, is equal bit for bit to that of the same training left in peace.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytorch_lightning as pl
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from optnas import Classification, Digits, Objective, Training, create_study, optimize, record
from optnas.estimation.run import Run
from optnas.launch.launcher import Launcher, LocalProcesses
from optnas.record import counts
from optnas.search.recovery import MAX_KILLS
from optnas.storage.open import open_storage

EPOCHS = 4
WORKERS = 4
SHARE = 0.8  # of the trials, in which the kills should be over


class Log(pl.Callback):
    """Sleeps in every epoch, so that kills hit it, and writes a line `trial epoch pid` at its end.

    With `over`, a file, the second epoch waits until it is there.
    """

    def __init__(self, file: Path, number: int, pause: float, over: Path | None) -> None:
        self.file, self.number, self.pause, self.over = file, number, pause, over

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        time.sleep(self.pause)
        while trainer.current_epoch == 1 and self.over is not None and not self.over.exists():
            time.sleep(0.02)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with self.file.open("a") as file:
            file.write(f"{self.number} {trainer.current_epoch} {os.getpid()}\n")


def space(trial: optuna.Trial) -> nn.Module:
    width = trial.suggest_int("width", 4, 32)
    layers = [nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 10)]
    return nn.Sequential(*layers)


def make_objective(folder: Path, pause: float, n_free: int) -> Objective:
    """Trials from number `n_free` on do not end before the kills are over, unless they have no life to spare:
    however slow the killer is, it finds its victims."""

    def callbacks(trial: Run) -> list[pl.Callback]:
        if trial.lone:  # a rehearsal, which is not one of the trials
            return []
        waits = trial.number >= n_free and len(record.attempts(trial)) < MAX_KILLS
        return [Log(folder / "epochs", trial.number, pause, folder / "over" if waits else None)]

    training = Training(
        Classification(10, lr=(1e-3, 1e-1)),
        Digits(batch_size=256),
        monitor="val_loss",  # tells apart what an accuracy would not
        mode="min",
        max_epochs=EPOCHS,
        folder=folder / "runs",
        callbacks=callbacks,
    )
    return Objective(space, training)


@dataclass(frozen=True)
class Kill:
    number: int
    pid: int
    epochs: int  # that the trial had reported


class Killer(threading.Thread):
    """Kills workers while the search goes on until `n_kills` have hit a trial, half of them past its first
    epoch, and then makes the file `over`.

    No trial is hit so often that it would be given up. `halfway` is called once, in the middle; `end` ends
    the worker of a pid, which is stopped.
    """

    def __init__(
        self,
        url: str,
        over: Path,
        n_trials: int,
        n_kills: int,
        seed: int,
        halfway: Callable[[], None] | None,
        end: Callable[[int], None],
    ) -> None:
        super().__init__(name="killer", daemon=True)
        self.end = end
        self.study = optuna.load_study(study_name="chaos", storage=open_storage(url))
        self.over, self.n_trials, self.n_kills, self.halfway = over, n_trials, n_kills, halfway
        self.random = random.Random(seed)
        self.kills: list[Kill] = []
        self.stop = threading.Event()

    def run(self) -> None:
        try:
            self.attack()
        finally:
            self.over.touch()  # or trials wait for ever

    def attack(self) -> None:
        while not self.stop.wait(0.02):
            trials = self.trials()
            n_finished = sum(trial.state.is_finished() for trial in trials)
            if self.halfway is not None and n_finished >= self.n_trials / 2:
                self.halfway()
                self.halfway = None
            # Spread over the search, and done before its last trials.
            due = min(self.n_kills, self.n_kills * (n_finished + 2) / (SHARE * self.n_trials))
            made = [kill for kill in self.kills if not missed(kill, trials[kill.number])]
            if len(made) < due:
                n_late = sum(kill.epochs > 0 for kill in made)
                self.kill(first=1 if n_late < len(made) / 2 else 0)
            elif sum(was_hit(kill, trials[kill.number]) for kill in made) >= self.n_kills:
                self.over.touch()

    def kill(self, first: int) -> None:
        victims = [trial for trial in self.trials() if self.may_die(trial, first)]
        if not victims:
            return
        victim = self.random.choice(victims)
        pid = record.ATTEMPTS.of(victim)[-1]["pid"]
        time.sleep(self.random.uniform(0.0, 0.3))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)  # or it might go on to a trial that has no life to spare
            try:
                trial = self.trials()[victim.number]
                if self.may_die(trial, first) and record.ATTEMPTS.of(trial)[-1]["pid"] == pid:
                    self.kills.append(Kill(trial.number, pid, len(trial.intermediate_values)))
                    self.end(pid)
            finally:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def may_die(self, trial: FrozenTrial, first: int) -> bool:
        """Whether it runs, between epoch `first` and its last, and has a life to spare."""
        attempts = record.attempts(trial)
        return (
            trial.state == TrialState.RUNNING
            and bool(attempts)
            and "ended" not in attempts[-1]
            and attempts[-1]["pid"] not in {kill.pid for kill in self.kills}
            and sum(kill.number == trial.number for kill in self.kills) < MAX_KILLS - 1
            and first <= len(trial.intermediate_values) < EPOCHS
        )

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)


def was_hit(kill: Kill, trial: FrozenTrial) -> bool:
    """Whether the kill ended an attempt at the trial, by the trial's own records."""
    attempts = record.attempts(trial)
    return any(a["pid"] == kill.pid and a.get("how") in ("killed", "interrupted") for a in attempts)


def missed(kill: Kill, trial: FrozenTrial) -> bool:
    """Whether the trial ended before the kill."""
    return trial.state.is_finished() and not was_hit(kill, trial)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def search(
    folder: Path,
    url: str,
    n_trials: int,
    n_kills: int,
    *,
    pause: float = 0.25,
    seed: int = 0,
    halfway: Callable[[], None] | None = None,
    workers: Launcher | None = None,
    end: Callable[[int], None] = kill,
) -> tuple[optuna.Study, list[Kill]]:
    """Run a search to its end while its workers are killed."""
    objective = make_objective(folder, pause, n_free=math.ceil(SHARE * n_trials))
    pruner = optuna.pruners.NopPruner()
    study = create_study(objective, study_name="chaos", storage=url, seed=seed, pruner=pruner)
    killer = Killer(url, folder / "over", n_trials, n_kills, seed, halfway, end)
    killer.start()
    try:
        optimize(study, objective, n_trials, workers=workers or LocalProcesses(WORKERS))
    finally:
        killer.stop.set()
        killer.join()
    return study, killer.kills


@dataclass(frozen=True)
class Account:
    """What a search that was attacked came to.

    Attributes:
        counted: trials that count toward the budget.
        others: of the trials that do not count, how they ended.
        hits: kills that ended an attempt at a trial, by the trials' own records.
        late: of these, kills of a trial that had reported an epoch.
        missing: epochs of counted trials that no process says to have finished, or that were not reported.
        repeated: epochs that ran once more because a kill hit between their end and their stored state.
        lost: epochs that ran once more though they were not the one in progress, or were reported.
        different: trials of which a value is not that of the training left in peace.
    """

    counted: int
    others: list[str]
    hits: int
    late: int
    missing: int
    repeated: int
    lost: int
    different: list[int]


def account(study: optuna.Study, folder: Path, kills: list[Kill]) -> Account:
    """Go over every trial, its log and its kills, and train all of them again."""
    trials = study.get_trials()
    counted = [trial for trial in trials if counts(trial)]
    lines = [tuple(map(int, line.split())) for line in (folder / "epochs").read_text().splitlines()]
    hits = [kill for kill in kills if was_hit(kill, trials[kill.number])]
    reported = {kill.pid: kill.epochs for kill in hits}
    missing = repeated = lost = 0
    for trial in counted:
        own = (line for line in lines if line[0] == trial.number)
        attempts = [
            (pid, [epoch for _, epoch, _ in part])
            for pid, part in itertools.groupby(own, lambda line: line[2])
        ]
        missing += len(set(range(EPOCHS)) - {epoch for _, epochs in attempts for epoch in epochs})
        missing += len(set(range(EPOCHS)) - set(trial.intermediate_values))
        for (pid, before), (_, after) in itertools.pairwise(attempts):
            ended = before[-1] + 1
            stored = max(ended - 1, reported.get(pid, 0))
            lost += max(0, stored - after[0])
            repeated += max(0, ended - max(stored, after[0]))
    return Account(
        counted=len(counted),
        others=[
            f"trial {trial.number}: {trial.state.name}, {record.why(trial)}"
            for trial in trials
            if not counts(trial)
        ],
        hits=len(hits),
        late=sum(kill.epochs > 0 for kill in hits),
        missing=missing,
        repeated=repeated,
        lost=lost,
        different=train_again(counted, folder),
    )


def train_again(trials: list[FrozenTrial], folder: Path) -> list[int]:
    """The numbers of the trials that come out differently when nothing disturbs them."""
    peaceful = folder / "again"
    peaceful.mkdir()
    objective = make_objective(peaceful, pause=0.0, n_free=len(trials))
    study = create_study(objective, pruner=optuna.pruners.NopPruner())
    for trial in trials:
        study.enqueue_trial(trial.params, user_attrs={record.SEED.name: record.SEED.of(trial)})
    n_threads = torch.get_num_threads()
    attempts = [attempt for trial in trials for attempt in record.ATTEMPTS.of(trial)]
    [recorded] = {attempt["threads"] for attempt in attempts if "threads" in attempt}
    torch.set_num_threads(recorded)
    try:
        optimize(study, objective, len(trials))
    finally:
        torch.set_num_threads(n_threads)
    return [
        trial.number
        for trial, again in zip(trials, study.trials, strict=True)
        if (trial.params, trial.value, trial.intermediate_values, record.METRICS.of(trial))
        != (again.params, again.value, again.intermediate_values, record.METRICS.of(again))
    ]


def show(found: Account, n_kills: int, n_trials: int, seconds: float) -> None:
    """Print the table."""
    print(f"{'workers killed':<40}{n_kills:>6}")
    print(f"{'  in a trial':<40}{found.hits:>6}")
    print(f"{'  past its first epoch':<40}{found.late:>6}")
    print(f"{'trials asked for':<40}{n_trials:>6}")
    print(f"{'  that count':<40}{found.counted:>6}")
    print(f"{'  left over or failed':<40}{len(found.others):>6}")
    print(f"{'epochs missing':<40}{found.missing:>6}")
    print(f"{'epochs repeated: being stored when hit':<40}{found.repeated:>6}")
    print(f"{'epochs repeated that were stored':<40}{found.lost:>6}")
    print(f"{'trials that come out differently':<40}{len(found.different):>6}")
    print(f"{'seconds':<40}{seconds:>6.0f}")
    for other in found.others:
        print(other)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--storage", help="a new SQLite file if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = options.storage or f"sqlite:///{folder}/chaos.db"
        started = time.perf_counter()
        study, kills = search(folder, url, options.trials, options.kills)
        seconds = time.perf_counter() - started
        found = account(study, folder, kills)
    show(found, len(kills), options.trials, seconds)


if __name__ == "__main__":
    main()
