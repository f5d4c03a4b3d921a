"""Learning curves of random networks of the five tasks of compute.py, on which pruners can be replayed.

    python studies/benchmarks/curves.py [--task digits TREC ...] [--networks 150]
        [--file studies/benchmarks/results/curves.jsonl]
    python studies/benchmarks/pruners.py --file studies/benchmarks/results/curves.jsonl

Every network is trained in full, with answers drawn at random and a seed of its own. It is a line of `--file`
when it ends, so what was cut goes on: its task, its answers in the order in which the space asked, what it
scored on the validation data after each epoch (the higher the better: losses are negated), and its accuracy
on the test data.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import optuna
from optuna.samplers import RandomSampler

from optnas import record
from optnas.seeds import derive_seed

sys.path.insert(0, str(Path(__file__).parent))
from compute import TASKS, be_quiet

KEPT = Path(__file__).parent / "results" / "curves.jsonl"


def curve(name: str, number: int, folder: Path) -> dict[str, object]:
    """One network of a task."""
    objective = TASKS[name]().objective(folder, reuse_twins=False)
    seed = derive_seed("curves", name, number)
    study = optuna.create_study(direction=objective.directions[0], sampler=RandomSampler(seed=seed))
    record.SEED.write(study, seed)
    study.optimize(objective, n_trials=1)
    [trial] = study.trials
    sign = 1 if objective.directions[0] == "maximize" else -1
    tested = objective.estimator.test(objective.build(trial), study, trial)
    scores = [round(sign * value, 5) for _, value in sorted(trial.intermediate_values.items())]
    return {"task": name, "params": trial.params, "curve": scores, "test": round(tested["test_acc"], 5)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--networks", type=int, default=150)
    parser.add_argument("--file", type=Path, default=KEPT)
    arguments = parser.parse_args()
    lines = arguments.file.read_text().splitlines() if arguments.file.exists() else []
    there = Counter(json.loads(line)["task"] for line in lines)
    for number in range(arguments.networks):
        for name in arguments.task:
            if number < there[name]:
                continue
            with tempfile.TemporaryDirectory() as folder:
                row = curve(name, number, Path(folder))
            with arguments.file.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{name}, network {number}: {row['curve']}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    be_quiet()
    main()
