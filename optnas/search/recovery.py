"""Trials that were cut off: put back into the queue at once, or given up when they kill whoever runs them."""

from __future__ import annotations

import logging
import time
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState

from optnas.search.signals import signals_wait
from optnas.storage.base import Storage
from optnas.storage.leases import Loss, Process, StaleTrial
from optnas.storage.open import storage_of

logger = logging.getLogger(__name__)

MAX_KILLS = 3
"""How many processes a trial may lose at the same point, without a report in between, before it is FAIL."""


def requeue(study: optuna.Study, trial_id: int) -> bool:
    """Put an own running trial, which was interrupted, back into the queue, in place.

    Number, parameters and reports stay. Where a shared storage does not answer now, this process does it as
    soon as it does. A trial that has ended, or that another process has taken over, stays as it is: False.
    """
    storage = study._storage
    try:
        attempts = storage.get_trial_user_attrs(trial_id).get("attempts", [])
        attempts = _ended(attempts, Process.this(), how="interrupted")
        storage.set_trial_user_attr(trial_id, "attempts", attempts)
        storage.set_trial_state_values(trial_id, TrialState.WAITING)
        number = storage.get_trial_number_from_id(trial_id)
    except (UpdateFinishedTrialError, KeyError):
        return False
    except StorageInternalError:
        return True
    logger.warning(
        "Interrupted in trial %d, which is queued again. To go on, run the same search again; "
        "finished trials are kept.",
        number,
    )
    return True


def recover(study: optuna.Study) -> None:
    """Queue again every trial whose process died or whose lease ended, or that this process gave up.

    A trial that has cost `MAX_KILLS` processes at the same point becomes FAIL instead, with the reason. One
    that reports more between its losses gets further, however often its machines are taken away.
    """
    storage = storage_of(study)
    storage.requeue_abandoned()
    for trial in storage.stale_trials(study._study_id):
        with signals_wait():  # between the two steps nobody else would look after it
            _recover(storage, trial)


def _recover(storage: Storage, stale: StaleTrial) -> None:
    try:
        if not storage.take_over(stale):
            return  # another worker was faster
        trial = storage.get_trial(stale.trial_id)
        how = "killed" if stale.loss is Loss.DEAD else "lost"
        point = len(trial.intermediate_values)
        attempts = _ended(trial.user_attrs.get("attempts", []), stale.process, how=how, reports=point)
        storage.set_trial_user_attr(stale.trial_id, "attempts", attempts)
        n_lost = sum(attempt.get("reports") == point for attempt in attempts)
        if n_lost < MAX_KILLS:
            logger.warning("Trial %d is queued again: %s.", stale.number, stale.loss.value)
            storage.set_trial_state_values(stale.trial_id, TrialState.WAITING)
            return
        reason = (
            f"gave up: {n_lost} processes that ran this trial died at the same point (killed, crashed, or "
            "out of memory)"
        )
        storage.set_trial_user_attr(stale.trial_id, "reason", reason)
        storage.set_trial_state_values(stale.trial_id, TrialState.FAIL)
        logger.warning("Trial %d %s.", stale.number, reason)
    except UpdateFinishedTrialError:
        return


def _ended(attempts: list[dict[str, Any]], process: Process | None, **end: Any) -> list[dict[str, Any]]:
    """The attempts with the end of the last one, by `process`."""
    end = {"ended": time.time(), **end}
    if attempts and "ended" not in attempts[-1]:
        return [*attempts[:-1], {**attempts[-1], **end}]
    if process is None:
        return attempts
    # It ended before its beginning was stored.
    return [*attempts, {"host": process.host, "pid": process.pid, "started": end["ended"], **end}]
