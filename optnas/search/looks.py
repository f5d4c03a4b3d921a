"""What can be seen of candidates on the meta device, each of them looked at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from torch import nn

from optnas.answers import ParamsKey, params_key
from optnas.errors import ToldOnce, is_infrastructure
from optnas.facts.glance import settled
from optnas.facts.inputs import Example
from optnas.objective import Objective
from optnas.space.explore import on_meta
from optnas.trial import replay

logger = logging.getLogger(__name__)

_MOST_KNOWN = 4_000

T = TypeVar("T")


class Looks(Generic[T]):
    """Params to what is seen of their network; None where it cannot be built, or not be looked at.

    Args:
        look: from the network, on the meta device, and its example.
        lost: what cannot be had where a look fails, and what happens then; said once.
    """

    def __init__(self, objective: Objective, look: Callable[[nn.Module, Example], T], lost: str) -> None:
        self._objective, self._look, self._lost = objective, look, lost
        self._known: dict[ParamsKey, T | None] = {}
        self._tell = ToldOnce(logger)

    def __call__(self, params: Mapping[str, Any]) -> T | None:
        key = params_key(params)
        if key not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = self._seen(params)
        return self._known[key]

    def _seen(self, params: Mapping[str, Any]) -> T | None:
        try:
            example = self._objective.example_for(replay(params))
            model = settled(on_meta(lambda: self._objective.space(replay(params))), example)
        except Exception as error:  # the user's network cannot be built: its trial will say so
            if is_infrastructure(error):
                raise
            logger.debug("A network cannot be built, so that nothing is seen of it.", exc_info=error)
            return None
        try:
            return self._look(model, example)
        except Exception as error:  # of ours, or of a model that meta cannot run: told below
            if is_infrastructure(error):
                raise
            self._tell(error, self._lost)
            return None
