"""Does a search with eight workers run eight times as fast? Trials that sleep, so that nothing else counts.

    python studies/benchmarks/parallel.py [--workers 8] [--trials 80] [--seconds 1.0]

Prints one table. Start-up apart: every worker's first trial waits until all workers have one, and from that
moment to the end of the last trial it should take trials * seconds / workers. Ten parameters a trial, SQLite.
Whatever else the machine does adds to the time, most of all to that of TPE, which computes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

import optuna
from optuna.samplers import RandomSampler, TPESampler
from torch import nn

from optnas import Objective, create_study, optimize

SAMPLERS = {
    "RandomSampler": lambda seed: RandomSampler(seed=seed),
    "TPESampler": lambda seed: TPESampler(multivariate=True, group=True, seed=seed),
}


def space(trial: optuna.Trial) -> nn.Module:
    widths = [trial.suggest_int(f"width{i}", 1, 64) for i in range(10)]
    return nn.Sequential(*(nn.Linear(a, b) for a, b in zip([4, *widths], [*widths, 2], strict=True)))


class Sleep:
    """Sleeps, once all workers are there. Each says so by a file of its own."""

    values = {"score": "maximize"}  # noqa: RUF012  # read only

    def __init__(self, folder: Path, n_workers: int, seconds: float) -> None:
        self.folder, self.n_workers, self.seconds = folder, n_workers, seconds

    def example(self, trial: optuna.Trial) -> tuple[int, ...]:
        return (2, 4)

    def __call__(self, model: nn.Module, trial: optuna.Trial) -> dict[str, float]:
        mine = self.folder / str(os.getpid())
        if not mine.exists():
            mine.touch()
        while len(list(self.folder.iterdir())) < self.n_workers:
            time.sleep(0.01)
        time.sleep(self.seconds)
        return {"score": -float(sum(p.numel() for p in model.parameters()))}


def measure(sampler: str, n_workers: int, n_trials: int, seconds: float) -> float:
    """Seconds from the moment when all workers are there to the end of the last trial."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        here = folder / "workers"
        here.mkdir()
        objective = Objective(space, Sleep(here, n_workers, seconds), reuse_twins=False)
        url = f"sqlite:///{folder}/parallel.db"
        study = create_study(objective, study_name=sampler, storage=url, sampler=SAMPLERS[sampler], seed=0)
        optimize(study, objective, n_trials, n_workers=n_workers)
        begin = max(file.stat().st_mtime for file in here.iterdir())
        trials = study.get_trials()
    assert len(trials) == n_trials
    return max(trial.datetime_complete.timestamp() for trial in trials) - begin


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group
    ideal = options.trials * options.seconds / options.workers
    took = {name: measure(name, options.workers, options.trials, options.seconds) for name in SAMPLERS}
    print(f"{options.workers} workers, {options.trials} trials of {options.seconds:g} s: {ideal:.1f} s")
    print(f"{'sampler':<16}{'took s':>8}{'ratio':>7}")
    for name, seconds in took.items():
        print(f"{name:<16}{seconds:>8.2f}{seconds / ideal:>7.2f}")


if __name__ == "__main__":
    main()
