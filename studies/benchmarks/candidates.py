"""Time a suggestion of the default sampler on a space of real networks, and say where the time goes.

    python studies/benchmarks/candidates.py

The space: twenty convolutions, each of one of five widths and three kernels, with BatchNorm and ReLU. Rows:
one objective; the same with a limit on parameters, or on FLOPs; two objectives. Columns: processor
milliseconds of a suggestion, the mean over those after the start; how often a suggestion called the space,
and the milliseconds in these calls, which build a network on the meta device; the rest is looks, and the
surrogate. The first line has what one of each takes, beside a sketch.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from torch import nn

from optnas import Objective, create_study
from optnas.facts import sketch
from optnas.facts.fact import USUAL
from optnas.facts.glance import glance
from optnas.space import sample
from optnas.space.explore import on_meta
from optnas.trial import Trial, replay, scope

EXAMPLE = (2, 3, 32, 32)
START = 12  # trials before the sampler asks its surrogate

ROWS: dict[str, dict[str, Any]] = {
    "one objective": {"values": {"score": "maximize"}},
    "a limit on parameters": {"values": {"score": "maximize"}, "limits": {"n_params": 3e5}},
    "a limit on FLOPs": {"values": {"score": "maximize"}, "limits": {"flops": 1e8}},
    "score against FLOPs": {"values": {"score": "maximize", "flops": "minimize"}},
}


def space(trial: Trial) -> nn.Module:
    layers: list[nn.Module] = []
    width = 3
    for i in range(20):
        at = scope(trial, "layer", i)
        out = at.suggest_categorical("width", [16, 24, 32, 48, 64])
        kernel = at.suggest_categorical("kernel", [1, 3, 5])
        stride = 2 if i % 7 == 6 else 1
        layers += [
            nn.Conv2d(width, out, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
        ]
        width = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def score(params: dict[str, Any]) -> float:
    numbers = np.log([params[f"layer.{i}.width"] * params[f"layer.{i}.kernel"] for i in range(20)])
    return float(numbers.sum() - 5 * numbers.std())


class Timed:
    """The space, its calls, and the milliseconds in them."""

    def __init__(self) -> None:
        self.calls, self.took = 0, 0.0

    def __call__(self, trial: Trial) -> nn.Module:
        start = time.process_time()
        model = space(trial)
        self.calls, self.took = self.calls + 1, self.took + 1000 * (time.process_time() - start)
        return model


def suggestions(settings: dict[str, Any], n: int) -> tuple[float, float, float]:
    timed = Timed()
    objective = Objective(timed, lambda model, run: {}, example=EXAMPLE, **settings)
    study = create_study(objective, seed=0)
    rows = []
    for _ in range(n):
        calls, took, start = timed.calls, timed.took, time.process_time()
        trial = study.ask()
        space(trial)
        rows.append((1000 * (time.process_time() - start), timed.calls - calls, timed.took - took))
        costs = objective.costs(trial.params)
        study.tell(trial, [costs.get(name, score(trial.params)) for name in objective.values])
    return tuple(np.mean(rows[START:], axis=0).tolist())


def _once(do: Callable[[], object]) -> float:
    times = []
    for _ in range(9):
        start = time.process_time()
        do()
        times.append(1000 * (time.process_time() - start))
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=22)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    params = [sample(space, np.random.default_rng(i)) for i in range(9)]
    built = iter([on_meta(lambda p=p: space(replay(p))) for p in params])
    glance(on_meta(lambda: space(replay(params[0]))), EXAMPLE, USUAL)
    print(
        f"One build takes {_once(lambda: on_meta(lambda: space(replay(params[0])))):.1f} ms, a look at it "
        f"{_once(lambda: glance(next(built), EXAMPLE, USUAL)):.1f} ms, a sketch "
        f"{_once(lambda: sketch(lambda: space(replay(params[0])), EXAMPLE)):.1f} ms.\n"
    )
    print("| search | ms a suggestion | calls of the space | ms in them |\n|---|---|---|---|")
    for name in given.rows:
        took, calls, within = suggestions(ROWS[name], given.trials)
        print(f"| {name} | {took:.0f} | {calls:.0f} | {within:.0f} |", flush=True)


if __name__ == "__main__":
    main()
