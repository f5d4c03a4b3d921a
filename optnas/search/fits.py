"""Check that a study and a space fit each other before a trial is spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from optnas import record
from optnas.answers import Key, check_kept, check_storable, draw, keep_or_draw, params_key
from optnas.errors import ParamsMismatchError
from optnas.objective import Objective
from optnas.space.explore import walk
from optnas.strategy.base import fixed_params
from optnas.trial import Draw, replay

# How many waiting trials to build before an answer that the space never asked for is called wrong; other
# answers may lead to that question, so one build proves nothing.
_TRIES = 3

_NEW_STUDY = (
    "Start a study of another name, use the choices that it began with, or give the new ones a new name."
)

# Architectures drawn to see whether one name has the same choices in all of them.
_PROBES = 20


def check_fits(study: optuna.Study, objective: Objective) -> None:
    """Check that stored trials still fit the space: the last ten that finished, and all that wait.

    If thousands wait, only some trials are built for each answer that was given. A trial that fails to fit
    only because a range depends on other answers is found when it runs. Random architectures show whether
    each name has the same choices everywhere, and the same as in the study.

    Raises:
        ParamsMismatchError: naming the trial, the parameter and the way out.

    Examples:
        >>> optnas.search.check_fits(study, objective)
    """
    trials = study.get_trials(deepcopy=False)
    known = _Known(trials)
    try:
        for i in range(_PROBES):
            asked = Draw(keep_or_draw({}, np.random.default_rng(i)))
            walk(objective.space, asked)
            known.check(asked)
            if not asked.params:
                break  # what asks nothing, such as a mixture, is the same every time
        _replay_stored(trials, objective, known)
    except ParamsMismatchError as error:
        raise type(error)(f"Study {study.study_name!r} does not fit the space: {error}") from None


def never_asked(trial: FrozenTrial) -> list[str]:
    """Names for which a COMPLETE trial was given answers, although nothing asked for them."""
    return (
        sorted(fixed_params(trial).keys() - trial.params.keys()) if trial.state == TrialState.COMPLETE else []
    )


def _replay_stored(trials: Sequence[FrozenTrial], objective: Objective, known: _Known) -> None:
    finished = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    waiting = [t for t in trials if t.state == TrialState.WAITING]
    tried: Counter[tuple[str, Key]] = Counter()
    for trial in finished[-10:] + waiting:
        given = fixed_params(trial)
        if trial.state == TrialState.WAITING and all(tried[answer] >= _TRIES for answer in params_key(given)):
            continue
        asked = _complete(given) if trial.state == TrialState.WAITING else replay(given)
        try:
            # If the space itself raises, the stored trials are not to blame.
            if walk(objective.space, asked) is None:
                _check_all_asked(trial, asked)
        except ParamsMismatchError as error:
            raise ParamsMismatchError(f"trial {trial.number}: {error}{_way_out(trial)}") from None
        known.check(asked)
        for answer in params_key(given):
            tried[answer] += _TRIES if answer[0] in asked.params else 1


def _way_out(trial: FrozenTrial) -> str:
    if trial.state != TrialState.WAITING:
        return ""
    return (
        " The trial waits, with answers that it was enqueued with; if these are the mistake, "
        "study.tell(study.ask(), state=optuna.trial.TrialState.FAIL) gives up the first trial that waits."
    )


class _Known:
    """The first question for each name: that of a trial of the study, or of now."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self._stored: dict[str, tuple[BaseDistribution, int]] = {}
        for trial in trials:
            for name, distribution in trial.distributions.items():
                self._stored.setdefault(name, (distribution, trial.number))
        self._asked: dict[str, tuple[BaseDistribution, Mapping[str, Any]]] = {}

    def check(self, asked: Draw) -> None:
        """Compare the questions of one architecture with those that are known."""
        for name, now in asked.distributions.items():
            check_storable(name, now)
            before, params = self._asked.setdefault(name, (now, asked.params))
            check_kept(
                name,
                before,
                now,
                f"with the other answers {dict(params)}",
                way_out="Put what the choices depend on into the name, for example with scope(trial, ...).",
            )
            if name in self._stored:
                before, number = self._stored[name]
                check_kept(name, before, now, f"in trial {number}", way_out=_NEW_STUDY)


def _check_all_asked(trial: FrozenTrial, answers: Draw) -> None:
    asked = record.ASKED.of(trial)
    if asked is None:  # not finished: it is not known whether the space or the task asked
        return
    more = trial.params.keys() - asked.keys() - answers.params.keys()
    if more:
        raise ParamsMismatchError(
            f"The space no longer asks for {', '.join(map(repr, sorted(more)))} and would build another "
            "model. Start a study of another name, or use the space that it began with."
        )


def _complete(given: dict[str, Any]) -> Draw:
    """The given answers, and any valid answers to the other questions, which the sampler will answer."""
    rng = np.random.default_rng(0)
    return Draw(lambda name, distribution: given[name] if name in given else draw(distribution, rng))
