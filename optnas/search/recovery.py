"""Trials that were cut off: put back into the queue at once, or given up when they kill whoever runs them."""

from __future__ import annotations

import logging
import time
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from optnas.search.storage import Loss, SharedStorage, StaleTrial

logger = logging.getLogger(__name__)

MAX_KILLS = 3
"""How often a trial may be found with its process dead before it ends as FAIL."""


def requeue(study: optuna.Study, trial: optuna.Trial, how: str) -> None:
    """Put an own running trial back into the queue, in place: number, parameters and reports stay."""
    attempts = _ended(trial.user_attrs.get("attempts", []), how)
    trial.set_user_attr("attempts", attempts)
    study._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)


def recover(study: optuna.Study, *, unowned: bool = False) -> int:
    """Queue again every trial whose process died or whose lease ended. Returns their number.

    A trial that was found with a dead process `MAX_KILLS` times becomes FAIL instead, with the reason.

    Args:
        unowned: also those trials that are RUNNING though nobody ever leased them, as plain Optuna leaves
            them behind when it is killed. Do not ask for it while plain Optuna runs trials of the study.
    """
    storage = study._storage
    if not isinstance(storage, SharedStorage):
        return 0  # a storage without owners: nothing is known about who runs what
    stale = [t for t in storage.stale_trials(study._study_id) if unowned or t.loss is not Loss.UNOWNED]
    return sum(_recover(storage, trial) for trial in stale)


def _recover(storage: SharedStorage, stale: StaleTrial) -> bool:
    try:
        if not storage.take_over(stale):
            return False  # another worker was faster
        how = "killed" if stale.loss is Loss.DEAD else "lost"
        attempts = _ended(storage.get_trial_user_attrs(stale.trial_id).get("attempts", []), how)
        storage.set_trial_user_attr(stale.trial_id, "attempts", attempts)
        kills = sum(attempt.get("how") == "killed" for attempt in attempts)
        if kills < MAX_KILLS:
            logger.warning("Trial %d is queued again: %s.", stale.number, stale.loss.value)
            storage.set_trial_state_values(stale.trial_id, TrialState.WAITING)
            return True
        reason = f"gave up: {kills} processes that ran this trial died (killed, crashed, or out of memory)"
        storage.set_trial_user_attr(stale.trial_id, "reason", reason)
        storage.set_trial_state_values(stale.trial_id, TrialState.FAIL)
        logger.warning("Trial %d %s.", stale.number, reason)
    except UpdateFinishedTrialError:
        return False
    return True


def _ended(attempts: list[dict[str, Any]], how: str) -> list[dict[str, Any]]:
    """The attempts with how and when the last one ended."""
    *before, last = attempts or [{}]
    return [*before, {**last, "ended": time.time(), "how": how}]
