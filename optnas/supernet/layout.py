"""Which weights the networks of a space share, and how large each is in the largest network that has it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from torch import nn

from optnas.answers import is_continuous, keep_or_draw, options, params_key, same
from optnas.errors import SpaceError
from optnas.facts.inputs import Example
from optnas.supernet.skeleton import Skeleton, Weight, skeleton
from optnas.trial import Space


@dataclass
class Shared:
    """One shared weight.

    Attributes:
        shape: large enough for every network that was seen.
        kind: as in `Weight`.
        params: of a network that has it.
        most: how many numbers the network has that has the most of it.
    """

    shape: tuple[int, ...]
    kind: str
    params: Mapping[str, Any]
    most: int = 0


@dataclass
class Layout:
    """The shared weights of a space, as far as the networks that were looked at have them.

    Looked at are the network with the most parameters, as found by improving one decision after the other,
    that with the fewest, each with every answer to every question (of numbers three), and `draws`
    networks drawn at random.

    Attributes:
        weights: by key.
        largest: the answers of the network with the most parameters.
        smallest: those of the one with the fewest.
        widest: how many candidates the `Choice` with the most has; 1 where there is none.
        sources: few networks that together have the most of every weight, and the keys for which each counts.
    """

    space: Space[nn.Module]
    example: Example
    draws: int = 100
    weights: dict[str, Shared] = field(default_factory=dict)
    largest: dict[str, Any] = field(default_factory=dict)
    smallest: dict[str, Any] = field(default_factory=dict)
    widest: int = 1
    sources: list[tuple[Mapping[str, Any], list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._seen: dict[Any, Skeleton] = {}
        self._questions: dict[str, tuple[BaseDistribution, dict[str, Any]]] = {}
        self.largest = self._end(sign=1)
        for name in self._at(self.largest).params:
            self._questions[name] = (self._questions[name][0], self.largest)
        self.smallest = self._end(sign=-1)
        self._vary()
        rng = np.random.default_rng(0)
        for _ in range(self.draws):
            self._look(keep_or_draw({}, rng))
        self.sources = self._cover()
        del self._seen, self._questions

    def check(self, found: Skeleton) -> None:
        """Raise where a sub-network has a weight that is not among the shared ones.

        Raises:
            SpaceError: it has.
        """
        for weight in found.weights.values():
            shared = self.weights.get(weight.key)
            if shared is None or len(shared.shape) != len(weight.shape):
                why = "is in none"
            elif any(size > whole for size, whole in zip(weight.shape, shared.shape, strict=True)):
                why = f"is {weight.shape} here and at most {shared.shape} in all"
            else:
                continue
            raise SpaceError(
                f"The weight {weight.key!r} {why} of the networks by which the supernet was laid out; look "
                f"at more of them: Supernet(..., draws={10 * self.draws}). [parameters: {found.params}]"
            )

    # ---- the networks that are looked at ----

    def _at(self, params: Mapping[str, Any]) -> Skeleton:
        """The network of these answers; a question beyond them gets its first."""

        def pick(name: str, distribution: BaseDistribution) -> Any:
            tried = _tried(name, distribution)
            return params[name] if name in params and any(same(params[name], t) for t in tried) else tried[0]

        return self._look(pick)

    def _look(self, pick: Any) -> Skeleton:
        found = skeleton(self.space, pick, self.example)
        key = params_key(found.params)
        if key in self._seen:
            return self._seen[key]
        self._seen[key] = found
        for name, distribution in found.trial.distributions.items():
            self._questions.setdefault(name, (distribution, found.params))
            if name in found.declared and isinstance(distribution, CategoricalDistribution):
                self.widest = max(self.widest, len(options(name, distribution)))
        for weight in found.weights.values():
            self._note(weight, found)
        return found

    def _note(self, weight: Weight, found: Skeleton) -> None:
        new = Shared(weight.shape, weight.kind, found.params)
        shared = self.weights.setdefault(weight.key, new)
        if shared.kind != weight.kind:
            one, other = shared.params, found.params
            names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
            raise SpaceError(
                f"One name stands for two weights: {weight.key!r} is {shared.kind} in one network and "
                f"{weight.kind} in another, which differ in {', '.join(map(repr, names))}, and nothing says "
                f"which weights belong together. {_WRITE} [parameters: {dict(one)} and {other}]"
            )
        shared.shape = tuple(map(max, shared.shape, weight.shape))
        shared.most = max(shared.most, math.prod(weight.shape))

    def _end(self, sign: int) -> dict[str, Any]:
        """The answers that lead to the most parameters (or, with -1, the fewest), one after the other."""
        decided: dict[str, Any] = {}
        now = self._at(decided)
        while left := [name for name in now.params if name not in decided]:
            name = left[0]
            others = [{**now.params, name: option} for option in self._options(name)]
            now = max((self._at(params) for params in others), key=lambda found: sign * found.n_params)
            decided[name] = now.params[name]
        return now.params

    def _vary(self) -> None:
        """Give every question each of its answers once, and compare what a plain function decides."""
        done: set[str] = set()
        while left := [name for name in self._questions if name not in done]:
            done.add(left[0])
            base = self._at(self._questions[left[0]][1])
            for option in self._options(left[0]):
                other = self._at({**base.params, left[0]: option})
                if left[0] not in base.declared:
                    _check_undeclared(left[0], base, other)

    def _cover(self) -> list[tuple[Mapping[str, Any], list[str]]]:
        """Network after network, the one that adds the most."""
        networks = list(self._seen.values())
        full = [
            {w.key for w in n.weights.values() if math.prod(w.shape) == self.weights[w.key].most}
            for n in networks
        ]
        found: list[tuple[Mapping[str, Any], list[str]]] = []
        left = set(self.weights)
        while left:
            best = max(range(len(full)), key=lambda i: len(full[i] & left))
            found.append((networks[best].params, sorted(full[best] & left)))
            left -= full[best]
        return found

    def _options(self, name: str) -> list[Any]:
        return _tried(name, self._questions[name][0])


_WRITE = (
    "Declare the decision with a node: optnas.Choice(name, {candidate: space, ...}) for one of several, "
    "optnas.Repeat(name, space, low, high) for a depth."
)


def _check_undeclared(name: str, one: Skeleton, other: Skeleton) -> None:
    """What a plain function decides may change the sizes of weights, not which weights there are."""

    def kinds(found: Skeleton) -> dict[str, str]:
        return {w.key: w.kind for w in found.weights.values() if not w.optional}

    first, second = kinds(one), kinds(other)
    differ = sorted(key for key in {**first, **second} if first.get(key) != second.get(key))
    if differ:
        raise SpaceError(
            f"A plain function decides {name!r}, and its answers {one.params[name]!r} and "
            f"{other.params[name]!r} lead to networks with other weights (of {differ[0]!r}, for example, "
            f"{first.get(differ[0], 'nothing')} and {second.get(differ[0], 'nothing')}), so that nothing "
            f"says which weights the networks share. {_WRITE} [parameters: {one.params}]"
        )


def _tried(name: str, distribution: BaseDistribution) -> list[Any]:
    """The answers that are tried: of numbers the first, the middle and the last, else all."""
    if isinstance(distribution, FloatDistribution) and is_continuous(distribution):
        return [distribution.low, (distribution.low + distribution.high) / 2, distribution.high]
    found = options(name, distribution)
    if isinstance(distribution, CategoricalDistribution):
        return list(found)
    return [found[i] for i in sorted({0, len(found) // 2, len(found) - 1})]
