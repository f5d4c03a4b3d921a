"""A short estimate before the first trial, so that a mistake in the settings costs no trial."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import TrialState
from torch import nn

from optnas.answers import keep_or_draw
from optnas.errors import SearchFailedError, SpaceError, TrialPaused, describe_error, is_infrastructure
from optnas.estimation.run import Run
from optnas.objective import ANOTHER_NETWORK, Objective, its_own
from optnas.search.signals import signals_raise
from optnas.space.explore import walk
from optnas.strategy.base import fixed_params
from optnas.training.snapshot import shapes
from optnas.trial import Draw, replay

_TRIES = 5  # networks; that the space refuses some, or some do not run, is no mistake in the settings


def rehearse(study: optuna.Study, objective: Objective) -> None:
    """Let the estimator rehearse with one network, unless a trial of the study has finished already.

    It is the network of the first enqueued trial, or a random one. Random numbers, the sampler and the study
    stay as they are.

    Raises:
        SearchFailedError: it failed; the message has the reason, the cause its traceback.
    """
    trials = study.get_trials(deepcopy=False)
    if any(trial.state.is_finished() for trial in trials):
        return
    enqueued = [fixed_params(trial) for trial in trials if trial.state == TrialState.WAITING]
    errors: list[Exception] = []
    with signals_raise(), random_numbers_as_before():
        for i in range(_TRIES):
            params = some_answers(objective, (enqueued or [{}])[0] if i == 0 else {}, seed=i)
            try:
                model = objective.build(replay(params))
            except optuna.TrialPruned:
                continue  # the space refuses it
            except Exception as error:
                if is_infrastructure(error):
                    raise
                errors.append(error)
                continue
            _check_repeats(objective, params, model)
            try:
                metrics = objective.estimator.rehearse(model, Run.of(replay(params)))
            except (optuna.TrialPruned, TrialPaused):
                continue
            except FloatingPointError as error:  # perhaps only this network diverges
                errors.append(error)
                continue
            except Exception as error:
                if is_infrastructure(error):
                    raise
                raise _failed(params, error) from error
            for words in objective.misnamed(metrics) if metrics is not None else ():
                raise _failed(params, ValueError(words))
            return
    if len(errors) == _TRIES and len({type(error) for error in errors}) == 1:
        raise _failed(params, errors[-1]) from errors[-1]


def _check_repeats(objective: Objective, params: Mapping[str, Any], model: nn.Module) -> None:
    """Build the network again, with other random numbers, and compare.

    Raises:
        SearchFailedError: other parameters came out, or the very same ones.
    """
    other = objective.build(replay(params))
    if objective.estimator.keeps_weights:
        try:
            its_own(other, its_own(model, {}))
        except SpaceError as error:
            raise _failed(params, error) from error
    once, again = shapes(model), shapes(other)
    differ = [name for name in {**once, **again} if once.get(name) != again.get(name)]
    if differ:
        built = f"{differ[0]!r} has the shape {once.get(differ[0])}, then {again.get(differ[0])}"
        raise _failed(params, SpaceError(f"{ANOTHER_NETWORK} Built twice, {built}."))


def _failed(params: Mapping[str, Any], error: Exception) -> SearchFailedError:
    return SearchFailedError(
        f"The search does not begin: {describe_error(error)}\nThat is from a rehearsal, with "
        f"{dict(params)}; it cost no trial. Fix it and run the same search again."
    )


def some_answers(objective: Objective, given: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Answers to all questions that can be asked before an estimate: given ones, and random ones."""
    asked = Draw(keep_or_draw(given, np.random.default_rng(seed)))
    walk(objective.ask, asked)
    return asked.params


@contextmanager
def random_numbers_as_before() -> Iterator[None]:
    """Restore the global random states at the end."""
    python = random.getstate()
    numpy = np.random.get_state()  # noqa: NPY002  # the global generator is the one that user code draws from
    # Do not initialize a device that was not used yet: that would take memory.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002  # as above
