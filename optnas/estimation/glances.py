"""What candidates cost, while a sampler looks for the next trial."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import nn

from optnas.answers import ParamsKey, params_key
from optnas.errors import ToldOnce, is_infrastructure
from optnas.facts.fact import Fact
from optnas.facts.glance import glance
from optnas.limits import in_words
from optnas.space.explore import is_of_meta, on_meta
from optnas.trial import Space, replay

logger = logging.getLogger(__name__)

MOST_KNOWN = 20_000
"""The number of architectures whose costs are remembered."""

CHECKED = 3
"""For how many architectures the costs are also computed from a sketch, before glances are trusted."""

Costs = Mapping[str, float]


class Glances:
    """Maps params to the costs of their network, by `glance` as long as a sketch finds the same.

    A glance sees one pass in eval mode, and a sketch one in train mode. For the first architectures and for
    every trial both are computed. If they differ once, a warning says so, and from then on sketches give all
    costs.

    Args:
        facts: those that are wanted; all of them need the meta device only.
        sketched: params to the facts of a sketch.
    """

    def __init__(
        self,
        space: Space[nn.Module],
        example_for: Callable[[Any], Any],
        facts: Sequence[Fact],
        sketched: Callable[[Mapping[str, Any]], Costs],
    ) -> None:
        self._space, self._example_for = space, example_for
        self._facts = list(facts)
        self._sketched = sketched
        self._known: dict[ParamsKey, Costs] = {}
        self._asked: set[str] = set()  # by the space, and for the example
        self._example_asks: bool | None = None
        self._n_checked = 0
        self._trusted = True
        self._tell = ToldOnce(logger)

    def __call__(self, params: Mapping[str, Any]) -> Costs:
        """What cannot be had is left out."""
        if not self._facts:
            return {}
        if self._trusted and (known := self._known.get(self._key(params))) is not None:
            return known
        if not self._trusted:
            return self._only_wanted(self._sketched(params))
        try:
            found = self._glance(params)
        except Exception as error:
            if is_infrastructure(error):
                raise
            found = self._only_wanted(self._sketched(params))  # which knows more: it runs models on the CPU
            if found and not is_of_meta(error):
                self._tell(error, "A candidate can be sketched, but not looked at in a tenth of that time.")
            return found
        if self._n_checked < CHECKED:
            self._n_checked += 1
            found = self._checked(found, self._only_wanted(self._sketched(params)))
        return self._keep(params, found)

    def see(self, model: nn.Module, trial: Any) -> None:
        """Note the costs of a model that the space has just built, on the meta device, for this trial."""
        if not self._facts or not self._trusted or self._n_checked < CHECKED or self._example_asks:
            return
        self._asked |= trial.params.keys()
        if self._key(trial.params) not in self._known:
            with suppress(Exception):  # whoever asks for its costs will get the error
                self._keep(trial.params, glance(model, self._example_for(trial), self._facts))

    def check(self, params: Mapping[str, Any], facts: Costs) -> None:
        """Compare with the facts of a trial, where costs are in use."""
        if self._trusted and self._n_checked:
            self._checked(self(params), facts)

    def _glance(self, params: Mapping[str, Any]) -> Costs:
        trial = replay(params)
        example = self._example_for(trial)
        self._example_asks = bool(self._example_asks or trial.params)
        model = on_meta(lambda: self._space(trial))
        self._asked |= trial.params.keys()
        return glance(model, example, self._facts)

    def _checked(self, found: Costs, facts: Costs) -> Costs:
        for name in found.keys() & facts.keys() if self._trusted else ():
            if not math.isclose(found[name], facts[name], rel_tol=1e-9):
                self._trusted = False
                logger.warning(
                    "%s of a network is %s in a pass in eval mode, and %s in train mode. From now on that of "
                    "every candidate is computed in train mode, which takes ten times as long.",
                    name,
                    in_words(found[name]),
                    in_words(facts[name]),
                )
                break
        return found if self._trusted else facts

    def _only_wanted(self, facts: Costs) -> Costs:
        return {fact.name: facts[fact.name] for fact in self._facts if fact.name in facts}

    def _key(self, params: Mapping[str, Any]) -> ParamsKey:
        return params_key({name: value for name, value in params.items() if name in self._asked})

    def _keep(self, params: Mapping[str, Any], found: Costs) -> Costs:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[self._key(params)] = found
        return found
