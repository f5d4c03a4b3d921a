"""Time a suggestion of the default sampler on a space of real networks, and say where the time goes.

    python studies/benchmarks/candidates.py

The space: twenty convolutions, each of one of five widths and three kernels, with BatchNorm and ReLU. Rows:
one objective; the same where the surrogate sees how networks are put together whether or not that predicts
better; with a limit on parameters, or on FLOPs; two objectives. Columns: processor milliseconds of a
suggestion, the mean over those after the start; how often a suggestion called the space, and the milliseconds
in these calls, which build a network on the meta device, and in passes through it; the rest is the surrogate.
Networks of finished trials are looked at once, in the first suggestion of a process: *first* is what that
takes. The line before the table has what one of each takes, beside a sketch.

`--before N` begins with so many finished random trials.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
from optuna.trial import FrozenTrial, create_trial
from torch import nn

from optnas import Objective, create_study
from optnas.facts import sketch
from optnas.facts.fact import USUAL
from optnas.facts.flow import flow_of_new
from optnas.facts.glance import glance
from optnas.space import sample
from optnas.space.explore import on_meta
from optnas.strategy import structures
from optnas.surrogate import model
from optnas.trial import Trial, replay, scope

EXAMPLE = (2, 3, 32, 32)
START = 12  # trials before the sampler asks its surrogate

ROWS: dict[str, dict[str, Any]] = {
    "one objective": {"values": {"score": "maximize"}},
    "one objective, networks seen": {"values": {"score": "maximize"}},
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
    """A function, its calls, and the milliseconds in them."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self.calls, self.took = 0, 0.0

    def __call__(self, *arguments: Any) -> Any:
        start = time.process_time()
        made = self._call(*arguments)
        self.calls, self.took = self.calls + 1, self.took + 1000 * (time.process_time() - start)
        return made


def suggestions(name: str, n: int, before: int) -> tuple[float, ...]:
    """The first after so many trials, in milliseconds; the means of `n` others, see the columns."""
    timed, passes = Timed(space), Timed(flow_of_new)
    objective = Objective(timed, lambda model, run: {}, example=EXAMPLE, **ROWS[name])
    study = create_study(objective, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(before):
        study.add_trial(_finished(objective, sample(space, rng)))
    rows = []
    gain = -math.inf if name.endswith("seen") else model.GAIN
    with patch.object(structures, "flow_of_new", passes), patch.object(model, "GAIN", gain):
        for _ in range(n + (1 if before else START)):
            calls, took, looks, start = timed.calls, timed.took, passes.took, time.process_time()
            trial = study.ask()
            space(trial)
            took, looks = timed.took - took, passes.took - looks
            rows.append((1000 * (time.process_time() - start), timed.calls - calls, took, looks))
            study.tell(trial, _values(objective, trial.params))
    return rows[0][0], *np.mean(rows[-n:], axis=0).tolist()


def _values(objective: Objective, params: dict[str, Any]) -> list[float]:
    costs = objective.costs(params)
    return [costs.get(name, score(params)) for name in objective.values]


def _finished(objective: Objective, params: dict[str, Any]) -> FrozenTrial:
    asked = replay(params)
    space(asked)
    return create_trial(params=params, distributions=asked.distributions, values=_values(objective, params))


def _once(do: Callable[[], object]) -> float:
    times = []
    for _ in range(9):
        start = time.process_time()
        do()
        times.append(1000 * (time.process_time() - start))
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--suggestions", type=int, default=10)
    parser.add_argument("--before", type=int, default=0, help="random trials before, instead of a start")
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
    print(f"{given.suggestions} suggestions after {given.before or START} trials, seed 0\n")
    print("| search | ms a suggestion | calls of the space | ms in them | ms in passes | ms, the first |")
    print("|---|---|---|---|---|---|")
    for name in given.rows:
        first, took, calls, within, passes = suggestions(name, given.suggestions, given.before)
        print(
            f"| {name} | {took:.0f} | {calls:.0f} | {within:.0f} | {passes:.0f} | {first:.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
