"""What a device will say of a network, learned from the trials that were measured."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from optnas import record
from optnas.facts.layers import Operation, operations
from optnas.facts.prediction import OperationModel, fit_model
from optnas.limits import Limit, Within
from optnas.objective import Objective
from optnas.search.looks import Looks

logger = logging.getLogger(__name__)

MEASURED = 30
"""From so many networks that were measured the others are predicted."""

_AGAIN = 1.5  # a model is fitted anew when there are so many times the networks of the last one


class LearnedCosts:
    """Limits on facts that only a device tells, from what the trials of a study recorded of them.

    Once thirty networks were measured, the number of any other is predicted from its operations, as by
    `optnas.devices.learn_latency`, and what is predicted to break the limit is not proposed. Since being
    refused after a measurement costs little, a candidate passes that is over by no more than the usual error
    of the prediction. A model that predicts held-out networks poorly limits nothing.
    """

    def __init__(self, study: optuna.Study, objective: Objective) -> None:
        self._study = study
        measured = {fact.name for fact in objective.facts if fact.needs != "meta"}
        self._limits = [limit for limit in objective.limits if limit.name in measured]
        names = " and ".join(limit.name for limit in self._limits)
        lost = f"The operations of a network cannot be seen: its {names} is not predicted."
        self._operations: Looks[list[Operation]] = Looks(objective, operations, lost)
        self._fitted: dict[str, int] = {}  # to so many networks
        self._models: dict[str, OperationModel] = {}  # those that are trusted

    def learn(self) -> dict[str, int]:
        """Look at what was measured; to how many networks the model of each limit is fitted."""
        if self._limits:
            trials = [t for t in self._study.get_trials(deepcopy=False) if t.state.is_finished()]
            for limit in self._limits:
                self._learn(limit.name, trials)
        return {name: self._fitted[name] for name in self._models}

    def limit(self, others: Within | None) -> Within | None:
        """The others, and those that are predicted."""
        known = [limit for limit in self._limits if limit.name in self._models]
        limits = [_widened(limit, self._models[limit.name]) for limit in known]
        if not limits:
            return others
        return Within(self._predict, limits) if others is None else others.also(self._predict, limits)

    def _learn(self, name: str, trials: Sequence[FrozenTrial]) -> None:
        known = [t for t in trials if record.TWIN_OF.of(t) is None and _positive(record.facts(t).get(name))]
        if len(known) < max(MEASURED, _AGAIN * self._fitted.get(name, 0)):
            return
        self._fitted[name] = len(known)
        found = [(self._operations(t.params), record.facts(t)[name]) for t in known]
        seen = [(row, number) for row, number in found if row]
        self._models.pop(name, None)
        if len(seen) < MEASURED:
            return
        model = fit_model([row for row, _ in seen], [number for _, number in seen])
        if model.trusted:
            self._models[name] = model
        else:
            logger.info(
                "%s cannot be predicted well enough from %d networks (median error %.0f %%) to leave "
                "out candidates that break its limit before they are measured.",
                name,
                len(seen),
                100 * model.error,
            )

    def _predict(self, params: Mapping[str, Any]) -> dict[str, float]:
        """What cannot be predicted is left out, and measured."""
        found = self._operations(params)
        if not found:
            return {}
        predicted = {}
        for name, model in self._models.items():
            try:
                predicted[_predicted(name)] = model.predict(found)
            except ValueError:  # of operators that none of the measured networks had
                continue
        return predicted


def _predicted(name: str) -> str:
    return f"{name}, as predicted"


def _widened(limit: Limit, model: OperationModel) -> Limit:
    """By the usual error of the prediction."""
    low = None if limit.low is None else limit.low * (1 - model.error)
    high = None if limit.high is None else limit.high * (1 + model.error)
    return Limit(_predicted(limit.name), low, high)


def _positive(number: float | None) -> bool:
    return number is not None and math.isfinite(number) and number > 0
