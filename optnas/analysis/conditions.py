"""Which answer leads to which question, learned from trials: a study does not store its space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from optnas.answers import key, same

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
        self._params = [t.params for t in trials]  # a property that copies
        names = list(dict.fromkeys(name for params in self._params for name in params))
        self._answers: dict[str, set[Any]] = {}
        self._brings: dict[str, dict[str, set[Any]]] = {}  # decision -> question -> answers that bring it
        asked = np.array([[name in params for name in names] for params in self._params], dtype=bool)
        for name, column in zip(names, asked.T, strict=True):
            given = [key(params[name]) for params in self._params if name in params]
            self._answers[name] = set(given)
            if len(given) - len(set(given)) >= _MIN_REPEATS:
                self._brings[name] = _brought(given, asked[column], asked[~column], names)

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
        return any(key(value) in answers for answers in self._brings.get(name, {}).values())

    def change(self, params: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
        """`params` with another answer to `name`, without the questions that this takes away, and with those
        that it brings. An answer that no trial gave changes nothing else."""
        changed = {**params, name: value}
        if key(value) not in self._answers[name]:
            return changed
        for other, answers in self._brings.get(name, {}).items():
            if key(value) not in answers:
                for gone in {other, *self.dependent(other)}:
                    changed.pop(gone, None)
        for other, answers in self._brings.get(name, {}).items():
            if key(value) in answers and other not in changed:
                donor = next(p for p in self._params if other in p and same(p[name], value))
                changed = self.change(changed, other, donor[other])
        return changed


def _brought(
    given: Sequence[Any], asked: NDArray[np.bool_], elsewhere: NDArray[np.bool_], names: Sequence[str]
) -> dict[str, set[Any]]:
    """Questions that depend on one decision alone, with the answers that bring them.

    `given` (m,) are its answers; `asked` (m, names) says what else was asked then; `elsewhere` (rest, names),
    in the trials without this decision.
    """
    answers = list(dict.fromkeys(given))
    codes = np.array([answers.index(answer) for answer in given])
    often = np.stack([asked[codes == code].sum(axis=0) for code in range(len(answers))])
    always = often == np.bincount(codes)[:, None]
    determined = (always | (often == 0)).all(axis=0) & ~elsewhere.any(axis=0)
    varies = always.any(axis=0) & ~always.all(axis=0)
    return {
        names[j]: {answer for answer, brings in zip(answers, always[:, j], strict=True) if brings}
        for j in np.flatnonzero(determined & varies).tolist()
    }
