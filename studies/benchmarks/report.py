"""How long does a report take, and how large is it?

    python studies/benchmarks/report.py --trials 1000

A study in memory of the conditional synthetic space (8 to 26 of 62 questions a trial): ten reports a trial,
every sixth trial pruned halfway, every twentieth failed. Seconds by the clock and of the processor.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna

from optnas import record, report
from optnas.analysis import explain
from optnas.benchmarks.synthetic import loss


def objective(trial: optuna.Trial) -> float:
    value = loss(trial)
    size = 2 ** len(trial.params)
    record.write_facts(trial, {"n_params": 1000 * size, "flops": 5000 * size})
    noise = np.random.default_rng(trial.number)
    for step in range(10):
        trial.report(value + 2 * float(np.exp(-step / 3)) + float(noise.normal(0, 0.02)), step)
        if step == 5 and trial.number % 6 == 5:
            raise optuna.TrialPruned
    if trial.number % 20 == 7:
        raise RuntimeError("no luck")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    n_trials = parser.parse_args().trials
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), study_name="synthetic")
    study.optimize(objective, n_trials, catch=(RuntimeError,))
    with tempfile.TemporaryDirectory() as folder:
        print(f"| {n_trials} trials | seconds | of the processor | MB |\n|---|---|---|---|")
        for name in ("report.html", "report.md"):
            clock, processor = time.perf_counter(), time.process_time()
            size = report(study, Path(folder) / name).stat().st_size / 1e6
            clock, processor = time.perf_counter() - clock, time.process_time() - processor
            print(f"| {name} | {clock:.1f} | {processor:.1f} | {size:.1f} |")
        clock, processor = time.perf_counter(), time.process_time()
        explain(study)
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        print(f"| of it, explain | {clock:.1f} | {processor:.1f} | |")


if __name__ == "__main__":
    main()
