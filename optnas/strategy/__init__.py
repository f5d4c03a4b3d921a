"""Who answers: samplers of our own, and wrappers that make any sampler serve architecture search.

Names are loaded on first use: most searches need one strategy, and not what the others import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optnas.strategy.base import TrialSampler as TrialSampler
    from optnas.strategy.cmaes import MixedCmaEsSampler as MixedCmaEsSampler
    from optnas.strategy.distinct import DistinctSampler as DistinctSampler
    from optnas.strategy.distinct import SpaceExhausted as SpaceExhausted
    from optnas.strategy.evolution import RegularizedEvolutionSampler as RegularizedEvolutionSampler
    from optnas.strategy.local_search import LocalSearchSampler as LocalSearchSampler
    from optnas.strategy.padded import PaddedSampler as PaddedSampler
    from optnas.strategy.padded import slots as slots
    from optnas.strategy.predictor import PredictorSampler as PredictorSampler
    from optnas.strategy.reinforce import ReinforceSampler as ReinforceSampler
    from optnas.strategy.seeded import SeededSampler as SeededSampler

_NAMES = {
    "base": ("TrialSampler",),
    "cmaes": ("MixedCmaEsSampler",),
    "distinct": ("DistinctSampler", "SpaceExhausted"),
    "evolution": ("RegularizedEvolutionSampler",),
    "local_search": ("LocalSearchSampler",),
    "padded": ("PaddedSampler", "slots"),
    "predictor": ("PredictorSampler",),
    "reinforce": ("ReinforceSampler",),
    "seeded": ("SeededSampler",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'optnas.strategy' has no attribute {name!r}")
    return getattr(import_module(f"optnas.strategy.{_HOMES[name]}"), name)
