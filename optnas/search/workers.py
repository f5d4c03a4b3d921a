"""Several processes that share one study, and the process that watches over them."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import cloudpickle
import optuna
from optuna.exceptions import OptunaError, StorageInternalError
from optuna.trial import TrialState

from optnas import private, record
from optnas.errors import OptnasError, SearchFailedError, describe_error, is_infrastructure, is_users_code
from optnas.launch.launcher import Launcher
from optnas.launch.process import Farewell, Job
from optnas.objective import Objective
from optnas.progress.progress import Progress, Show
from optnas.record import Reason, Why
from optnas.search.loop import Callback, Failures, work
from optnas.search.recovery import MAX_KILLS, recover
from optnas.search.rehearsal import rehearse
from optnas.search.signals import signals_raise
from optnas.storage.open import open_storage, storage_of

logger = logging.getLogger(__name__)

GRACE = 30.0
"""Seconds that workers get to save their state when the search is interrupted."""

_LONGEST_PAUSE = 30.0  # seconds before a worker is replaced, if one after the other dies


@dataclass(frozen=True)
class Search:
    """What the processes of a search have in common; see `optimize`.

    `deadline`: by `time.monotonic()`; `n_reports`: by all trials of the study together.
    """

    n_trials: int | None
    deadline: float | None = None
    callbacks: tuple[Callback, ...] = ()
    trial_timeout: float | None = None
    n_reports: int | None = None


def run_workers(
    study: optuna.Study,
    objective: Objective,
    search: Search,
    launcher: Launcher,
    show_progress: Show,
) -> None:
    """Let workers run until the budget is spent, replacing those that die. See `optimize`.

    Raises:
        ValueError: workers cannot share the study's storage, or the objective cannot be pickled.
        SearchFailedError: the trials fail for one reason, the storage or disk of a worker fails, a callback
            raises, or workers die as soon as they start.
    """
    launcher.prepare(storage_of(study))
    shown = {t.number for t in study.get_trials(deepcopy=False) if t.state.is_finished()}
    n_reports, failures = 0, Failures()
    with (
        signals_raise(),
        make_job(study, objective, search) as job,
        Progress(study, search.n_trials, show_progress) as progress,
    ):
        rehearse(study, objective)
        team = _Team(launcher, job)
        try:
            team.start()
            while True:
                team.poll()  # before looking at trials, so that everything is seen that ended workers did
                for given_up in recover(study):
                    objective.estimator.finish(study, given_up)
                trials = study.get_trials(deepcopy=False)
                for trial in trials:
                    if trial.state.is_finished() and trial.number not in shown:
                        shown.add(trial.number)
                        team.progressed()
                        progress.show(trial)
                        failures.add(trial)
                before, n_reports = n_reports, record.n_reported(trials)
                if n_reports > before:
                    team.progressed()
                spent = search.n_trials is not None and record.n_counted(trials) >= search.n_trials
                late = search.deadline is not None and time.monotonic() >= search.deadline
                if not team.goes_on(over=spent or late):
                    break
                time.sleep(0.25)
        finally:
            team.stop()
            with suppress(StorageInternalError):  # it would hide why the search ends
                recover(study)
    if team.deaths:
        died = ", ".join(f"{n} by {how}" for how, n in team.deaths.items())
        states = Counter(t.state for t in study.get_trials(deepcopy=False))
        logger.warning(
            "%s died (%s); their trials went on elsewhere, %d ended as FAIL.",
            "1 worker" if team.deaths.total() == 1 else f"{team.deaths.total()} workers",
            died,
            states[TrialState.FAIL],
        )


@contextmanager
def make_job(study: optuna.Study, objective: Objective, search: Search) -> Iterator[Job]:
    """All that a worker needs to know, while the context lasts.

    Objectives may hold much data, so they are written once, into a file without a name, which every worker
    reads. The storage's password is not in it.

    Raises:
        ValueError: the objective, the sampler, the pruner or a callback cannot be pickled.
    """
    storage = storage_of(study)  # passed as arguments, since a pickled storage has no password
    with tempfile.TemporaryFile() as body:
        try:
            # The deadline is a time of this machine's clock, so others get the seconds that are left.
            anywhere = replace(search, deadline=None)
            cloudpickle.dump((study.study_name, study.sampler, study.pruner, objective, anywhere), body)
        except (TypeError, AttributeError, ValueError, ImportError) as error:
            raise ValueError(
                f"The objective, the sampler, the pruner or a callback cannot be handed to workers: {error}. "
                "Create what holds a lock, a file or a connection where it is used, such as in a "
                "function of the trial."
            ) from error
        body.flush()
        yield Job(cloudpickle.dumps(storage.arguments()), body, search.deadline)


class _Team:
    """The workers of a search: which ones run, which are replaced, and when replacing them is useless."""

    def __init__(self, launcher: Launcher, job: Job) -> None:
        self._launcher, self._job, self._size = launcher, job, launcher.n_workers
        self._ended: dict[int, Farewell] = {}
        self._replace_at: dict[int, float] = {}
        self._in_a_row = 0
        self._halted = False
        self.deaths: Counter[str] = Counter()

    def start(self) -> None:
        for place in range(self._size):
            self._launcher.start(place, self._job)

    def poll(self) -> None:
        """Find the workers that have ended since the last call."""
        for place in range(self._size):
            if place not in self._ended and (farewell := self._launcher.poll(place)) is not None:
                self._ended[place] = farewell

    def goes_on(self, over: bool) -> bool:
        """Whether a worker still runs or is to be replaced; once the search is `over`, none is replaced.

        Raises:
            SearchFailedError: a worker reports that, or one worker after the other dies.
        """
        over = over or any(farewell.way == "stopped" for farewell in self._ended.values())
        if over and not self._halted:
            self._halted = True
            self._launcher.halt()
        for place, farewell in self._ended.items():
            if farewell.way == "failed" and not over:
                raise SearchFailedError(farewell.words)
            if farewell.way in ("failed", "died", "overdue") and place not in self._replace_at:
                self._replace_at[place] = time.monotonic() + self._mourn(place, farewell, over)
        if not over:
            self._replace()
        waiting = {} if over else self._replace_at
        return len(self._ended) < self._size or bool(waiting)

    def _replace(self) -> None:
        due = [place for place, when in self._replace_at.items() if when <= time.monotonic()]
        for place in due:
            del self._replace_at[place], self._ended[place]
            self._launcher.start(place, self._job)

    def _mourn(self, place: int, farewell: Farewell, over: bool) -> float:
        """Note a death, and return the seconds to wait before the worker is replaced."""
        if farewell.way == "overdue":  # it ended itself on purpose
            return 0.0
        self.deaths[farewell.words if farewell.way == "died" else farewell.way] += 1
        self._in_a_row += 1
        if over:
            return 0.0
        # If trials killed the workers, one of them would have been given up by now.
        if self._in_a_row > MAX_KILLS * self._size:
            raise SearchFailedError(
                f"{self._in_a_row} workers died one after the other ({farewell.words}) and no trial got any "
                f"further. The last one wrote:\n{farewell.output or 'nothing'}"
            )
        rounds = (self._in_a_row - 1) // self._size  # the first of each is replaced at once
        pause = min(_LONGEST_PAUSE, 2.0 ** (rounds - 1)) if rounds else 0.0
        last = farewell.output.rpartition("\n")[2]
        logger.warning(
            "Worker %d died (%s) and is replaced%s%s",
            place,
            farewell.words,
            f" in {pause:g} s." if pause else ".",
            f" It wrote last: {last}" if last else "",
        )
        return pause

    def progressed(self) -> None:
        """Note that a trial finished or reported, so that replacing workers is useful."""
        self._in_a_row = 0

    def stop(self) -> None:
        self._launcher.stop(GRACE)


def serve(
    secret: bytes,
    body: Any,
    deadline: float | None,
    halt: threading.Event,
    leave_now: Callable[[Farewell], None],
) -> Farewell:
    """The work of a worker on any machine: take part in the search until nothing is left for it to do.

    Args:
        secret: the secret of the job.
        body: the bytes of the job's body, or a buffer of them, such as a memory map.
        deadline: of the job, by `time.monotonic()` of this machine.
        halt: once it is set, no new trial begins.
        leave_now: ends this process at once, with the given farewell; called from another thread.
    """
    name, sampler, pruner, objective, search = cloudpickle.loads(body)
    sampler.reseed_rng()  # a sampler with a generator of its own shall draw differently in each worker
    limit = search.trial_timeout

    def watch(study: optuna.Study, trial_id: int) -> Any:
        return nullcontext() if limit is None else _limited(study, trial_id, limit, leave_now)

    try:
        storage = open_storage(**cloudpickle.loads(secret))
        study = optuna.load_study(study_name=name, storage=storage, sampler=sampler, pruner=pruner)
        for _ in work(
            study,
            objective,
            search.n_trials,
            deadline,
            search.callbacks,
            n_reports=search.n_reports,
            halt=halt,
            watch=watch,
        ):
            pass
    except Exception as error:
        if not isinstance(error, OptnasError | OptunaError) and not is_infrastructure(error):
            traceback.print_exc()
            return Farewell("failed", f"The search stops: {describe_error(error)}")
        return Farewell("failed", str(error))
    return Farewell("stopped" if private.is_stopped(study) else "done")


@contextmanager
def _limited(
    study: optuna.Study, trial_id: int, seconds: float, leave_now: Callable[[Farewell], None]
) -> Iterator[None]:
    """If the context lasts longer than that, set the trial to FAIL and end this process.

    If no thread can run (a C library holds the interpreter), the process is killed a little later, and the
    trial counts as lost.
    """
    here, lock = threading.get_ident(), threading.Lock()

    def end() -> None:
        with lock:
            if over.is_set():
                return
            words = f"ran longer than trial_timeout={seconds:g} s{_place(here)}"
            reason = asdict(Reason(Why.TIME, words, cause="trial_timeout"))
            try:
                private.storage(study).set_trial_user_attr(trial_id, record.REASON.name, reason)
                private.storage(study).set_trial_state_values(trial_id, TrialState.FAIL)
            except Exception as error:  # finished, taken over, or no storage: the trial counts as lost
                print(f"An overdue trial could not be ended: {error}", file=sys.stderr)
            else:
                number = private.storage(study).get_trial_number_from_id(trial_id)
                print(f"Trial {number} {words}.", file=sys.stderr)
            leave_now(Farewell("overdue"))

    over = threading.Event()
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(seconds + max(10.0, seconds / 10), exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        timer.cancel()
        with lock:
            over.set()


def _place(thread: int) -> str:
    """Where a thread is, in the user's code."""
    frames = traceback.extract_stack(sys._current_frames().get(thread))
    # "<string>" is the line that started this process.
    own = [frame for frame in frames if is_users_code(frame.filename) and frame.filename != "<string>"]
    return (
        f"; it was at {os.path.basename(own[-1].filename)}:{own[-1].lineno} in {own[-1].name}" if own else ""
    )
