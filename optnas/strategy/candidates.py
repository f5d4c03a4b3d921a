"""Candidates for a trial: whole sets of answers that a space would accept, made before the trial asks."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from optnas.answers import (
    ParamsKey,
    Pick,
    contains,
    draw,
    is_continuous,
    key,
    mutate,
    params_key,
    settle,
)
from optnas.space.explore import walk
from optnas.trial import Draw, Space

Params = Mapping[str, Any]

Question: TypeAlias = tuple[str, BaseDistribution]

MOST_NODES = 100_000
FEWEST_WALKS = 8  # that make a rule of what follows a question
MOST_WALKS = 100  # that are looked at for it
_UNKNOWN: Question = ("", CategoricalDistribution((None,)))
TWO_CHANGES = 0.3


class Questions:
    """Knows which question follows which answers, and calls the space only for what it does not know.

    A prefix of answers determines the next question, so a path once walked is walked again in microseconds.
    What follows a continuous answer is taken not to depend on its value: else no path would repeat.

    Where the space raises, its error is none of a sampler's business: such answers are no candidates.
    """

    def __init__(self, space: Space[Any]) -> None:
        self._space = space
        self._learned: list[ParamsKey] = []
        self._following = _Following([])
        self._forget()

    def _forget(self) -> None:
        self._asked: list[Question | None] = [None]  # by node; None where all is asked
        self._next: dict[Hashable, int] = {}  # node and answer to node
        self._raising: set[int] = set()

    def answer(self, pick: Pick) -> dict[str, Any] | None:
        """The params of one replay of the space, each answered by `pick`; None where the space raises."""
        params: dict[str, Any] = {}
        node = 0
        while (asked := self._asked[node]) is not None:
            params[asked[0]] = value = settle(asked[1], pick(*asked))
            following = self._next.get(_edge(node, asked[1], value))
            if following is None:
                return self._explore(params, pick)
            node = following
        if node in self._raising:
            return None
        return params if node else self._explore(params, pick)

    def learn(self, answered: Sequence[Params]) -> None:
        """What trials were asked is all that `foresee` goes by: another process foresees the same."""
        answered = answered[-MOST_WALKS:]
        keys = [params_key(params) for params in answered]
        if keys != self._learned:
            self._learned = keys
            walks = map(self._walked, answered)
            self._following = _Following([walk for walk in walks if walk is not None])

    def foresee(self, pick: Pick) -> dict[str, Any] | None:
        """As `answer`, but nothing is called where what was learned tells the questions.

        The space may ask others, or raise.
        """
        params: dict[str, Any] = {}
        last = ""
        while (asked := self._following.after(last, params)) is not None:
            if asked is _UNKNOWN:
                return self.answer(lambda name, d: params[name] if name in params else pick(name, d))
            last = asked[0]
            params[last] = settle(asked[1], pick(*asked))
        return params

    def _walked(self, params: Params) -> tuple[list[Question], Params] | None:
        """All questions on the way of these answers; None where there are others, or the space raises."""
        questions: list[Question] = []

        def pick(name: str, distribution: BaseDistribution) -> Any:
            questions.append((name, distribution))
            if name in params and contains(distribution, params[name]):
                return params[name]
            return draw(distribution, np.random.default_rng(0))

        found = self.answer(pick)
        return None if found is None or found.items() > params.items() else (questions, found)

    def _explore(self, params: Params, pick: Pick) -> dict[str, Any] | None:
        asked = Draw(lambda name, distribution: params[name] if name in params else pick(name, distribution))
        raises = walk(self._space, asked) is not None
        if len(self._asked) > MOST_NODES:
            self._forget()
        node = 0
        for name, distribution in asked.distributions.items():
            self._asked[node] = name, distribution
            node = self._next.setdefault(_edge(node, distribution, asked.params[name]), len(self._asked))
            if node == len(self._asked):
                self._asked.append(None)
        if raises:
            self._raising.add(node)
        return None if raises else asked.params


class _Following:
    """Which question follows a question, where all walks say so.

    It is the same in all of them; or it goes by one answer, that to `depth` of a loop so long; or by the
    answer to the question itself and another one. A space may do otherwise: who goes by this asks it at last.
    """

    def __init__(self, walks: Iterable[tuple[list[Question], Params]]) -> None:
        self._seen: dict[str, list[tuple[Params, Question | None]]] = {}
        self._rules: dict[str, _Rule | None] = {}
        for questions, params in walks:
            names = ["", *(name for name, _ in questions)]
            for last, following in zip(names, [*questions, None], strict=True):
                self._seen.setdefault(last, []).append((params, following))

    def after(self, name: str, params: Params) -> Question | None:
        """What is asked after `name` ("" for nothing yet), None for nothing any more, or `_UNKNOWN`."""
        if name not in self._rules:
            self._rules[name] = self._rule(name)
        rule = self._rules[name]
        return _UNKNOWN if rule is None else rule.then.get(rule.given(params), _UNKNOWN)

    def _rule(self, name: str) -> _Rule | None:
        seen = self._seen.get(name, [])
        if len(seen) < FEWEST_WALKS:
            return None
        before = list(itertools.takewhile(lambda other: other != name, seen[-1][0]))
        names = [name, *before] if name else []
        for by in ([()], [(other,) for other in names], [(name, other) for other in before]):
            rules = [_Rule(one) for one in by]
            rules = [rule for rule in rules if all(rule.takes(*walk) for walk in seen)]
            # One by an answer that is new each time says nothing.
            rules = [rule for rule in rules if len(rule.then) <= len(seen) / 2]
            if rules:
                return min(rules, key=lambda rule: len(rule.then))
        return None


class _Rule:
    """What follows a question, by the answers to others."""

    def __init__(self, by: tuple[str, ...]) -> None:
        self._by = by
        self.then: dict[Hashable, Question | None] = {}

    def given(self, params: Params) -> Hashable:
        return tuple(key(params[name]) if name in params else None for name in self._by)

    def takes(self, params: Params, following: Question | None) -> bool:
        """Whether this does not contradict it."""
        return self.then.setdefault(self.given(params), following) == following


def _edge(node: int, distribution: BaseDistribution, value: Any) -> Hashable:
    # The type first: it is quicker to ask.
    return node if type(value) is float and is_continuous(distribution) else (node, key(value))


class Candidates:
    """Makes params: those of the space, and those that trials were seen to be asked beyond it.

    Which questions the space asks may be foreseen; `asked` is sure.

    Args:
        questions: Of the space.
        beyond: What a task, data or an estimator asks, by name.
        fixed: Answers that no candidate may change.
        rng: Draws everything that is drawn.
    """

    def __init__(
        self,
        questions: Questions,
        beyond: Mapping[str, BaseDistribution],
        fixed: Params,
        rng: np.random.Generator,
    ) -> None:
        self._questions = questions
        self._beyond = beyond
        self._fixed = fixed
        self._rng = rng

    def random(self) -> dict[str, Any] | None:
        """Every decision drawn; None where the space raises."""
        return self._answer({}, set())

    def asked(self, params: Params) -> dict[str, Any] | None:
        """What the space asks, with these answers, those that are missing drawn; None where it raises."""
        return self._answer(params, set(), sure=True)

    def mutation(self, parent: Params) -> dict[str, Any] | None:
        """One decision of `parent` changed, now and then two; those that newly appear are drawn."""
        free = [name for name in parent if name not in self._fixed]
        n_changed = min(1 + int(self._rng.random() < TWO_CHANGES), len(free))
        changed = {free[i] for i in self._rng.choice(len(free), n_changed, replace=False)} if free else set()
        return self._answer(parent, changed)

    def _answer(self, parent: Params, changed: set[str], *, sure: bool = False) -> dict[str, Any] | None:
        def pick(name: str, distribution: BaseDistribution) -> Any:
            for known in (self._fixed, parent):
                if name in known and contains(distribution, known[name]):
                    return self._change(distribution, known[name]) if name in changed else known[name]
            return draw(distribution, self._rng)

        params = (self._questions.answer if sure else self._questions.foresee)(pick)
        if params is None:
            return None
        for name, distribution in self._beyond.items():
            if name not in params:
                params[name] = settle(distribution, pick(name, distribution))
        return params

    def _change(self, distribution: BaseDistribution, value: Any) -> Any:
        """Another answer; of a number, half of the time one close by."""
        if isinstance(distribution, CategoricalDistribution) or self._rng.random() < 0.5:
            return mutate(distribution, value, self._rng)
        return nearby(distribution, value, self._rng)


def nearby(distribution: BaseDistribution, value: float, rng: np.random.Generator) -> Any:
    """A number a tenth of the range away on average, at least one step, on either side."""
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        moved = float(np.exp(np.log(value) + rng.normal() * 0.1 * np.log(high / low)))
    else:
        moved = value + rng.normal() * 0.1 * (high - low)
    if step is not None:
        steps = round((moved - value) / step) or (1 if moved > value else -1)
        moved = low + step * (round((value - low) / step) + steps)
    moved = min(max(moved, low), high)
    return round(moved) if isinstance(distribution, IntDistribution) else float(moved)
