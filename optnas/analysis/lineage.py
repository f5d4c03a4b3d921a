"""How the search came to its best architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.analysis.trials import finished, maximizes
from optnas.answers import same
from optnas.record import PARENT


class NotAsked(StrEnum):
    """In place of an answer to a question that was not asked: None is an answer."""

    NOT_ASKED = "not asked"


NOT_ASKED = NotAsked.NOT_ASKED


@dataclass(frozen=True)
class Step:
    """One trial on the way. `changed`: name to (answer before, answer now), `NOT_ASKED` in place of one that
    there is not; empty for the first trial. `inherited`: whether the trial before is its parent, rather than
    just the best so far."""

    trial: int
    value: float
    gain: float
    changed: Mapping[str, tuple[Any, Any]]
    inherited: bool


def path_to_best(study: Study, best: FrozenTrial) -> tuple[Step, ...]:
    """From a first trial to `best`: its ancestors, where the sampler recorded parents, and before them each
    trial that was the best so far. `gain` is an improvement where positive, whatever the direction."""
    by_number = {t.number: t for t in finished(study)}
    ancestors = [best]
    while (parent := by_number.get(_parent(ancestors[-1]))) and parent not in ancestors:
        ancestors.append(parent)
    ancestors.reverse()
    way = _improvements(study, ancestors[0]) + ancestors
    n_before = len(way) - len(ancestors)
    sign = 1.0 if maximizes(study) else -1.0
    steps = [Step(way[0].number, _value(way[0]), 0.0, {}, False)]
    for i, (before, now) in enumerate(pairwise(way), start=1):
        gain = sign * (_value(now) - _value(before))
        steps.append(Step(now.number, _value(now), gain, changes(before.params, now.params), i > n_before))
    return tuple(steps)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Decisions answered differently, or in one of the two only (`NOT_ASKED` in the other)."""
    names = dict.fromkeys([*before, *now])
    return {
        name: (before.get(name, NOT_ASKED), now.get(name, NOT_ASKED))
        for name in names
        if (name in before) != (name in now) or not same(before[name], now[name])
    }


def _improvements(study: Study, until: FrozenTrial) -> list[FrozenTrial]:
    """Trials before `until` that were the best so far; ends below its value."""
    sign = 1.0 if maximizes(study) else -1.0
    found: list[FrozenTrial] = []
    for trial in finished(study):
        if trial.number >= until.number:
            break
        if not found or sign * _value(trial) > sign * _value(found[-1]):
            found.append(trial)
    return [t for t in found if sign * _value(t) < sign * _value(until)]


def _value(trial: FrozenTrial) -> float:
    return float("nan") if trial.value is None else trial.value


def _parent(trial: FrozenTrial) -> int:
    """The number of the trial from which it was bred; -1 where it has none."""
    number = PARENT.of(trial)
    return -1 if number is None else number
