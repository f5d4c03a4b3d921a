"""What fits into memory, learned from the trials that did not."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from optnas import record
from optnas.facts.memory import Memory, estimate_memory, memory_of_device
from optnas.limits import Limit, Within
from optnas.objective import Objective
from optnas.record import End, Reason, Why, end
from optnas.search.looks import Looks

logger = logging.getLogger(__name__)

NAME = "memory, of what fits"
_COPIES = (
    4  # parameters, gradients, and two numbers of Adam for each: what lasts while a batch comes and goes
)
_BATCHES = tuple(2**k for k in range(13))  # how many of the example's samples a batch may be worth
_MOST = 200  # trained trials that are looked at, the latest


class LearnedMemory:
    """A limit on the estimated memory of a training step, from how trials of a study ended.

    Trials that ran out of memory are compared with those that were trained: of both the memory of a step is
    estimated on meta, as a share of what the device had. How many samples a batch has is not known here; it
    is taken to be what tells the two kinds of trials apart best (an answer called `batch_size` counts). From
    then on nothing is proposed that needs more than lies a quarter of the way between the most that did fit
    and the least that did not, so that the next larger trials find out, mostly unharmed, what lies between.

    A trial that was given up because the processes that ran it died is taken for out of memory if it is
    larger than everything that was trained: the kernel kills without saying why.
    """

    def __init__(self, study: optuna.Study, objective: Objective) -> None:
        self._study = study
        lost = "The memory of a network cannot be estimated: it is tried, whatever it needs."
        self._memory: Looks[Memory] = Looks(objective, partial(estimate_memory, training=True), lost)
        self._device = memory_of_device()
        self._bound: tuple[float, int] | None = None
        self._known: set[int] = set()  # the numbers of trials that were looked at
        self._out: list[FrozenTrial] = []
        self._dead: list[FrozenTrial] = []
        self._fit: list[FrozenTrial] = []

    def learn(self) -> bool:
        """Look at how trials have ended; whether some ran out of memory, so that there is a bound."""
        self._learn()
        return self._bound is not None

    def within(self, others: Within | None) -> Within:
        """The objective's limits, if it has any, and this one."""
        limits = [Limit(NAME, high=1.0)]
        return Within(self._share, limits) if others is None else others.also(self._share, limits)

    def _share(self, params: Mapping[str, Any]) -> dict[str, float]:
        """The memory of a step as a share of what fits; nothing where either is not known."""
        if self._bound is None or (need := self._need(params)) is None:
            return {}
        bound, batch = self._bound
        return {NAME: float(_step(need, batch) / self._device / bound)}

    def _learn(self) -> None:
        ended = [t for t in self._study.get_trials(deepcopy=False) if t.state.is_finished()]
        new = [t for t in ended if t.number not in self._known]
        for trial in new:
            self._known.add(trial.number)
            for group, belongs in ((self._out, _ran_out), (self._dead, _died), (self._fit, _was_trained)):
                if belongs(trial):
                    group.append(trial)
        if not new or not (self._out or self._dead):
            return
        self._bound = _bound(*map(self._sizes, (self._fit[-_MOST:], self._out, self._dead)))
        if self._bound is not None:
            logger.debug(
                "From now on, networks that need more than %.3g of the device's memory are taken not to fit.",
                self._bound[0],
            )

    def _sizes(self, trials: list[FrozenTrial]) -> list[tuple[float, float]]:
        """What a step of each needs, lasting and for each sample, as a share of what its device had."""
        found = []
        for trial in trials:
            if (need := self._need(trial.params)) is not None:
                attempts = record.attempts(trial)
                had = record.amount(attempts[-1].get("memory")) if attempts else None
                found.append((need[0] / (had or self._device), need[1] / (had or self._device)))
        return found

    def _need(self, params: Mapping[str, Any]) -> tuple[float, float] | None:
        """Bytes that last, and bytes for each sample of the example; None where they cannot be had."""
        if (found := self._memory(params)) is None:
            return None
        of_batch = max(found.activations - found.parameters, found.activations / 10) + found.inputs
        named = [v for name, v in params.items() if name.rpartition(".")[2] == "batch_size"]
        batch = math.prod(v for v in map(record.amount, named) if v is not None)
        return _COPIES * found.parameters + found.buffers, of_batch * batch


def _bound(
    fit: list[tuple[float, float]], out: list[tuple[float, float]], dead: list[tuple[float, float]]
) -> tuple[float, int] | None:
    """The largest step that is taken to fit, and how many samples of the example its batch is worth."""
    best: tuple[tuple[int, float], float, int] | None = None
    for batch in _BATCHES:
        fits = np.array([_step(need, batch) for need in fit])
        largest = fits.max(initial=0.0)
        fails = np.array([_step(need, batch) for need in out])
        fails = np.concatenate([fails, [s for s in (_step(need, batch) for need in dead) if s > largest]])
        if not len(fails):
            continue
        least = fails.min()
        below = fits[fits < least].max(initial=0.0)
        wrong = int((fits >= least).sum())  # trained all the same
        gap = math.log(least / below) if below else 0.0
        rank = (wrong, -gap)
        if best is None or rank < best[0]:
            best = rank, _between(below, least), batch
    return None if best is None else (best[1], best[2])


def _between(below: float, least: float) -> float:
    """How much may be tried where `below` fits and `least` does not: a quarter of the way, in proportion.

    So three of four that are tried there fit, if nothing is known of what lies between; within a twentieth
    nothing is worth a failure.
    """
    if not below:
        return least / 4
    return below if least < 1.05 * below else below * (least / below) ** 0.25


def _step(need: tuple[float, float], batch: int) -> float:
    return need[0] + batch * need[1]


def _ran_out(trial: FrozenTrial) -> bool:
    reason = Reason.of(trial)
    return reason is not None and reason.kind is Why.LIMIT and reason.cause == "memory"


def _died(trial: FrozenTrial) -> bool:
    reason = Reason.of(trial)
    return reason is not None and reason.kind is Why.GAVE_UP


def _was_trained(trial: FrozenTrial) -> bool:
    if trial.state == TrialState.PRUNED:
        return record.n_reports(trial) > 0 and not _ran_out(trial)
    return end(trial) is End.COMPLETE
