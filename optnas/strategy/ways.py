"""Ways to a set of answers that a trial may have, where what a sampler drew may not be."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from optnas.answers import draw, is_continuous, keep_or_draw, mutate, others
from optnas.limits import Within
from optnas.space.explore import enumerate_params, walk
from optnas.trial import Draw, Space

Params = Mapping[str, Any]

RANDOM_TRIES = 50
STEPS = 300
MOST_COMPUTED = 1000


class Ways:
    """Candidates for one trial, made without its sampler; whoever asks takes the first that will do.

    Args:
        space: Asks everything that a plan shall have.
        fixed: Answers that no candidate may change.
        rng: Draws everything that is drawn.
        within: Of a study with limits: only what keeps them is a candidate.
    """

    def __init__(
        self, space: Space[Any], fixed: Params, rng: np.random.Generator, within: Within | None = None
    ) -> None:
        self._space = space
        self._fixed = fixed
        self._rng = rng
        self._within = within

    def all(self, drawn: Draw) -> Iterator[tuple[Params, str]]:
        """Candidates and how they came about, those first that are nearest to what was drawn."""
        if self._within is None:
            ways: list[tuple[Iterator[Params], str]] = [
                (self._neighbors(drawn), "neighbor"),
                (self._random(), "random"),
                (self._rest(), "random"),
            ]
        else:
            ways = [
                (filter(self._within, self._neighbors(drawn)), "neighbor"),
                (self._toward(drawn, self._within), "neighbor"),
                (filter(self._within, self._random()), "random"),
                (filter(self._within, itertools.islice(self._rest(), MOST_COMPUTED)), "random"),
            ]
        for candidates, how in ways:
            for params in candidates:
                yield params, how

    def _neighbors(self, drawn: Draw) -> Iterator[Params]:
        """One decision changed to each of its other answers, all in random order."""
        names = self._free(drawn)
        for i in self._rng.permutation(len(names)):
            name, distribution = names[i], drawn.distributions[names[i]]
            if is_continuous(distribution):
                changes = [draw(distribution, self._rng)]
            else:
                changes = others(name, distribution, drawn.params[name])
            for j in self._rng.permutation(len(changes)):
                yield self._kept({**drawn.params, name: changes[j]}).params

    def _toward(self, drawn: Draw, within: Within) -> Iterator[Params]:
        """What comes of changing decisions at random where no limit is then broken by more than before."""
        violation = max(0.0, within.violation(drawn.params))
        for _ in range(STEPS):
            names = [name for name in self._free(drawn) if not drawn.distributions[name].single()]
            if not names:
                return
            name = names[self._rng.integers(len(names))]
            other = mutate(drawn.distributions[name], drawn.params[name], self._rng)
            changed = self._kept({**drawn.params, name: other})
            after = max(0.0, within.violation(changed.params))
            if after <= violation:
                drawn, violation = changed, after
                if violation == 0:
                    yield drawn.params

    def _random(self) -> Iterator[Params]:
        for _ in range(RANDOM_TRIES):
            yield self._kept({}).params

    def _rest(self) -> Iterator[Params]:
        """When so many random draws found nothing, the space is nearly exhausted: take it in order."""
        if self._fixed:
            return
        try:
            yield from enumerate_params(self._space)
        except ValueError:  # continuous: it has more, although few draws get there
            for _ in range(100):
                yield from self._random()
            raise

    def _free(self, drawn: Draw) -> list[str]:
        return [name for name in drawn.params if name not in self._fixed]

    def _kept(self, params: Params) -> Draw:
        asked = Draw(keep_or_draw({**params, **self._fixed}, self._rng))
        walk(self._space, asked)
        return asked
