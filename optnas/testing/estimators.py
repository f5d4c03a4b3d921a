"""Does an estimator keep the rules that every search relies on?"""

from __future__ import annotations

import inspect
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import cloudpickle
import numpy as np
import optuna
from torch import nn

from optnas import record
from optnas.answers import keep_or_draw, same
from optnas.errors import ConformanceError, SpaceError, describe_error, is_users_code
from optnas.estimation.estimator import Direction, Estimator
from optnas.estimation.run import Run
from optnas.facts import count_params
from optnas.objective import Objective
from optnas.seeds import seed_everything
from optnas.space.explore import on_meta
from optnas.trial import Draw, Space


def check_estimator(
    estimator: Estimator | Callable[..., Mapping[str, float]],
    space: Space[nn.Module],
    *,
    values: Mapping[str, Direction] | None = None,
    example: Any = None,
    deterministic: bool = True,
    seed: int = 0,
) -> None:
    """Score one random architecture of `space` twice, outside any study, and check what a search relies on.

    The checks, by the name that the error carries:

    - `example`: the estimator's inputs fit the models of the space
    - `metrics`: finite numbers by name, among them what `values` promises
    - `model`: the model has as many parameters after the estimate as before
    - `ask`: the call asks what `ask` asks, with equal answers, and no more: a search plans by `ask`
    - `same again`: the same seed gives the same metrics
    - `settings`: JSON, and equal in another process, so that workers take each other's values

    Args:
        estimator: what `optnas.Objective` takes.
        space: a function of a trial that returns a model, small enough to be scored twice here.
        values: see `Objective`.
        example: see `Objective`.
        deterministic: False for an estimate that is not to be repeated, such as a latency: no `same again`.
        seed: of the architecture and of the estimates.

    Raises:
        ConformanceError: a check failed.
        ValueError: `Objective` does not take the estimator.

    Examples:
        >>> optnas.testing.check_estimator(score, space, values={"score": "maximize"}, example=example)
    """
    objective = Objective(space, estimator, values=values, example=example)
    first = _estimate(objective, seed)
    _check_asked(objective, first, seed)
    _check_metrics(objective, first)
    if deterministic:
        again = _estimate(objective, seed)
        for name in {**first.metrics, **again.metrics}:
            one, other = first.metrics.get(name), again.metrics.get(name)
            if one != other:
                first.refuse(
                    "same again",
                    f"the same seed gave {name}={one!r} and then {other!r}. Draw random numbers from "
                    "torch, numpy or random, seeded before, or from run.seed; keep nothing from one call "
                    "to the next. If it cannot be repeated, say deterministic=False.",
                )
    _check_settings(objective.estimator, first)


class _Estimate:
    """One estimate of one architecture."""

    def __init__(self, answers: Draw, run: Run, n_params: tuple[int, int], metrics: Any) -> None:
        self.params = {**answers.params, **run.asked}
        self.asked = dict(run.asked)
        self.n_params = n_params
        self.metrics = metrics

    def refuse(self, check: str, message: str) -> NoReturn:
        raise ConformanceError(check, message, self.params)


def _estimate(objective: Objective, seed: int) -> _Estimate:
    """As a trial of a study estimates, but of a run that belongs to none and keeps nothing."""
    asked = Draw(keep_or_draw({}, np.random.default_rng(seed)))
    run = Run.of(asked)
    record.SEED.write(run, seed)
    objective.example_for(run)  # as a trial does, so that the run notes what this asks
    answers = Draw(run.answer)
    seed_everything(seed)
    try:
        model = objective.build(answers)
    except SpaceError as error:
        raise ConformanceError(
            "example",
            f"a model of the space does not take the estimator's inputs: {error} Give a space whose models "
            "take them, or say example=.",
            answers.params,
        ) from error
    before = count_params(model)
    try:
        metrics: Any = objective.estimator(model, run)
    except optuna.TrialPruned as pruned:
        message = f"the estimate ended PRUNED ({pruned}); give a space whose architectures can all be scored."
        raise ConformanceError("metrics", message, asked.params) from pruned
    return _Estimate(answers, run, (before, count_params(model)), metrics)


def _check_asked(objective: Objective, found: _Estimate, seed: int) -> None:
    told = Draw(keep_or_draw(found.params, np.random.default_rng(seed + 1)))
    objective.example_for(told)
    of_space = Draw(keep_or_draw(found.params, np.random.default_rng(seed)))
    on_meta(lambda: objective.estimator.ask(objective.space(of_space), told))
    if more := sorted(found.asked.keys() - told.params.keys()):
        found.refuse(
            "ask",
            f"the call asked for {', '.join(map(repr, more))}, and ask(model, trial) did not. A search plans "
            "a trial by `ask`, and tells repeats by it: ask the same there, in the same order.",
        )
    if less := sorted(told.params.keys() - found.asked.keys()):
        found.refuse(
            "ask",
            f"ask(model, trial) asked for {', '.join(map(repr, less))}, and the call did not: architectures "
            "would be taken for different that are scored alike.",
        )
    for name, answer in found.asked.items():
        if not same(told.params[name], answer):
            found.refuse(
                "ask",
                f"{name!r} has other choices in ask(model, trial) than in the call ({answer!r}).",
            )


def _check_metrics(objective: Objective, found: _Estimate) -> None:
    metrics = found.metrics
    if not isinstance(metrics, Mapping):
        found.refuse("metrics", f"it returned {metrics!r}; return numbers by name: {{'val_acc': 0.9}}.")
    for name in objective.values:
        if name not in metrics:
            names = ", ".join(map(repr, metrics)) or "nothing"
            found.refuse("metrics", f"`values` promises {name!r}, and it returned {names}.")
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            found.refuse("metrics", f"{name!r} is {value!r}, which is no number.")
        if not isinstance(name, str) or not math.isfinite(number):
            found.refuse("metrics", f"{name!r} is {value!r}; a search needs names and finite numbers.")
    before, after = found.n_params
    if before != after:
        found.refuse(
            "model",
            f"the model had {before:,} parameters and has {after:,}. Facts were measured before: build what "
            "is added in the space, or add it to a copy.",
        )


def _check_settings(estimator: Estimator, found: _Estimate) -> None:
    settings = estimator.settings
    try:
        here = json.dumps(settings, sort_keys=True)
    except (TypeError, ValueError) as error:
        found.refuse("settings", f"{settings!r} is not JSON: {error}. Describe by strings and numbers.")
    there = _settings_elsewhere(estimator, found)
    if here != there:
        found.refuse(
            "settings",
            f"they are {here} here and {there} in another process, where the order of sets and the "
            "addresses of objects differ. Name what matters by strings and numbers.",
        )


_CHILD = """
import sys, json, cloudpickle
print(json.dumps(cloudpickle.loads(sys.stdin.buffer.read()).settings, sort_keys=True))
"""


def _settings_elsewhere(estimator: Estimator, found: _Estimate) -> str:
    try:
        with _own_modules_by_value(estimator):
            sent = cloudpickle.dumps(estimator)
    except Exception as error:
        found.refuse("settings", f"the estimator cannot be sent to a worker: {describe_error(error)}.")
    path = os.pathsep.join(part or os.getcwd() for part in sys.path)
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "4711"}
    child = subprocess.run([sys.executable, "-c", _CHILD], input=sent, capture_output=True, env=environment)
    if child.returncode:
        last = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        found.refuse("settings", f"they cannot be had in a worker process: {last}")
    printed: str = child.stdout.decode().strip()
    return printed.rpartition("\n")[2]


@contextmanager
def _own_modules_by_value(estimator: Estimator) -> Iterator[None]:
    """Send what the user's own module defines as it is: a test's module cannot be imported elsewhere."""
    modules = {inspect.getmodule(part) for part in (estimator, *vars(estimator).values())}
    files = {m: vars(m).get("__file__") for m in modules if m is not None and m.__name__ != "__main__"}
    own = [module for module, file in files.items() if file is not None and is_users_code(file)]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)
