"""The loop over trials: a budget of the whole study, interruptions that lose nothing, plain failures."""

from __future__ import annotations

import logging
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from optnas.errors import (
    CheckpointError,
    SearchFailedError,
    SpaceExhausted,
    error_kind,
    is_infrastructure,
)
from optnas.objective import Objective
from optnas.progress.progress import Progress, Show
from optnas.search.artifacts import attach_drawing
from optnas.search.recovery import recover, requeue
from optnas.search.signals import Passage, signals_raise, signals_wait
from optnas.search.study import check_fits, check_values, counts
from optnas.seeds import derive_seed
from optnas.storage.database import waits_in
from optnas.storage.open import claim, storage_of
from optnas.strategy.distinct import DistinctSampler

logger = logging.getLogger(__name__)

# Trials in a row that cost no estimate (repeats, infeasible ones) before a search is called exhausted.
MAX_IDLE_TRIALS = 100

# Seconds of waiting for other trials after which a search says so, if it may be for ever.
SILENCE = 5.0


def optimize(
    study: optuna.Study,
    objective: Objective,
    n_trials: int | None = None,
    *,
    timeout: float | None = None,
    n_workers: int = 1,
    show_progress: Show = None,
) -> None:
    """Run trials until the whole study has `n_trials` that count, or `timeout` seconds have passed.

    A trial counts if its estimate ran and it ended COMPLETE or PRUNED; repeats (`twin_of`), infeasible and
    failed trials do not. So calling it again after an interruption finishes the rest, and calling it when all
    is done does nothing. Ctrl-C, SIGTERM, the end of the terminal (SIGHUP) and a storage or disk that fails
    put the running trial back into the queue; a trial whose process was killed is found and goes on from its
    last finished epoch.

    Args:
        n_trials: of the whole study, over all calls, processes and machines; None: no limit.
        timeout: seconds after which no new trial begins; None: no limit.
        n_workers: processes on this machine; more than one needs a storage that processes can share. When
            the search is interrupted, they get 30 seconds to save their state.
        show_progress: by default only where somebody watches (a terminal or a notebook). True writes a line
            per finished trial elsewhere, such as to a log file; "json" a line per event, for other programs
            (`optnas.progress.json_lines.JsonLines`).

    Raises:
        SearchFailedError: the first five trials, or eight of the last ten, failed for the same reason.
        ParamsMismatchError: stored trials do not fit the space, or the study optimizes something else.
        StorageUnavailableError: the storage cannot be read or written for longer than its patience.
        CheckpointError: the state of a training cannot be written; a full disk, for example.
        ValueError: several workers, but a storage that they cannot share; or fewer than one.
    """
    if n_workers < 1:
        raise ValueError(f"n_workers={n_workers} must be at least 1.")
    check_values(study, objective)
    check_fits(study, objective)
    storage = storage_of(study)
    if storage.lacks:
        warnings.warn(storage.lacks, stacklevel=2)
    recover(study)
    tidy: Callable[[optuna.Study], None] = getattr(objective.estimator, "tidy", lambda study: None)
    tidy(study)
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        if n_workers > 1:
            from optnas.search.workers import run_workers

            run_workers(study, objective, n_trials, deadline, n_workers, show_progress)
        else:
            with Progress(study, n_trials, show_progress) as progress:
                for trial in work(study, objective, n_trials, deadline):
                    progress.show(trial)
    finally:
        storage.fold_log()
    tidy(study)


def work(
    study: optuna.Study, objective: Objective, n_trials: int | None, deadline: float | None
) -> Iterator[FrozenTrial]:
    """Run trials in this process, one after the other, and yield each when it has finished.

    Joins whatever other processes work on the study. `deadline` is a time as of `time.monotonic()`, which
    all processes of a machine share and nobody sets.
    """
    failures: deque[str] = deque(maxlen=10)
    n_finished = idle = 0
    with signals_raise(), _without_repeats(study, objective):
        while True:
            # An interruption after a trial was taken, and before it is looked after, would leave it RUNNING.
            with signals_wait() as passage, waits_in(passage):
                trial_id = _next_trial(study, n_trials, deadline, passage)
                if trial_id is None:
                    return
                error = run_trial(study, objective, trial_id, passage)
            finished = study._storage.get_trial(trial_id)
            if not finished.state.is_finished():
                continue  # it was taken over by another process
            yield finished

            # Raised by the sampler when the space asks, so to the objective it is an error of the space.
            if error is not None and isinstance(error.__cause__ or error, SpaceExhausted):
                logger.warning("The search ends: %s", error.__cause__ or error)
                return
            n_finished += 1
            failures.append(error_kind(finished.user_attrs["reason"]) if error is not None else "")
            _stop_if_failing(failures, n_finished, finished, error)
            idle = 0 if counts(finished) or error is not None else idle + 1
            if idle == MAX_IDLE_TRIALS:
                logger.warning(
                    "The search ends: its last %d trials repeated known architectures or were infeasible. "
                    "The space may be exhausted; Objective(..., reuse_twins=False) trains repeats.",
                    MAX_IDLE_TRIALS,
                )
                return


def run_trial(study: optuna.Study, objective: Objective, trial_id: int, passage: Passage) -> Exception | None:
    """Run one trial and tell the study; returns the error of a trial that failed.

    Signals are held back, with a `passage` while the sampler and the objective are at work.

    What is no fault of the trial (Ctrl-C, SIGTERM, `sys.exit`, a storage or a disk that fails) queues it
    again, under the same number, and goes on upward. A trial that was taken over by another process is left
    to that one.
    """
    error: Exception | None = None
    try:
        with passage():
            trial = optuna.Trial(study, trial_id)
        try:
            with passage():
                outcome: dict[str, Any] = {"values": objective(trial)}
        except optuna.TrialPruned:
            outcome = {"state": TrialState.PRUNED}
        except Exception as failure:
            if is_infrastructure(failure):
                raise
            outcome, error = {"state": TrialState.FAIL}, failure
        attach_drawing(study, objective, trial)
        storage_of(study).flush(trial_id)  # which raises where `tell` would only read
        study.tell(trial, **outcome)
    except UpdateFinishedTrialError as lost:
        logger.warning("%s", lost)
        return None  # however it ended here
    except BaseException as interruption:
        ours = requeue(study, trial_id)
        if ours or not isinstance(interruption, CheckpointError):
            raise
        logger.warning("Trial %d was taken over by another process, with its files.", trial.number)
    return error


def _next_trial(
    study: optuna.Study, n_trials: int | None, deadline: float | None, passage: Passage
) -> int | None:
    """The id of the next trial to run; None when the budget is spent or the time is over.

    Where the rest of the budget is running elsewhere, wait: one of those may come back or not count.
    """
    wait, began = 0.05, time.monotonic()
    told = False
    while deadline is None or time.monotonic() < deadline:
        recover(study)
        taken = claim(study, n_trials, counts="optnas:counts")
        if taken.trial_id is not None:
            return taken.trial_id
        if n_trials is not None and taken.counted >= n_trials:
            return None
        with passage():
            time.sleep(wait)
        wait = min(2 * wait, 1.0)
        if not told and time.monotonic() - began > SILENCE:
            told = True
            _tell_of_own_trials(study)
    return None


def _tell_of_own_trials(study: optuna.Study) -> None:
    storage = storage_of(study)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    mine = [t.number for t in running if storage.owns(t._trial_id)]
    if mine:
        logger.warning(
            "The search waits for trial %s, which this very process runs. Where it was asked for with "
            "study.ask(), nobody else will end it: tell its result, "
            "or study.tell(%d, state=optuna.trial.TrialState.FAIL).",
            ", ".join(map(str, mine)),
            mine[0],
        )


def _stop_if_failing(kinds: deque[str], n_finished: int, trial: FrozenTrial, error: Exception | None) -> None:
    kind, repeats = Counter(kinds).most_common(1)[0]
    if kind and (repeats >= 8 or (repeats == n_finished and n_finished >= 5)):
        raise SearchFailedError(
            f"The search stops: {repeats} of its last {len(kinds)} trials failed for the same reason. "
            f"{trial.user_attrs['reason']}\nNothing stored is lost; mend it and run the same search again."
        ) from error


@contextmanager
def _without_repeats(study: optuna.Study, objective: Objective) -> Iterator[None]:
    """Let the study's sampler propose only what is not known yet."""
    sampler = study.sampler
    if objective.reuse_twins and not isinstance(sampler, DistinctSampler):
        seed = derive_seed(study.user_attrs.get("seed", study.study_name), "distinct")
        study.sampler = DistinctSampler(
            sampler,
            objective.ask,
            identity=objective.identity,
            recorded=objective.recorded_identity,
            seed=seed,
        )
    try:
        yield
    finally:
        study.sampler = sampler
