"""Time one full suggestion on SQLite after many finished trials of a conditional space, for each strategy.

    python studies/benchmarks/ask.py --trials 1000

Processor milliseconds, storage included, of a trial that answers 8 to 26 of 62 questions of the synthetic
space: the first that a new process suggests, once it has loaded the study, and the median of later ones; its
ratio to Optuna's TPE, and the median by the clock. The storage is that of `optnas.create_study`. The trials
before were found by evolution, so that they are as deep as those of a search.
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

from optnas.benchmarks import synthetic
from optnas.storage.open import open_storage
from optnas.strategy import (
    DistinctSampler,
    LocalSearchSampler,
    MixedCmaEsSampler,
    PaddedSampler,
    PredictorSampler,
    RegularizedEvolutionSampler,
    ReinforceSampler,
)

SPACE = synthetic.loss
SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "TPE": lambda: TPESampler(seed=0),
    "TPE group": lambda: TPESampler(seed=0, multivariate=True, group=True),
    "TPE, padded": lambda: PaddedSampler(TPESampler(seed=0), synthetic.SLOTS),
    "random": lambda: RandomSampler(seed=0),
    "NSGA-II, padded": lambda: PaddedSampler(NSGAIISampler(seed=0), synthetic.SLOTS),
    "evolution": lambda: RegularizedEvolutionSampler(seed=0),
    "evolution, distinct": lambda: DistinctSampler(RegularizedEvolutionSampler(seed=0), SPACE, seed=0),
    "local search": lambda: LocalSearchSampler(seed=0),
    "local search, distinct": lambda: DistinctSampler(LocalSearchSampler(seed=0), SPACE, seed=0),
    "mixed CMA-ES": lambda: MixedCmaEsSampler(synthetic.SLOTS, seed=0),
    "REINFORCE": lambda: ReinforceSampler(seed=0),
    "predictor": lambda: PredictorSampler(SPACE, seed=0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one full suggestion.")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--samplers", nargs="*", choices=SAMPLERS, help="only these rows, and TPE")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    source = optuna.create_study(sampler=RegularizedEvolutionSampler(seed=1))
    source.optimize(SPACE, n_trials=arguments.trials)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'study.db'}"
        optuna.create_study(storage=open_storage(url), study_name="ask").add_trials(source.trials)
        loads = []
        rows = []
        for name in dict.fromkeys(["TPE", *(arguments.samplers or SAMPLERS)]):
            study = optuna.load_study(storage=open_storage(url), study_name="ask", sampler=SAMPLERS[name]())
            loads.append(_milliseconds(lambda study=study: study.get_trials(deepcopy=False))[0])
            rows.append((name, _time(study, arguments.repeats)))
    print(f"Loading the study: {np.median(loads):.0f} ms.\n")
    print("| sampler | first | later | / TPE | later, by the clock |\n|---|---|---|---|---|")
    for name, (first, later, clock) in rows:
        print(f"| {name} | {first:.0f} | {later:.0f} | {later / rows[0][1][1]:.2f} | {clock:.0f} |")


def _time(study: optuna.Study, repeats: int) -> tuple[float, float, float]:
    """Of the first suggestion; the median of the later ones; that median by the clock."""
    times = []
    for _ in range(repeats + 1):
        trials = []
        times.append(_milliseconds(lambda trials=trials: trials.append(_suggest(study))))
        study.tell(trials[0], state=optuna.trial.TrialState.FAIL)
    later = np.median(times[1:], axis=0)
    return times[0][0], float(later[0]), float(later[1])


def _suggest(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    SPACE(trial)
    return trial


def _milliseconds(do: Callable[[], object]) -> tuple[float, float]:
    """Of the processor, and by the clock."""
    busy, clock = time.process_time(), time.perf_counter()
    do()
    return 1e3 * (time.process_time() - busy), 1e3 * (time.perf_counter() - clock)


if __name__ == "__main__":
    main()
