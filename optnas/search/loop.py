"""The loop over trials in one process: take a trial, run it, record its end, and decide whether to go on."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from functools import partial
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.answers import params_key
from optnas.errors import (
    CheckpointError,
    ChoicesError,
    SearchFailedError,
    SpaceExhausted,
    TrialPaused,
    describe_error,
    error_number,
    is_infrastructure,
)
from optnas.estimation.run import Run
from optnas.limits import nearest_in_words
from optnas.objective import Objective
from optnas.record import Reason, Why
from optnas.search.artifacts import attach_drawing
from optnas.search.feasible import LearnedMemory
from optnas.search.fits import never_asked
from optnas.search.foreseen import LearnedCosts
from optnas.search.recovery import Fate, recover, requeue, requeue_or_give_up
from optnas.search.signals import Passage, signals_raise, signals_wait
from optnas.search.study import limited
from optnas.search.turns import end_hopeless, end_paused, promotes, take_next, take_paused
from optnas.seeds import derive_seed
from optnas.storage.base import is_held
from optnas.storage.database import waits_in
from optnas.storage.open import storage_of
from optnas.strategy.distinct import DistinctSampler

logger = logging.getLogger(__name__)

# After so many trials in a row without an estimate (repeats, infeasible ones) a search counts as exhausted.
MAX_IDLE_TRIALS = 100

# Seconds of waiting for other trials after which a search says so, if the wait may never end.
SILENCE = 5.0

# Seconds to wait after a fault of the machine, twice as long after each further one.
AFTER_A_FAULT = 2.0

Callback = Callable[[optuna.Study, FrozenTrial], None]
"""As Optuna's: called after each trial, in the process that ran it."""

Watch = Callable[[optuna.Study, int], AbstractContextManager[None]]
"""Makes a context, of a study and the id of a trial, around the objective of that trial."""


def work(
    study: optuna.Study,
    objective: Objective,
    n_trials: int | None,
    deadline: float | None,
    callbacks: Sequence[Callback] = (),
    *,
    n_reports: int | None = None,
    halt: threading.Event | None = None,
    watch: Watch = lambda study, trial_id: nullcontext(),
) -> Iterator[FrozenTrial]:
    """Run trials in this process, one after the other, and yield each when it has finished.

    Other processes may work on the study at the same time. The loop ends after `study.stop()`. The last
    process to end sets the trials that the pruner has paused to PRUNED.

    Args:
        deadline: by `time.monotonic()`, a clock that all processes of a machine share and nobody sets.
        n_reports: once all trials of the study have made so many reports together, none begins or goes on.
        halt: once it is set, no new trial begins.
        watch: makes a context around the objective of each trial.
    """
    halt = threading.Event() if halt is None else halt
    with signals_raise():
        yield from _work(study, objective, n_trials, deadline, n_reports, callbacks, halt, watch)
        with signals_wait():
            yield from _told(study, objective, callbacks, end_paused(study))


def _told(
    study: optuna.Study,
    objective: Objective,
    callbacks: Sequence[Callback],
    ended: Iterator[FrozenTrial],
) -> Iterator[FrozenTrial]:
    """Call the callbacks for trials that ended while they were paused."""
    for trial in ended:
        if not is_held(trial):
            objective.estimator.finish(study, trial)
        for callback in callbacks:
            callback(study, deepcopy(trial))
        yield trial


def _work(
    study: optuna.Study,
    objective: Objective,
    n_trials: int | None,
    deadline: float | None,
    n_reports: int | None,
    callbacks: Sequence[Callback],
    halt: threading.Event,
    watch: Watch,
) -> Iterator[FrozenTrial]:
    failures, unfinished, unasked, idle = Failures(), _Unfinished(), _Unasked(), 0
    end: BaseException | None = None  # why nothing new can be tried
    with private.stoppable(study), _proposing(study, objective) as renew:
        while not (private.is_stopped(study) or halt.is_set()):
            renew()
            end = end or _known_end(study, n_trials)
            # An interruption right after a trial was taken would leave it RUNNING.
            with signals_wait() as passage, waits_in(passage):
                over = partial(_is_over, study, deadline, n_reports, halt)
                if end is None:
                    trial_id = _next_trial(study, objective, n_trials, over, passage)
                else:
                    trial_id = None if over() else take_paused(study, last=True)
                if trial_id is not None:
                    error = run_trial(study, objective, trial_id, passage, watch)
            if trial_id is None:
                if end is not None:
                    _end_exhausted(study, end)
                return
            finished = private.storage(study).get_trial(trial_id)
            if not finished.state.is_finished():
                unfinished.add(study, finished)
                with signals_wait():
                    yield from _told(study, objective, callbacks, end_hopeless(study))
                continue  # it waits for its next attempt, or another process has taken it over
            unfinished.passed()
            objective.estimator.finish(study, finished)
            for callback in callbacks:
                callback(study, deepcopy(finished))
            yield finished

            # The sampler raises it when the space asks, so the objective takes it for an error of the space.
            if error is not None and isinstance(error.__cause__ or error, SpaceExhausted):
                end = error.__cause__ or error
                continue
            if isinstance(error, ChoicesError):  # no trial of this study can get any further
                raise error
            unasked.tell(finished)
            _tell_refused(finished)
            failures.add(finished, error)
            idle = 0 if record.counts(finished) or error is not None else idle + 1
            if idle == MAX_IDLE_TRIALS:
                _end_idle(study, objective, finished)
                return


def run_trial(
    study: optuna.Study,
    objective: Objective,
    trial_id: int,
    passage: Passage,
    watch: Watch = lambda study, trial_id: nullcontext(),
) -> BaseException | None:
    """Run one trial and record its result; returns the error of a trial that failed.

    Signals are held back; a `passage` lets them through while the sampler and the objective work.

    If the trial is not to blame (Ctrl-C, SIGTERM, a storage or a disk that fails), or if user code would end
    the process (`sys.exit`), the trial is queued again under the same number and the exception is raised
    again; after `recovery.MAX_KILLS` times at the same point the trial fails instead. If another process has
    taken the trial over, it is left to that one.
    """
    error: BaseException | None = None
    try:
        with passage():
            trial = Run(study, trial_id, can_go_on=promotes(study))
        try:
            with passage(), _in_one_process(trial.number), watch(study, trial_id):
                outcome: dict[str, Any] = {"values": objective(trial)}
        except optuna.TrialPruned:
            outcome = {"state": TrialState.PRUNED}
        except UpdateFinishedTrialError as failure:
            # If it is about this trial, the next write raises it again; otherwise it is an error in code.
            Reason(Why.ERROR, describe_error(failure), cause=type(failure).__name__).write(trial)
            outcome, error = {"state": TrialState.FAIL}, failure
        except Exception as failure:
            if is_infrastructure(failure) or isinstance(failure, TrialPaused):
                raise
            outcome, error = {"state": TrialState.FAIL}, failure
        attach_drawing(study, objective, trial)
        storage_of(study).flush(trial_id)  # raises if the trial was taken over; `tell` would only read
        study.tell(trial, **outcome)
    except TrialPaused:
        requeue(study, trial_id, how="paused", held=trial.told_to_prune)
    except UpdateFinishedTrialError as lost:
        logger.warning("%s", lost)
        return None  # another process has it, so its end here does not matter
    except BaseException as interruption:
        if _is_from_outside(interruption):
            requeue(study, trial_id)
            raise
        fate = requeue_or_give_up(study, trial_id, interruption)
        if fate is Fate.GIVEN_UP:
            return interruption
        if fate is Fate.GONE and isinstance(interruption, CheckpointError):
            logger.warning("Trial %d was taken over by another process, with its files.", trial.number)
        elif _ends_search(interruption):
            raise
    return error


class Failures:
    """Remembers how the last trials ended, and stops a search that keeps failing for the same reason."""

    def __init__(self) -> None:
        self._causes: deque[str] = deque(maxlen=10)
        self._n_finished = 0

    def add(self, trial: FrozenTrial, error: BaseException | None = None) -> None:
        """Note that a trial has finished.

        Raises:
            SearchFailedError: the first five trials, or eight of the last ten, failed for the same reason.
        """
        reason = record.Reason.of(trial)
        failed = trial.state == TrialState.FAIL
        self._causes.append(("unknown" if reason is None else reason.cause or "unknown") if failed else "")
        self._n_finished += 1
        cause, repeats = Counter(self._causes).most_common(1)[0]
        if cause and (repeats >= 8 or (repeats == self._n_finished and self._n_finished >= 5)):
            raise SearchFailedError(
                f"The search stops: {repeats} of its last {len(self._causes)} trials failed for the same "
                f"reason. {record.why(trial)}\nNothing stored is lost; fix it and run the same search "
                "again."
            ) from error


class _Unasked:
    """Warns, once for each name, that an enqueued trial was given an answer for which nothing asked."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, trial: FrozenTrial) -> None:
        names = [name for name in never_asked(trial) if name not in self._told]
        if names:
            self._told.update(names)
            logger.warning(
                "Trial %d has answers that the space never asked for: %s. Names are whole paths, such as "
                "'block.0.op'; a conditional question is asked only after certain answers to others.",
                trial.number,
                ", ".join(map(repr, names)),
            )


class _Unfinished:
    """Slows down a loop that takes up the same unfinished trial again and again.

    After a fault of the machine it waits, because the fault may last. A paused trial goes on at once, unless
    it pauses again and again without getting further.
    """

    def __init__(self) -> None:
        self._last, self._repeats = (-1, -1), 0
        self._n_raised = 0

    def passed(self) -> None:
        """Note that a trial has finished."""
        self._n_raised = 0

    def add(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if (record.attempts(trial) or [{}])[-1].get("how") == "raised":
            self._n_raised += 1
            time.sleep(min(60.0, AFTER_A_FAULT * 2 ** (self._n_raised - 1)))
            return
        if is_held(trial):
            return
        point = (trial.number, record.n_reports(trial))
        self._repeats = self._repeats + 1 if point == self._last else 0
        self._last = point
        if self._repeats:
            time.sleep(min(1.0, 0.01 * 2**self._repeats))
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if self._repeats >= MAX_IDLE_TRIALS and not running:
            raise SearchFailedError(
                f"The search stops: trial {trial.number} paused {self._repeats} times without a report in "
                "between, and no other trial runs that it could wait for. An estimator that calls "
                "run.pause() must go on when its trial is taken again."
            )


def _next_trial(
    study: optuna.Study,
    objective: Objective,
    n_trials: int | None,
    over: Callable[[], bool],
    passage: Passage,
) -> int | None:
    """The id of the next trial to run; None when the budget or the time is spent, or the search shall end.

    Paused trials that the pruner lets go on come first. If other processes run the rest of the budget, this
    waits for them: one of their trials may come back, or may turn out not to count.
    """
    wait, began = 0.05, time.monotonic()
    told = False
    while not over():
        for given_up in recover(study):
            objective.estimator.finish(study, given_up)
        if (paused := take_paused(study, last=False)) is not None:
            return paused
        taken = take_next(study, n_trials)
        if taken.trial_id is not None:
            return taken.trial_id
        if taken.refused:
            pass  # the pruner has new trials wait for others
        elif taken.held and (paused := take_paused(study, last=True)) is not None:
            return paused
        if n_trials is not None and taken.counted + taken.held * (not taken.running) >= n_trials:
            return None
        with passage():
            time.sleep(wait)
        wait = min(2 * wait, 1.0)
        if not told and time.monotonic() - began > SILENCE:
            told = True
            _tell_of_own_trials(study)
    return None


def _is_over(
    study: optuna.Study, deadline: float | None, n_reports: int | None, halt: threading.Event
) -> bool:
    """Whether no trial may begin any more, nor go on after a pause."""
    if halt.is_set() or (deadline is not None and time.monotonic() >= deadline):
        return True
    return n_reports is not None and record.n_reported(study.get_trials(deepcopy=False)) >= n_reports


def _tell_of_own_trials(study: optuna.Study) -> None:
    storage = storage_of(study)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    mine = [t.number for t in running if storage.owns(private.trial_id(t))]
    if mine:
        logger.warning(
            "The search waits for trial %s, which this process itself runs. If it was created with "
            "study.ask(), nobody else will end it: tell its result, "
            "or study.tell(%d, state=optuna.trial.TrialState.FAIL).",
            ", ".join(map(str, mine)),
            mine[0],
        )


def _is_from_outside(interruption: BaseException) -> bool:
    """Whether a person or a scheduler ends this process, rather than the trial's own code."""
    if isinstance(interruption, SystemExit):  # what `signals_raise` and `Training` make of SIGTERM
        return interruption.code == 128 + 15
    return isinstance(interruption, KeyboardInterrupt)


def _ends_search(error: BaseException) -> bool:
    """Whether the next trial would fail in the same way.

    That is so if the storage, the disk or the sampler fails, or if the process shall end.
    """
    full = isinstance(error, OSError) and error_number(error) in (errno.ENOSPC, errno.EDQUOT)
    lasting = full or isinstance(error, StorageInternalError | CheckpointError)
    return lasting or not is_infrastructure(error)


def _tell_refused(trial: FrozenTrial) -> None:
    """Warn that an enqueued trial breaks a limit, since a person asked for that trial."""
    if "fixed_params" in trial.system_attrs and record.end(trial) is record.End.INFEASIBLE:
        logger.warning("Trial %d, which was enqueued, is infeasible: %s", trial.number, record.why(trial))


def _end_idle(study: optuna.Study, objective: Objective, last: FrozenTrial) -> None:
    """Say that so many trials in a row needed no estimate that the search is ended.

    Raises:
        SearchFailedError: no trial of the study was ever trained.
    """
    words = (
        f"its last {MAX_IDLE_TRIALS} trials repeated known architectures or were refused or infeasible"
        + (f" (the last: {why}). " if (why := record.why(last)) else ". ")
        + ("".join(f"No trial kept the limit {limit}. " for limit in _unmet(study, objective)))
        + "The space may be exhausted, or its limits too tight; Objective(..., reuse_twins=False) trains "
        "repeats."
    )
    if not any(map(record.counts, study.get_trials(deepcopy=False))):
        raise SearchFailedError(f"The search stops: {words}")
    logger.warning("The search ends: %s", words)


def _unmet(study: optuna.Study, objective: Objective) -> Iterator[str]:
    """The limits that no trial kept, with the value that came nearest."""
    measured = [record.facts(t) | record.metrics(t) for t in study.get_trials(deepcopy=False)]
    for limit in objective.limits:
        values = [numbers[limit.name] for numbers in measured if limit.name in numbers]
        if values and limit.violation(nearest := min(values, key=limit.violation)) > 0:
            yield f"{limit}{nearest_in_words(limit, nearest)}"


def _known_end(study: optuna.Study, n_trials: int | None) -> SpaceExhausted | None:
    """Why a next trial would find nothing new, if that is known before it runs."""
    sampler = study.sampler
    if not isinstance(sampler, DistinctSampler):
        return None
    spent = n_trials is not None and record.n_counted(study.get_trials(deepcopy=False)) >= n_trials
    return None if spent else sampler.exhausted(study)


def _end_exhausted(study: optuna.Study, end: BaseException) -> None:
    """Say that nothing is left to try.

    Raises:
        SearchFailedError: everything that could be tried has failed; the message has the reasons.
    """
    if not any(map(record.counts, study.get_trials(deepcopy=False))):
        raise SearchFailedError(f"The search stops: {end}") from end
    logger.warning("The search ends: %s", end)


@contextmanager
def _in_one_process(number: int) -> Iterator[None]:
    """End a forked copy of this process (`os.fork` in user code) when it returns from the objective."""
    pid, status, meant = os.getpid(), 1, False
    try:
        yield
    except SystemExit as left:  # the copy ends by itself
        status, meant = left.code if isinstance(left.code, int) else int(left.code is not None), True
        raise
    finally:
        if os.getpid() != pid:
            if meant:
                sys.stdout.flush()
            else:
                words = f"A process forked in trial {number} came back from the objective and is ended.\n"
                os.write(2, words.encode())
            os._exit(status)  # the copy must not run the search's clean-up


def _answers(trial: FrozenTrial) -> Hashable | None:
    """All answers of a finished trial; a plain function as estimator may have asked more than was planned."""
    return params_key(trial.params) if record.ASKED.of(trial) is not None else None


@contextmanager
def _proposing(study: optuna.Study, objective: Objective) -> Iterator[Callable[[], None]]:
    """Let the study's sampler propose only architectures that keep the limits, fit into memory and are new.

    Before each trial the sampler is told how to recognize a known architecture: by its network, once equal
    networks were seen to train to equal values, and until then by its answers. Once a trial ran out of
    memory, it is told what fits; once enough networks were measured, what a device is predicted to say.
    """
    before, memory, measured = study.sampler, LearnedMemory(study, objective), LearnedCosts(study, objective)
    seed = derive_seed(record.origin(study), "distinct")
    as_it_is: tuple[bool, Mapping[str, int], bool | None] | None = None

    def renew() -> None:
        nonlocal as_it_is
        distinct = objective.reuse_twins and not isinstance(before, DistinctSampler)
        now = memory.learn(), measured.learn(), objective.trusts_twins(study) if distinct else None
        if now == as_it_is:
            return
        learned, _, trusted = as_it_is = now
        within = measured.limit(memory.within(objective.within) if learned else objective.within)
        study.sampler = limited(study, objective, before, within)
        if distinct:
            study.sampler = DistinctSampler(
                study.sampler,
                objective.ask,
                identity=objective.identity if trusted else None,
                recorded=objective.recorded_identity if trusted else _answers,
                within=within,
                seed=seed,
            )

    study.sampler = limited(study, objective, before, objective.within)
    try:
        yield renew
    finally:
        study.sampler = before
