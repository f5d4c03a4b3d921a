"""The note on a trial's page: how it ended, its facts, where it comes from, and which of its files are kept.

Everything is read from what was stored before the trial ended, except its weights, which may be deleted
later: the study records which were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.analysis.front import best_trials
from optnas.analysis.leaderboard import leaderboard
from optnas.analysis.lineage import NOT_ASKED, changes
from optnas.analysis.trials import objective_names
from optnas.analysis.words import as_markdown
from optnas.estimation import remote
from optnas.estimation.artifacts import drawing_id
from optnas.limits import in_words
from optnas.record import PARENT
from optnas.training.checkpoints import all_weights

CURVES = "/optnas/curves"
"""The path at which the dashboard serves learning curves, as `<study id>/<trial number>.svg`."""


def kept_weights(study: optuna.Study) -> dict[int, Path]:
    """The weights on this machine, of a study whose folder is known or the usual one."""
    return all_weights(study)


class Notes:
    """Notes on the trials of a study, as it is now."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        # The best is read first, so that it is certainly among the trials that are read later.
        rows = leaderboard(study, 1) if len(study.directions) == 1 else []
        self._trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
        self._names = objective_names(study)
        self._twins_of: dict[int, list[int]] = defaultdict(list)
        for trial in self._trials.values():
            if (original := record.TWIN_OF.of(trial)) is not None:
                self._twins_of[original].append(trial.number)
        self.best: FrozenTrial | None = self._trials.get(rows[0].trial) if rows else None
        on_front = best_trials(study) if len(study.directions) > 1 else []
        self._front = {trial.number for trial in on_front}

    @cached_property
    def _files(self) -> tuple[set[int], dict[int, Path]] | None:
        """The trials whose weights were deleted, and the weights that are left; None if it keeps none."""
        if record.FOLDER.of(self._study) is None:
            return None
        return set(record.DELETED.of(self._study) or []), kept_weights(self._study)

    def of(self, number: int) -> str:
        """The note on one trial, in Markdown; links lead to the pages of other trials.

        Raises:
            KeyError: no such trial.
        """
        trial = self._trials[number]
        facts = {
            "Outcome": self._outcome(trial),
            "Facts": self._facts(trial),
            "Scores": ", ".join(f"{as_markdown(k)} {in_words(v)}" for k, v in record.metrics(trial).items()),
            "Lineage": self._lineage(trial),
            "Twins": self._twins(trial),
            "Began with": ""
            if not (told := record.PRETRAINED.of(trial))
            else _code(record.pretrained_in_words(told)),
            "Weights": self._weights(trial),
            "Worker": _worker(trial),
        }
        lines = [f"- **{name}**: {words}" for name, words in facts.items() if words]
        if trial.params:
            lines += ["- **Decisions**", *(f"  - {line}" for line in _decisions(trial))]
        if trial.intermediate_values:
            lines += ["", f"![learning curve]({CURVES}/{private.study_id(self._study)}/{number}.svg)"]
        if (drawing := drawing_id(trial)) is not None:
            lines += [
                "",
                f"![network](/artifacts/{private.study_id(self._study)}/{private.trial_id(trial)}/{drawing})",
            ]
        return "\n".join(lines)

    def _outcome(self, trial: FrozenTrial) -> str:
        words = trial.state.name.lower()
        if trial.values is not None:
            named = zip(self._names, trial.values, strict=True)
            words += "".join(f", {as_markdown(name)} {in_words(value)}" for name, value in named)
        if self.best is not None and trial.number == self.best.number:
            words += ": the best so far"
        elif trial.number in self._front:
            words += ": on the front, no other is as good in all and better in one"
        elif self.best is not None and trial.value is not None:
            words += f" (the best has {in_words(self.best.values[0])}: {self._link(self.best.number)})"
        if reason := record.why(trial):
            words += f" because of {_code(reason)}"
        return words

    def _lineage(self, trial: FrozenTrial) -> str:
        parent = self._trials.get(-1 if (bred_from := PARENT.of(trial)) is None else bred_from)
        if parent is None:
            return ""
        values = "; ".join(map(in_words, parent.values or ()))
        value = f" ({values})" if values else ""
        changed = [
            f"{_code(name)} " + " → ".join(a if a is NOT_ASKED else _code(a) for a in answers)
            for name, answers in changes(parent.params, trial.params).items()
        ]
        return f"from {self._link(parent.number)}{value} by {', '.join(changed) or 'no change'}"

    def _twins(self, trial: FrozenTrial) -> str:
        if (original := record.TWIN_OF.of(trial)) is not None:
            other = self._link(original)
            return f"the same network as {other}, whose value it carries; it was not trained"
        words = []
        if (audited := record.AUDIT_OF.of(trial)) is not None:
            words.append(
                f"the same network as {self._link(audited)}, trained all the same to see whether equal "
                "networks get equal values; it does not count toward n_trials"
            )
        if others := ", ".join(map(self._link, self._twins_of[trial.number])):
            words.append(f"{others} came to the same network later and carry this value")
        return "; ".join(words)

    def _weights(self, trial: FrozenTrial) -> str:
        never = trial.state != TrialState.COMPLETE or record.TWIN_OF.of(trial) is not None
        if never or self._files is None:
            return ""
        deleted, weights = self._files
        if trial.number in weights:
            return f"kept in {_code(remote.shown(weights[trial.number]))}"
        # No other trial is better than the best, so its weights were removed by hand.
        is_best = self.best is not None and trial.number == self.best.number
        if trial.number in deleted and not is_best:
            return "deleted, as others are better"
        return "none on this machine: they were removed by hand, or are where the search ran"

    def _facts(self, trial: FrozenTrial) -> str:
        known = [as_markdown(words) for words in record.facts_in_words(self._study, trial)]
        why_not = record.MISSING.of(trial) or {}
        missing = [f"no {as_markdown(fact)}: {_code(why)}" for fact, why in why_not.items()]
        return ", ".join(known + missing)

    def _link(self, number: int) -> str:
        return f"[trial {number}](/dashboard/studies/{private.study_id(self._study)}/trials?numbers={number})"


def _worker(trial: FrozenTrial) -> str:
    known = [a for a in record.attempts(trial) if {"host", "pid"} <= a.keys()]
    words = ", then ".join(f"{as_markdown(str(a['host']))}, process {a['pid']}" for a in known)
    seconds = record.DURATION.of(trial)
    return words if seconds is None else f"{words}, for {seconds:.3g} s".removeprefix(", ")


def _decisions(trial: FrozenTrial) -> Iterator[str]:
    """The parameters in words, grouped by place."""
    places: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for name, answer in trial.params.items():
        place, _, what = name.rpartition(".")
        places[place].append((what, answer))
    for place, answers in places.items():
        words = ", ".join(f"{as_markdown(what)} {_code(answer)}" for what, answer in answers)
        yield f"**{as_markdown(place)}**: {words}" if place else words


def _code(value: Any) -> str:
    """The value as Markdown code, in which nothing is markup."""
    words = f"{value:.5g}" if isinstance(value, float) else str(value)
    return "`" + words.replace("`", "'").replace("\n", " ") + "`"
