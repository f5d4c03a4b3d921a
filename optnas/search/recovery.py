"""Interrupted trials: put them back into the queue, or give them up if they kill whoever runs them."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import asdict
from enum import Enum
from typing import Any, Literal

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.errors import describe_error
from optnas.record import Reason, Why
from optnas.search.signals import signals_wait
from optnas.storage.base import HELD, Storage
from optnas.storage.leases import Loss, Process, StaleTrial
from optnas.storage.open import storage_of

logger = logging.getLogger(__name__)

MAX_KILLS = 3
"""How many attempts a trial may lose at the same point, without a report in between, before it is FAIL."""


class Fate(Enum):
    """What became of a trial whose attempt ended without a result."""

    QUEUED = "it waits for its next attempt"
    GIVEN_UP = "it is FAIL"
    GONE = "it has ended, or another process has taken it over"


def requeue(
    study: optuna.Study,
    trial_id: int,
    how: Literal["interrupted", "paused"] = "interrupted",
    held: bool = False,
) -> Fate:
    """Put a running trial of this process back into the queue, in place; that counts as no loss.

    Number, parameters and reports stay. If a shared storage does not answer now, this process repeats it as
    soon as the storage does. If `held`, the trial goes on when the pruner says so.
    """
    storage = private.storage(study)
    try:
        if held:
            storage.set_trial_system_attr(trial_id, HELD, True)
        attempts = record.ATTEMPTS.within(storage.get_trial_user_attrs(trial_id)) or []
        attempts = _ended(attempts, Process.this(), how=how)
        storage.set_trial_user_attr(trial_id, record.ATTEMPTS.name, attempts)
        storage.set_trial_state_values(trial_id, TrialState.WAITING)
        number = storage.get_trial_number_from_id(trial_id)
    except (UpdateFinishedTrialError, KeyError):
        return Fate.GONE
    except StorageInternalError:
        return Fate.QUEUED
    if how == "interrupted":
        logger.warning(
            "Interrupted in trial %d, which is queued again. To go on, run the same search again; "
            "finished trials are kept.",
            number,
        )
    return Fate.QUEUED


def requeue_or_give_up(study: optuna.Study, trial_id: int, error: BaseException) -> Fate:
    """Put a running trial of this process back into the queue after `error`; that counts as a loss.

    The error (a full disk, a storage that fails, `sys.exit` in the user's code) may pass by itself, or the
    trial may cause it: as with trials that kill their process, `MAX_KILLS` losses at the same point end it.
    """
    storage = private.storage(study)
    try:
        trial = storage.get_trial(trial_id)
        point, known = record.n_reports(trial), record.ATTEMPTS.of(trial) or []
        attempts = _ended(known, Process.this(), how="raised", reports=point)
        told, n_lost = describe_error(error), _n_lost(attempts, point)
        storage.set_trial_user_attr(trial_id, record.ATTEMPTS.name, attempts)
        if n_lost >= MAX_KILLS:
            storage.get_trial(trial_id)  # stores the attempts; if the storage fails, it fails here
            words = f"gave up: {n_lost} attempts at this trial ended at the same point, the last by {told}"
            _give_up(storage, trial, words)
            return Fate.GIVEN_UP
        storage.set_trial_state_values(trial_id, TrialState.WAITING)
    except (UpdateFinishedTrialError, KeyError):
        return Fate.GONE
    except StorageInternalError:  # the storage fails, not the trial
        return _without_storage(storage, trial_id)
    logger.warning(
        "Trial %d is queued again; an attempt at it ended by %s. After %d such ends at one point it fails.",
        trial.number,
        told,
        MAX_KILLS,
    )
    return Fate.QUEUED


def _without_storage(storage: optuna.storages.BaseStorage, trial_id: int) -> Fate:
    """Leave a trial to the storage, which queues it once it answers; that counts as no loss."""
    with suppress(StorageInternalError, UpdateFinishedTrialError, KeyError):
        attempts = record.ATTEMPTS.within(storage.get_trial_user_attrs(trial_id)) or []
        if attempts and attempts[-1].get("how") == "raised":
            kept = {key: value for key, value in attempts[-1].items() if key != "reports"}
            attempts = [*attempts[:-1], {**kept, "how": "interrupted"}]
        storage.set_trial_user_attr(trial_id, record.ATTEMPTS.name, attempts)
        storage.set_trial_state_values(trial_id, TrialState.WAITING)
    return Fate.QUEUED


def recover(study: optuna.Study) -> list[FrozenTrial]:
    """Queue again every trial whose process died or whose lease ended, or that this process gave up.

    A trial that has lost `MAX_KILLS` attempts at the same point becomes FAIL instead, with the reason. A
    trial that makes a report between its losses goes on, however often its machines are taken away.

    Returns:
        The trials that became FAIL.
    """
    storage = storage_of(study)
    storage.requeue_abandoned()
    given_up = []
    for trial in storage.stale_trials(private.study_id(study)):
        with signals_wait():  # a trial that is lost between the two steps would stay RUNNING
            if _recover(storage, trial) is Fate.GIVEN_UP:
                given_up.append(storage.get_trial(trial.trial_id))
    return given_up


def _recover(storage: Storage, stale: StaleTrial) -> Fate:
    try:
        if not storage.take_over(stale):
            return Fate.GONE  # another worker was faster
        trial = storage.get_trial(stale.trial_id)
        how = "killed" if stale.loss is Loss.DEAD else "lost"
        point = record.n_reports(trial)
        attempts = _ended(record.ATTEMPTS.of(trial) or [], stale.process, how=how, reports=point)
        n_lost = _n_lost(attempts, point)
        storage.set_trial_user_attr(stale.trial_id, record.ATTEMPTS.name, attempts)
        if n_lost >= MAX_KILLS:
            words = (
                f"gave up: {n_lost} processes that ran this trial died at the same point (killed, crashed, "
                "or out of memory)"
            )
            _give_up(storage, trial, words)
            return Fate.GIVEN_UP
        logger.warning("Trial %d is queued again: %s.", stale.number, stale.loss.value)
        storage.set_trial_state_values(stale.trial_id, TrialState.WAITING)
    except UpdateFinishedTrialError:
        return Fate.GONE
    return Fate.QUEUED


def _n_lost(attempts: list[dict[str, Any]], point: int) -> int:
    return sum(attempt.get("reports") == point for attempt in attempts)


def _give_up(storage: optuna.storages.BaseStorage, trial: FrozenTrial, words: str) -> None:
    reason = asdict(Reason(Why.GAVE_UP, words, cause="gave up"))
    storage.set_trial_user_attr(private.trial_id(trial), record.REASON.name, reason)
    storage.set_trial_state_values(private.trial_id(trial), TrialState.FAIL)
    logger.warning("Trial %d %s.", trial.number, words)


def _ended(attempts: list[dict[str, Any]], process: Process | None, **end: Any) -> list[dict[str, Any]]:
    """The attempts with the end of the last one, by `process`."""
    end = {"ended": time.time(), **end}
    if attempts and "ended" not in attempts[-1]:
        return [*attempts[:-1], {**attempts[-1], **end}]
    if process is None:
        return attempts
    # It ended before its beginning was stored.
    return [*attempts, {"host": process.host, "pid": process.pid, "started": end["ended"], **end}]
