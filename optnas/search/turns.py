"""Whose turn it is: trials that the pruner paused go on, are put aside at the end, and are taken up again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.record import Reason, Why
from optnas.storage.base import HELD, is_held
from optnas.storage.open import claim, storage_of
from optnas.strategy.halving import PromotingPruner
from optnas.surrogate.standing import observe, standings

KEPT = 10
"""So many trials that are paused at the end of a budget keep their state, to go on with more budget."""


def promotes(study: optuna.Study) -> bool:
    """Whether the study's pruner lets go on what it stopped."""
    return isinstance(study.pruner, PromotingPruner)


def take_paused(study: optuna.Study, *, last: bool) -> int | None:
    """The id of a paused trial that goes on now, in this process; None where there is none.

    `last`: no new trial may begin any more.
    """
    pruner = study.pruner
    while isinstance(pruner, PromotingPruner) and (trial := pruner.promote(study, last=last)) is not None:
        trial_id = private.trial_id(trial)
        if claim(study, None, record.COUNTS.name, wanted=trial_id).trial_id is not None:
            record.LET_GO_ON.write(study, trial, len(trial.intermediate_values))
            if Reason.of(trial) is not None:  # of an end that is none any more
                storage_of(study).set_trial_user_attr(trial_id, record.REASON.name, {})
            return trial_id
        # Another process was faster; ask again, of what there is now.
    return None


def end_paused(study: optuna.Study) -> Iterator[FrozenTrial]:
    """The search is over: end PRUNED what is paused, unless other processes go on with it.

    The most promising keep the state from which they could go on, if more budget is given (`reopen_paused`).
    """
    trials = study.get_trials(deepcopy=False)
    paused = [trial for trial in trials if trial.state == TrialState.WAITING and is_held(trial)]
    if not paused or any(trial.state == TrialState.RUNNING for trial in trials):
        return
    storage, promising = storage_of(study), _most_promising(study, trials)
    for trial in paused:
        trial_id = private.trial_id(trial)
        if claim(study, None, record.COUNTS.name, wanted=trial_id).trial_id is None:
            continue
        step, value = max(trial.intermediate_values.items(), default=(0, float("nan")))
        words = f"paused at step {step} with {value:.6g}; the budget ended before it was let go on"
        storage.set_trial_user_attr(trial_id, record.REASON.name, Reason(Why.PAUSED, words).as_attr())
        storage.set_trial_system_attr(trial_id, HELD, trial.number in promising)
        values = [value] if trial.intermediate_values else None  # as Optuna records of a pruned trial
        storage.set_trial_state_values(trial_id, TrialState.PRUNED, values)
        yield storage.get_trial(trial_id)


def reopen_paused(study: optuna.Study, n_trials: int | None) -> None:
    """There is budget again: what was paused when it ended waits for its turn."""
    trials = study.get_trials(deepcopy=False)
    if not promotes(study) or (n_trials is not None and record.n_counted(trials) >= n_trials):
        return
    storage = storage_of(study)
    for trial in trials:
        if trial.state == TrialState.PRUNED and is_held(trial):
            storage.reopen(private.trial_id(trial))


def _most_promising(study: optuna.Study, trials: list[FrozenTrial]) -> set[int]:
    sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
    observed = observe(trials, sign)
    order = [observed[i].trial for i in np.argsort(standings(observed), kind="stable")]
    return {trial.number for trial in [t for t in order if is_held(t)][:KEPT]}
