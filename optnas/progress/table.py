"""The state of a search as a table: which process runs which trial, what finished last, how much is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table
from rich.text import Text

from optnas import record
from optnas.limits import in_words
from optnas.pareto import front_trials
from optnas.printable import printable
from optnas.record import End, end
from optnas.storage.base import is_held

_LATEST, _RUNNING = 5, 12  # trials shown
_BAR, _NOTE = 24, 35  # characters


def progress_table(
    study: optuna.Study, n_trials: int | None, n_before: int = 0, seconds: float = 0.0
) -> Table:
    """The latest trials that finished, the running ones with their workers, and the counts, in 80 columns.

    Args:
        n_trials: the budget of the study, or None.
        n_before: trials that counted before this search began or went on; the later ones give the rate.
        seconds: how long this search has run.
    """
    trials = study.get_trials(deepcopy=False)
    ended = [(t.datetime_complete, t.number, t) for t in trials if t.datetime_complete is not None]
    finished = [trial for _, _, trial in sorted(ended)[-_LATEST:]]
    running = [t for t in trials if t.state == TrialState.RUNNING]
    n_done = record.n_counted(trials) + _n_paused(trials)
    columns: dict[str, Any] = {
        "box": None,
        "pad_edge": False,
        "title_justify": "left",
        "caption_justify": "left",
    }
    table = Table(
        title=_headline(n_done, n_trials, n_done - n_before, seconds),
        caption=f"{_tally(trials)}; {best_words(study, trials)}",
        title_style="bold",
        caption_style="",
        **columns,
    )
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=10)
    table.add_column("step", justify="right", no_wrap=True, min_width=4)
    table.add_column("value", justify="right", no_wrap=True, min_width=9)
    table.add_column("time", justify="right", no_wrap=True, min_width=7)
    table.add_column("worker or note", no_wrap=True, overflow="ellipsis", min_width=30, max_width=_NOTE)
    for trial in (*finished, *running[:_RUNNING]):
        table.add_row(*(Text(printable(cell)) for cell in _row(study, trial)))
    if len(running) > _RUNNING:
        table.add_row("", f"{len(running) - _RUNNING} more running")
    return table


def note(study: optuna.Study, trial: FrozenTrial) -> str:
    """What to say about a finished trial besides its value; its facts, the user's own first."""
    if (twin := record.TWIN_OF.of(trial)) is not None:
        return f"same network as trial {twin}"
    if (audited := record.AUDIT_OF.of(trial)) is not None:
        return f"trial {audited}'s network, trained to check"
    return record.why(trial) or ", ".join(reversed(record.facts_in_words(study, trial)))


def ending(trial: FrozenTrial) -> str:
    """How a trial ended: complete, twin, pruned, infeasible or failed; "running" before it has."""
    ended = end(trial)
    return "running" if ended is End.OPEN else ended.value


def values(trial: FrozenTrial) -> str:
    """The value, or the values, of a finished trial."""
    return "; ".join(map(in_words, trial.values or ()))


def best(study: optuna.Study, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The best trial of a study with one objective; of two equal ones the earlier."""
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
    scored = [(sign * t.values[0], t.number, t) for t in trials if ending(t) in ("complete", "twin")]
    return min(scored)[2] if scored and len(study.directions) == 1 else None


def best_words(study: optuna.Study, trials: Sequence[FrozenTrial]) -> str:
    if len(study.directions) > 1:
        return f"{len(front_trials(study))} on the front"
    found = best(study, trials)
    return "no best yet" if found is None else f"best {values(found)} (trial {found.number})"


def _row(study: optuna.Study, trial: FrozenTrial) -> tuple[str, ...]:
    begun, ended = trial.datetime_start, trial.datetime_complete
    seconds = (ended or datetime.now()).timestamp() - begun.timestamp() if begun else 0.0
    reports = trial.intermediate_values
    step = max(reports, default=None)
    value = values(trial)
    if not value and step is not None and trial.state in (TrialState.RUNNING, TrialState.PRUNED):
        value = f"{reports[step]:.4g}"
    words = note(study, trial).replace("\n", " ") if trial.state.is_finished() else _worker(trial)
    return (
        str(trial.number),
        ending(trial),
        "" if step is None else str(step),
        value,
        duration(seconds),
        words,
    )


def _worker(trial: FrozenTrial) -> str:
    attempts = record.attempts(trial)
    if not attempts or not {"host", "pid"} <= attempts[-1].keys():
        return ""
    host, process = str(attempts[-1]["host"]), f", process {attempts[-1]['pid']}"
    room = _NOTE - len(process)  # the process is what tells workers of one machine apart
    return (host if len(host) <= room else f"{host[: room - 1]}…") + process


def _headline(n_done: int, n_trials: int | None, n_new: int, seconds: float) -> str:
    done = f"{n_done} trials" if n_trials is None else f"{_bar(n_done / n_trials)} {n_done}/{n_trials}"
    words = [f"{done} in {duration(seconds)}"]
    if n_new and seconds:
        words.append(f"{60 * n_new / seconds:.3g} a minute")
        if n_trials is not None and n_done < n_trials:
            words.append(f"{duration((n_trials - n_done) * seconds / n_new)} left")
    return ", ".join(words)


def _bar(share: float) -> str:
    full = round(_BAR * min(1.0, share))
    return "━" * full + "─" * (_BAR - full)


def _tally(trials: Sequence[FrozenTrial]) -> str:
    ends = Counter(ending(trial) for trial in trials if trial.state.is_finished())
    names = ["complete", "pruned", "failed", "twin", *(["infeasible"] if ends["infeasible"] else [])]
    words = [f"{ends[name]} {name}" for name in names]
    if n_paused := _n_paused(trials):
        words.append(f"{n_paused} paused")
    return ", ".join(words)


def _n_paused(trials: Sequence[FrozenTrial]) -> int:
    """How many trials are paused, until the pruner lets them go on."""
    return sum(trial.state == TrialState.WAITING and is_held(trial) for trial in trials)


def duration(seconds: float) -> str:
    """1:02, 1:00:05, 2 d 3:00:00."""
    days, rest = divmod(round(max(0.0, seconds)), 86_400)
    minutes, second = divmod(rest, 60)
    hour, minute = divmod(minutes, 60)
    clock = f"{hour}:{minute:02}:{second:02}" if hour or days else f"{minute}:{second:02}"
    return f"{days} d {clock}" if days else clock
