"""What a search shows while it runs: a line per finished trial and a bar with the best and the time left."""

from __future__ import annotations

from types import TracebackType

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from optnas.search.study import counts


class Progress:
    """A context in which `show(trial)` prints finished trials.

    Args:
        n_trials: the budget of the study, or None.
        show: True, False, or None for only where somebody watches (a terminal or a notebook).
    """

    def __init__(self, study: optuna.Study, n_trials: int | None, show: bool | None = None) -> None:
        self._study = study
        console = Console(stderr=True, highlight=False)
        self._shown = show if show is not None else console.is_terminal or console.is_jupyter
        self._bar = RichProgress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not (self._shown and (console.is_terminal or console.is_jupyter)),
        )
        self._n_trials = n_trials

    def __enter__(self) -> Progress:
        self._bar.start()
        finished = [t for t in self._study.get_trials(deepcopy=False) if counts(t)]
        self._task = self._bar.add_task(self._best(), total=self._n_trials, completed=len(finished))
        if self._shown and finished:
            self._bar.console.print(
                f"Study {self._study.study_name!r} goes on: {len(finished)} trials are done and kept."
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, trial: FrozenTrial) -> None:
        """Print one finished trial and move the bar."""
        if not self._shown:
            return
        value = "" if trial.value is None else f"{trial.value:.4g}"
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        note = trial.user_attrs.get("reason", "")
        if "twin_of" in trial.user_attrs:
            note = f"same network as trial {trial.user_attrs['twin_of']}"
        self._bar.console.print(
            f"trial {trial.number:>4}  {trial.state.name:<8}  {value:>8}  {seconds:>6.1f} s  "
            f"{self._best():<28}  {note}".rstrip(),
            markup=False,
            soft_wrap=True,
        )
        self._bar.update(self._task, description=self._best(), advance=int(counts(trial)))

    def _best(self) -> str:
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not complete:
            return "no best yet"
        sign = -1 if self._study.direction == StudyDirection.MAXIMIZE else 1
        best = min(complete, key=lambda t: (sign * (t.value or 0.0), t.number))
        return f"best {best.value:.4g} (trial {best.number})"
