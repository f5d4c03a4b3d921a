"""Which answer leads to which question, learned from trials: a study does not store its space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

_MIN_REPEATS = 5


class Conditions:
    """A question depends on a decision if it always comes with some of its answers and never otherwise.

    A decision whose answers hardly repeat among the trials (a continuous one) tells nothing and is taken to
    bring no questions.

    Args:
        trials: Finished trials of one study, the best first: where an answer brings questions, those are
            answered as in the first trial that has it.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self._trials = trials
        names = dict.fromkeys(name for t in trials for name in t.params)
        always = {name for name in names if all(name in t.params for t in trials)}
        self._brings: dict[str, dict[str, set[Any]]] = {}  # decision -> question -> answers that bring it
        self._answers: dict[str, set[Any]] = {}
        for name in names:
            asked = [t for t in trials if name in t.params]
            self._answers[name] = {_key(t.params[name]) for t in asked}
            if len(asked) - len(self._answers[name]) >= _MIN_REPEATS:
                others = [k for k in names if k not in always and k != name]
                found = {other: self._bringing(name, other) for other in others}
                self._brings[name] = {k: v for k, v in found.items() if v is not None}

    def dependent(self, name: str) -> set[str]:
        """All questions that this decision can bring or take away, directly or through others."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            new = set(self._brings.get(waiting.pop(), {})) - found - {name}
            found |= new
            waiting += new
        return found

    def brings(self, name: str, value: Any) -> bool:
        """Whether this answer brings questions that others do not."""
        return any(_key(value) in answers for answers in self._brings.get(name, {}).values())

    def change(self, params: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
        """`params` with another answer to `name`, without the questions that this takes away, and with those
        that it brings. An answer that no trial gave changes nothing else."""
        changed = {**params, name: value}
        if _key(value) not in self._answers[name]:
            return changed
        for other, answers in self._brings.get(name, {}).items():
            if _key(value) not in answers:
                for gone in {other, *self.dependent(other)}:
                    changed.pop(gone, None)
        for other, answers in self._brings.get(name, {}).items():
            if _key(value) in answers and other not in changed:
                donor = next(
                    t for t in self._trials if other in t.params and _key(t.params[name]) == _key(value)
                )
                changed = self.change(changed, other, donor.params[other])
        return changed

    def _bringing(self, name: str, other: str) -> set[Any] | None:
        """Answers to `name` that bring `other`; None if it does not depend on `name` alone."""
        bring: set[Any] = set()
        others: set[Any] = set()
        for trial in self._trials:
            answer = _key(trial.params[name]) if name in trial.params else None
            (bring if other in trial.params else others).add(answer)
        determined = not bring & others and None not in bring
        return bring if determined and bring and others else None


def _key(value: Any) -> tuple[type, Any]:
    return type(value), value
