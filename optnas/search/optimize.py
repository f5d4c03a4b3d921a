"""The loop over trials: a budget of the whole study, interruptions that lose nothing, plain failures."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from optnas.objective import Objective, error_kind
from optnas.search.progress import Progress
from optnas.search.study import check_fits, counts

logger = logging.getLogger(__name__)

# Trials in a row that cost no estimate (repeats, infeasible ones) before a search is called exhausted.
MAX_IDLE_TRIALS = 100


class SearchFailedError(RuntimeError):
    """The trials fail again and again for the same reason; the message has it, the cause its traceback."""


def optimize(
    study: optuna.Study,
    objective: Objective,
    n_trials: int | None = None,
    *,
    timeout: float | None = None,
    show_progress: bool | None = None,
) -> None:
    """Run trials until the whole study has `n_trials` that count, or `timeout` seconds have passed.

    A trial counts if its estimate ran and it ended COMPLETE or PRUNED; repeats (`twin_of`), infeasible and
    failed trials do not. So calling it again after an interruption finishes the rest, and calling it when all
    is done does nothing. Ctrl-C and SIGTERM put the running trial back into the queue.

    Args:
        n_trials: of the whole study, over all calls and processes; None: no limit.
        timeout: seconds after which no new trial begins; None: no limit.
        show_progress: by default only where somebody watches (a terminal or a notebook).

    Raises:
        SearchFailedError: the first five trials, or eight of the last ten, failed for the same reason.
        ParamsMismatchError: stored trials do not fit the space.
    """
    check_fits(study, objective)
    deadline = None if timeout is None else time.monotonic() + timeout
    failures: deque[str] = deque(maxlen=10)
    idle = n_finished = 0
    with Progress(study, n_trials, show_progress) as progress, _signals_raise():
        while deadline is None or time.monotonic() < deadline:
            with _signals_wait():
                trial = _next_trial(study, n_trials)
            if trial is None:
                break
            error = run_trial(study, objective, trial)
            finished = study._storage.get_trial(trial._trial_id)
            progress.show(finished)

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
                break


def run_trial(study: optuna.Study, objective: Objective, trial: optuna.Trial) -> Exception | None:
    """Run one trial and tell the study; returns the error of a trial that failed.

    An interruption (Ctrl-C, SIGTERM, `sys.exit`) queues the trial again, under the same number, and goes on.
    """
    try:
        value = objective(trial)
    except optuna.TrialPruned:
        _tell(study, trial, state=TrialState.PRUNED)
    except Exception as error:
        _tell(study, trial, state=TrialState.FAIL)
        return error
    except BaseException:
        with _signals_wait():
            requeue(study, trial)
        logger.warning(
            "Interrupted in trial %d, which is queued again. To go on, run the same search again; "
            "finished trials are kept.",
            trial.number,
        )
        raise
    else:
        _tell(study, trial, values=value)
    return None


def requeue(study: optuna.Study, trial: optuna.Trial) -> None:
    """Put a running trial back into the queue: number, parameters, reports and attributes stay."""
    attempts = trial.user_attrs.get("attempts", [])
    if attempts:
        trial.set_user_attr("attempts", [*attempts[:-1], {**attempts[-1], "ended": time.time()}])
    study._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)


def _tell(study: optuna.Study, trial: optuna.Trial, **outcome: Any) -> None:
    with _signals_wait():
        study.tell(trial, **outcome)


def _next_trial(study: optuna.Study, n_trials: int | None) -> optuna.Trial | None:
    if n_trials is not None:
        trials = study.get_trials(deepcopy=False)
        if sum(map(counts, trials)) >= n_trials:
            return None
    return study.ask()


def _stop_if_failing(kinds: deque[str], n_finished: int, trial: FrozenTrial, error: Exception | None) -> None:
    kind, repeats = Counter(kinds).most_common(1)[0]
    if kind and (repeats >= 8 or (repeats == n_finished and n_finished >= 5)):
        raise SearchFailedError(
            f"The search stops: {repeats} of its last {len(kinds)} trials failed for the same reason. "
            f"{trial.user_attrs['reason']} Nothing stored is lost; mend it and run the same search again."
        ) from error


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Turn SIGTERM, which schedulers send before they take a machine away, into an exception."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with _handlers({signal.SIGTERM: terminate}):
        yield


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Hold interruptions back while a trial changes its state, then let them through."""
    held: list[int] = []
    with _handlers(dict.fromkeys((signal.SIGINT, signal.SIGTERM), lambda number, frame: held.append(number))):
        yield
    for number in held:
        signal.raise_signal(number)


@contextmanager
def _handlers(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set them
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
