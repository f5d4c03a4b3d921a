"""`optimize`: spend a study's budget in this process or in several, and survive interruptions."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence

import optuna

from optnas import record
from optnas.errors import SearchFailedError
from optnas.launch.launcher import Launcher, LocalProcesses
from optnas.objective import Objective
from optnas.progress.progress import Progress, Show
from optnas.search.fits import check_fits
from optnas.search.loop import Callback, work
from optnas.search.recovery import recover
from optnas.search.rehearsal import rehearse
from optnas.search.signals import exits_are_told
from optnas.search.study import check_values
from optnas.search.turns import reopen_paused
from optnas.search.workers import Search, run_workers
from optnas.storage.open import storage_of


def optimize(
    study: optuna.Study,
    objective: Objective,
    n_trials: int | None = None,
    *,
    timeout: float | None = None,
    n_trainings: float | None = None,
    n_workers: int = 1,
    show_progress: Show = None,
    callbacks: Sequence[Callback] = (),
    trial_timeout: float | None = None,
    workers: Launcher | None = None,
) -> None:
    """Run trials until the whole study has `n_trials` that count, or its time or its epochs are spent.

    A trial counts if its estimate ran and it ended COMPLETE or PRUNED; repeats (`twin_of`), infeasible and
    failed trials do not. So calling it again after an interruption finishes the rest, and calling it when all
    is done does nothing. Ctrl-C, SIGTERM, the end of the terminal (SIGHUP) and a storage or disk that fails
    put the running trial back into the queue; a trial whose process was killed is found and goes on from its
    last finished epoch. A trial whose attempts end three times at the same point fails. `study.stop()`, in
    the objective or in a callback, ends the search after the trials that run.

    Before the first trial of a study, the estimator rehearses one estimate, so that a mistake in its settings
    costs no trial.

    Args:
        n_trials: number of trials of the whole study, over all calls, processes and machines; None: no limit.
        timeout: seconds after which no trial begins, or goes on after a pause; None: no limit.
        n_trainings: budget in whole trainings. When all trials of the study together have used as many epochs
            (more exactly, reports) as this many whole trainings have, no trial begins or goes on; None: no
            limit.
        n_workers: processes on this machine; more than one needs a storage that processes can share. When
            the search is interrupted, they get 30 seconds to save their state.
        show_progress: by default only where somebody watches (a terminal or a notebook). True writes a line
            per finished trial elsewhere, such as to a log file; "json" a line per event, for other programs
            (`optnas.progress.json_lines.JsonLines`).
        callbacks: functions `(study, trial)` to call after each trial, as those of Optuna's
            `study.optimize`. Workers call them, each after its own trials; so they must be picklable then.
        trial_timeout: seconds that an attempt at a trial may take; then the process that runs it ends, and
            the trial fails and says where it was. It makes even a single worker a process of its own.
        workers: where workers run and how many, if not as processes of this machine: `RayWorkers(64)`.

    Raises:
        SearchFailedError: the rehearsal failed; the first five trials, or eight of the last ten, failed for
            the same reason; or the code of a trial ended the process as if all had been done.
        ParamsMismatchError: stored trials do not fit the space, or the study optimizes something else;
            `ChoicesError`: a name offers other choices than before, or under other answers.
        StorageUnavailableError: the storage cannot be read or written for longer than its patience.
        CheckpointError: the state of a training cannot be written; a full disk, for example.
        ValueError: a storage on which no search may work; workers, but a storage that they cannot share, or
            an objective or a callback that cannot be pickled; fewer than one worker; no time for a trial; a
            negative `n_trials`; or `n_trainings` of an estimator that does not say how often it reports.

    Examples:
        >>> optnas.optimize(study, objective, n_trials=16)  # the study has 15: one more is run
        >>> optnas.record.n_counted(study.trials)
        16
    """
    if workers is not None and n_workers != 1:
        raise ValueError(f"n_workers={n_workers}: leave it out, since `workers` says how many there are.")
    local = LocalProcesses(n_workers)
    storage = storage_of(study)
    if storage.refuses:
        raise ValueError(storage.refuses)
    if trial_timeout is not None and not trial_timeout > 0:
        raise ValueError(f"trial_timeout={trial_timeout} must be above 0; None means no limit.")
    if n_trials is not None and n_trials < 0:
        raise ValueError(f"n_trials={n_trials}: give at least 0; None means no limit.")
    n_reports = None if n_trainings is None else _reports(n_trainings, objective)
    check_values(study, objective)
    check_fits(study, objective)
    if storage.lacks:
        warnings.warn(storage.lacks, stacklevel=2)
    for given_up in recover(study):
        objective.estimator.finish(study, given_up)
    reopen_paused(study, n_trials)
    objective.estimator.tidy(study)
    deadline = None if timeout is None else time.monotonic() + timeout
    record.write_budget(study, n_trials, n_reports, timeout)
    search = Search(n_trials, deadline, tuple(callbacks), trial_timeout, n_reports)
    in_workers = n_workers > 1 or trial_timeout is not None or workers is not None
    try:
        if in_workers:
            run_workers(study, objective, search, workers or local, show_progress)
        else:
            _run_here(study, objective, search, show_progress)
    finally:
        storage.fold_log()
    objective.estimator.tidy(study)


_ENDED = (
    "The code of a trial ended the process with {}, as if the search were done. Run the same search again, "
    "which takes the trial up. To end a search early, call trial.study.stop()."
)


def _reports(n_trainings: float, objective: Objective) -> int:
    if not n_trainings > 0:
        raise ValueError(f"n_trainings={n_trainings} must be above 0; None means no limit.")
    longest = objective.estimator.max_reports
    if not longest:
        raise ValueError(
            f"n_trainings={n_trainings}: the estimator ({objective.estimator.name}) does not say how many "
            "reports a whole training makes (max_reports). Give n_trials or timeout."
        )
    return math.ceil(n_trainings * longest)


def _run_here(study: optuna.Study, objective: Objective, search: Search, show_progress: Show) -> None:
    rehearse(study, objective)
    try:
        with (
            exits_are_told(_ENDED.format("os._exit(0)")),
            Progress(study, search.n_trials, show_progress) as progress,
        ):
            for trial in work(
                study,
                objective,
                search.n_trials,
                search.deadline,
                search.callbacks,
                n_reports=search.n_reports,
            ):
                progress.show(trial)
    except SystemExit as left:
        if left.code:
            raise
        raise SearchFailedError(_ENDED.format("sys.exit(0)")) from left
