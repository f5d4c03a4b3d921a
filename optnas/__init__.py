"""Neural architecture search with Optuna and PyTorch Lightning: a search space is a function of a trial.

Every public name is loaded on first use (PEP 562): `import optnas` imports neither torch nor Optuna nor
PyTorch Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors read; tests/test_package.py keeps it equal to the tables
    from optnas import testing as testing
    from optnas.analysis import plots as plots
    from optnas.analysis.compare import compare as compare
    from optnas.analysis.explain import explain as explain
    from optnas.analysis.importance import importance as importance
    from optnas.analysis.report import report as report
    from optnas.data import Digits as Digits
    from optnas.data import TensorData as TensorData
    from optnas.estimation.tabular import Tabular as Tabular
    from optnas.estimation.training import Training as Training
    from optnas.export import to_onnx as to_onnx
    from optnas.export import to_torch_export as to_torch_export
    from optnas.facts.cost import count_flops as count_flops
    from optnas.facts.cost import count_params as count_params
    from optnas.facts.cost import measure_latency as measure_latency
    from optnas.facts.difference import draw_difference as draw_difference
    from optnas.facts.draw import draw as draw
    from optnas.facts.draw_cell import draw_cell as draw_cell
    from optnas.facts.sketch import fingerprint as fingerprint
    from optnas.objective import Objective as Objective
    from optnas.search.best import best as best
    from optnas.search.optimize import optimize as optimize
    from optnas.search.study import create_study as create_study
    from optnas.space import blocks as blocks
    from optnas.space.explore import count as count
    from optnas.space.explore import enumerate_params as enumerate_params
    from optnas.space.explore import neighbors as neighbors
    from optnas.space.explore import sample as sample
    from optnas.space.nodes import Chain as Chain
    from optnas.space.nodes import Choice as Choice
    from optnas.space.nodes import Repeat as Repeat
    from optnas.strategy.cmaes import MixedCmaEsSampler as MixedCmaEsSampler
    from optnas.strategy.distinct import DistinctSampler as DistinctSampler
    from optnas.strategy.evolution import RegularizedEvolutionSampler as RegularizedEvolutionSampler
    from optnas.strategy.local_search import LocalSearchSampler as LocalSearchSampler
    from optnas.strategy.padded import PaddedSampler as PaddedSampler
    from optnas.strategy.predictor import PredictorSampler as PredictorSampler
    from optnas.strategy.reinforce import ReinforceSampler as ReinforceSampler
    from optnas.tasks import Classification as Classification
    from optnas.tasks import Regression as Regression
    from optnas.trial import Draw as Draw
    from optnas.trial import ParamsMismatchError as ParamsMismatchError
    from optnas.trial import Trial as Trial
    from optnas.trial import scope as scope

_NAMES = {
    "optnas.analysis.compare": ("compare",),
    "optnas.analysis.explain": ("explain",),
    "optnas.analysis.importance": ("importance",),
    "optnas.analysis.report": ("report",),
    "optnas.data": ("Digits", "TensorData"),
    "optnas.estimation.tabular": ("Tabular",),
    "optnas.estimation.training": ("Training",),
    "optnas.export": ("to_onnx", "to_torch_export"),
    "optnas.facts.cost": ("count_flops", "count_params", "measure_latency"),
    "optnas.facts.draw": ("draw",),
    "optnas.facts.difference": ("draw_difference",),
    "optnas.facts.draw_cell": ("draw_cell",),
    "optnas.facts.sketch": ("fingerprint",),
    "optnas.objective": ("Objective",),
    "optnas.search.best": ("best",),
    "optnas.search.optimize": ("optimize",),
    "optnas.search.study": ("create_study",),
    "optnas.space.explore": ("count", "enumerate_params", "neighbors", "sample"),
    "optnas.space.nodes": ("Chain", "Choice", "Repeat"),
    "optnas.strategy.evolution": ("RegularizedEvolutionSampler",),
    "optnas.strategy.cmaes": ("MixedCmaEsSampler",),
    "optnas.strategy.local_search": ("LocalSearchSampler",),
    "optnas.strategy.predictor": ("PredictorSampler",),
    "optnas.strategy.reinforce": ("ReinforceSampler",),
    "optnas.strategy.distinct": ("DistinctSampler",),
    "optnas.strategy.padded": ("PaddedSampler",),
    "optnas.tasks": ("Classification", "Regression"),
    "optnas.trial": ("Draw", "ParamsMismatchError", "Trial", "scope"),
}
_SUBMODULES = {
    "blocks": "optnas.space.blocks",
    "plots": "optnas.analysis.plots",
    "testing": "optnas.testing",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted([*_HOMES, *_SUBMODULES])


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        value: Any = import_module(_SUBMODULES[name])
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'optnas' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
