"""What a search shows while it runs: a live table to who watches, lines in logs, JSON for machines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Literal

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.live import Live
from rich.table import Table

from optnas import record
from optnas.printable import printable
from optnas.progress.json_lines import JsonLines
from optnas.progress.table import best_words, note, progress_table, values

Show = bool | Literal["json"] | None
"""What a search shows: True, False, "json" for one JSON object per event, or None for a table where somebody
watches (a terminal or a notebook) and nothing elsewhere.

Examples:
    >>> show: optnas.progress.Show = False
    >>> optnas.optimize(study, objective, n_trials=15, show_progress=show)
"""


class Progress:
    """A context in which `show(trial)` says that a trial has finished.

    In a terminal and in a notebook, a table of the running trials, whoever runs them, and the latest finished
    ones, which stays in its place. Elsewhere a line per finished trial.

    Args:
        n_trials: the budget of the study, or None.
        show: True, False, or None for only where somebody watches; "json" for one JSON object per event on
            the standard output, as `JsonLines` has it.

    Examples:
        >>> with optnas.progress.Progress(study, n_trials=15, show=False) as progress:
        ...     progress.show(study.trials[-1])
    """

    def __init__(self, study: optuna.Study, n_trials: int | None, show: Show = None) -> None:
        console = Console(stderr=True, highlight=False)
        watched = (console.is_terminal and not console.is_dumb_terminal) or console.is_jupyter
        self._view: JsonLines | _LiveTable | _Lines | None = None
        if show == "json":
            self._view = JsonLines(study, n_trials)
        elif watched and show is not False:
            self._view = _LiveTable(study, n_trials, console)
        elif show:
            self._view = _Lines(study, console)

    def __enter__(self) -> Progress:
        if self._view is not None:
            self._view.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        # If the storage does not answer, that must not hide why the search ends.
        with nullcontext() if error is None else suppress(StorageInternalError):
            if self._view is not None:
                self._view.finish(error)

    def show(self, trial: FrozenTrial) -> None:
        """A trial of the study has finished."""
        if self._view is not None:
            self._view.show(trial)


class _Lines:
    def __init__(self, study: optuna.Study, console: Console) -> None:
        self._study, self._console = study, console

    def begin(self) -> None:
        n_counted = record.n_counted(self._study.get_trials(deepcopy=False))
        if n_counted:
            self._print(f"Study {self._study.study_name!r} goes on: {n_counted} trials are done and kept.")

    def show(self, trial: FrozenTrial) -> None:
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        best_now = best_words(self._study, self._study.get_trials(deepcopy=False))
        self._print(
            f"trial {trial.number:>4}  {trial.state.name:<8}  {values(trial):>8}  {seconds:>6.1f} s  "
            f"{best_now:<28}  {note(self._study, trial)}".rstrip()
        )

    def finish(self, error: BaseException | None) -> None:
        pass

    def _print(self, words: str) -> None:
        self._console.print(printable(words), markup=False, soft_wrap=True)


class _LiveTable:
    """A table that its own thread keeps up to date."""

    def __init__(self, study: optuna.Study, n_trials: int | None, console: Console) -> None:
        self._study, self._n_trials, self._console = study, n_trials, console
        self._over = threading.Event()

    def begin(self) -> None:
        self._started = time.perf_counter()
        self._n_before = record.n_counted(self._study.get_trials(deepcopy=False))
        live = Live(self._table(), console=self._console, auto_refresh=False)
        if self._console.is_jupyter:
            self._update = _notebook_output(self._table())
        else:
            live.start(refresh=True)
            self._update = lambda table: live.update(table, refresh=True)
        self._stop = live.stop
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def show(self, trial: FrozenTrial) -> None:
        """The next tick does."""

    def finish(self, error: BaseException | None) -> None:
        self._over.set()
        self._ticker.join()
        try:
            self._update(self._table())
        finally:
            self._stop()

    def _table(self) -> Table:
        seconds = time.perf_counter() - self._started
        return progress_table(self._study, self._n_trials, self._n_before, seconds)

    def _tick(self) -> None:
        pause = 0.5
        while not self._over.wait(pause):
            begun = time.perf_counter()
            try:
                self._update(self._table())
            except Exception:  # if the database does not answer now, the search will deal with that
                continue
            finally:
                pause = max(0.5, 20 * (time.perf_counter() - begun))  # 5 % of one processor


def _notebook_output(table: Table) -> Callable[[Table], None]:
    """Show a table below the cell; returns a function that replaces it."""
    from IPython.display import DisplayHandle

    handle = DisplayHandle()  # type: ignore[no-untyped-call]  # IPython leaves it untyped
    handle.display(table)  # type: ignore[no-untyped-call]  # as above
    update: Callable[[Table], None] = handle.update
    return update
