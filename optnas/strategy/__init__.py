"""Who answers: samplers of our own, and wrappers that make any sampler serve architecture search.

Names are loaded on first use: most searches need one strategy, and not what the others import.
"""

from typing import TYPE_CHECKING

from optnas._lazy import lazily

if TYPE_CHECKING:
    from optnas.errors import SpaceExhausted as SpaceExhausted
    from optnas.strategy.base import TrialSampler as TrialSampler
    from optnas.strategy.cmaes import MixedCmaEsSampler as MixedCmaEsSampler
    from optnas.strategy.distinct import DistinctSampler as DistinctSampler
    from optnas.strategy.evolution import RegularizedEvolutionSampler as RegularizedEvolutionSampler
    from optnas.strategy.front_pruner import FrontPruner as FrontPruner
    from optnas.strategy.halving import HalvingPruner as HalvingPruner
    from optnas.strategy.halving import PromotingPruner as PromotingPruner
    from optnas.strategy.limited import LimitedSampler as LimitedSampler
    from optnas.strategy.local_search import LocalSearchSampler as LocalSearchSampler
    from optnas.strategy.padded import PaddedSampler as PaddedSampler
    from optnas.strategy.padded import slots as slots
    from optnas.strategy.pausing import PausingFrontPruner as PausingFrontPruner
    from optnas.strategy.population import PopulationPruner as PopulationPruner
    from optnas.strategy.population import PopulationSampler as PopulationSampler
    from optnas.strategy.predictor import PredictorSampler as PredictorSampler
    from optnas.strategy.reinforce import ReinforceSampler as ReinforceSampler
    from optnas.strategy.screening import ScreeningPruner as ScreeningPruner
    from optnas.strategy.seeded import SeededSampler as SeededSampler

__getattr__, __dir__, __all__ = lazily(__name__)
