"""What the networks of a space look like, for a surrogate that has only their answers otherwise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from optnas.answers import ParamsKey, keep_or_draw, params_key
from optnas.errors import ToldOnce, is_infrastructure
from optnas.facts.cost import count_params
from optnas.facts.flow import flow_of_new
from optnas.facts.inputs import Example
from optnas.facts.structure import described
from optnas.space.explore import is_of_meta, on_meta
from optnas.trial import Draw, Space, Trial

logger = logging.getLogger(__name__)

Params = Mapping[str, Any]

SHOWN = ("live", "least", "most", "without", "only")
"""What a surrogate is shown of `structure`. With the rest it predicts as well, and a search takes longer."""


class Structures:
    """The structure of the network that answers build; each network is looked at once.

    Args:
        space: Builds the networks.
        example: Of their inputs, or a function of a trial that returns one. It is taken once: how a network
            is put together hardly depends on the size of what it reads.
    """

    def __init__(self, space: Space[Any], example: Example | Callable[[Trial], Any]) -> None:
        self._space = space
        self._example = example
        self._inputs: Any = None
        self._known: dict[ParamsKey, Mapping[str, float]] = {}
        self._asked: set[str] = set()
        self.looking = False
        self._tell = ToldOnce(logger)

    def space(self, trial: Any) -> Any:
        """The space, for others that put questions; while `looking`, what it builds is looked at."""
        model = self._space(trial)
        self._asked |= trial.params.keys()
        if self.looking:
            self._look(model, trial)
        return model

    def knows(self, params: Params) -> bool:
        """Whether this network was looked at before."""
        return self._own(params) in self._known

    def _own(self, params: Params) -> ParamsKey:
        return params_key({name: value for name, value in params.items() if name in self._asked})

    def __call__(self, params: Params) -> Mapping[str, float]:
        """What is shown of the structure; nothing where the network cannot be built, or looked at."""
        own = self._own(params)
        if own not in self._known:
            answers = Draw(keep_or_draw(params, np.random.default_rng(0)))
            try:
                model = on_meta(lambda: self._space(answers))
            except Exception as error:
                if is_infrastructure(error):
                    raise
                return {}
            self._asked |= answers.params.keys()
            self._look(model, answers)
            own = params_key(answers.params)
        return self._known[own]

    def _look(self, model: Any, trial: Any) -> None:
        try:
            if self._inputs is None:
                self._inputs = self._example(trial) if callable(self._example) else self._example
            numbers = described(flow_of_new(model, self._inputs), count_params(model))
            seen = {name: number for name, number in numbers.items() if name.startswith(SHOWN)}
        except Exception as error:
            if is_infrastructure(error):
                raise
            if is_of_meta(error):  # it looks at values: its trial says so, in why it has no fingerprint
                logger.debug("The structure of a network cannot be seen.", exc_info=error)
            else:
                self._tell(error, "The structure of a network cannot be seen: its answers have to do.")
            seen = {}
        self._known[params_key(trial.params)] = seen
