"""Time one full suggestion on SQLite after many finished trials of a conditional space, for each strategy.

    python studies/benchmarks/ask.py --trials 1000

The median of a few trials that answer 8 to 26 of 62 questions of the synthetic space, storage included, and
its ratio to Optuna's TPE; the first trial, which loads the study, apart. Timings are of one machine: read
the ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from optnas.space import synthetic
from optnas.strategy import (
    DistinctSampler,
    LocalSearchSampler,
    MixedCmaEsSampler,
    PaddedSampler,
    RegularizedEvolutionSampler,
    ReinforceSampler,
)

SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "TPE": lambda: TPESampler(seed=0),
    "random": lambda: RandomSampler(seed=0),
    "evolution": lambda: RegularizedEvolutionSampler(seed=0),
    "evolution, distinct": lambda: DistinctSampler(
        RegularizedEvolutionSampler(seed=0), synthetic.loss, seed=0
    ),
    "local search": lambda: LocalSearchSampler(seed=0),
    "mixed CMA-ES": lambda: MixedCmaEsSampler(synthetic.SLOTS, seed=0),
    "NSGA-II, padded": lambda: PaddedSampler(NSGAIISampler(seed=0), synthetic.SLOTS),
    "REINFORCE": lambda: ReinforceSampler(seed=0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one full suggestion.")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    source = optuna.create_study(sampler=RandomSampler(seed=1))
    source.optimize(synthetic.loss, n_trials=arguments.trials)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'study.db'}"
        optuna.create_study(storage=url, study_name="ask").add_trials(source.trials)
        print("| sampler | first, ms | later, ms | / TPE |\n|---|---|---|---|")
        reference = None
        for name, make in SAMPLERS.items():
            first, later = _time(
                optuna.load_study(storage=url, study_name="ask", sampler=make()), arguments.repeats
            )
            reference = reference or later
            print(f"| {name} | {first:.0f} | {later:.0f} | {later / reference:.2f} |", flush=True)


def _time(study: optuna.Study, repeats: int) -> tuple[float, float]:
    """Milliseconds of the first and the median of the later suggestions."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        trial = study.ask()
        synthetic.loss(trial)
        times.append(1e3 * (time.perf_counter() - start))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return times[0], float(np.median(times[1:]))


if __name__ == "__main__":
    main()
