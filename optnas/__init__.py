"""Neural architecture search with Optuna and PyTorch Lightning: a search space is a function of a trial.

Every public name is loaded on first use: `import optnas` imports neither torch nor Optuna nor PyTorch
Lightning.
"""

from typing import TYPE_CHECKING

from optnas._lazy import lazily

if TYPE_CHECKING:
    from optnas import analysis as analysis
    from optnas import benchmarks as benchmarks
    from optnas import data as data
    from optnas import devices as devices
    from optnas import drawing as drawing
    from optnas import errors as errors
    from optnas import facts as facts
    from optnas import hub as hub
    from optnas import launch as launch
    from optnas import plots as plots
    from optnas import progress as progress
    from optnas import record as record
    from optnas import search as search
    from optnas import sklearn as sklearn
    from optnas import space as space
    from optnas import storage as storage
    from optnas import strategy as strategy
    from optnas import surrogate as surrogate
    from optnas import tasks as tasks
    from optnas import testing as testing
    from optnas import training as training
    from optnas import trial as trial
    from optnas.analysis.compare import compare as compare
    from optnas.analysis.explain import explain as explain
    from optnas.analysis.importance import importance as importance
    from optnas.analysis.trust import rank_correlation as rank_correlation
    from optnas.benchmarks.tabular import Tabular as Tabular
    from optnas.data.digits import Digits as Digits
    from optnas.data.tensors import TensorData as TensorData
    from optnas.devices.timing import measure_latency as measure_latency
    from optnas.drawing.difference import draw_difference as draw_difference
    from optnas.drawing.draw import draw as draw
    from optnas.drawing.draw_cell import draw_cell as draw_cell
    from optnas.errors import ParamsMismatchError as ParamsMismatchError
    from optnas.estimation.estimator import Estimator as Estimator
    from optnas.estimation.run import Run as Run
    from optnas.estimation.screen import Screen as Screen
    from optnas.estimation.screening import Screening as Screening
    from optnas.export import to_onnx as to_onnx
    from optnas.export import to_torch_export as to_torch_export
    from optnas.facts.cost import count_flops as count_flops
    from optnas.facts.cost import count_params as count_params
    from optnas.facts.fact import Fact as Fact
    from optnas.facts.inputs import Arguments as Arguments
    from optnas.facts.sketch import fingerprint as fingerprint
    from optnas.launch.ray_workers import RayWorkers as RayWorkers
    from optnas.launch.slurm_workers import SlurmWorkers as SlurmWorkers
    from optnas.objective import Objective as Objective
    from optnas.reports.report import report as report
    from optnas.search.best import best as best
    from optnas.search.copying import copy_study as copy_study
    from optnas.search.extend import extend as extend
    from optnas.search.front import front as front
    from optnas.search.front import knee as knee
    from optnas.search.front import pick as pick
    from optnas.search.optimize import optimize as optimize
    from optnas.search.study import create_study as create_study
    from optnas.search.warm_start import warm_start as warm_start
    from optnas.space import blocks as blocks
    from optnas.space.explore import enumerate_params as enumerate_params
    from optnas.space.explore import neighbors as neighbors
    from optnas.space.explore import sample as sample
    from optnas.space.nodes import Chain as Chain
    from optnas.space.nodes import Choice as Choice
    from optnas.space.nodes import Repeat as Repeat
    from optnas.space.nodes import count as count
    from optnas.storage.open import open_storage as open_storage
    from optnas.strategy.cmaes import MixedCmaEsSampler as MixedCmaEsSampler
    from optnas.strategy.distinct import DistinctSampler as DistinctSampler
    from optnas.strategy.evolution import RegularizedEvolutionSampler as RegularizedEvolutionSampler
    from optnas.strategy.halving import HalvingPruner as HalvingPruner
    from optnas.strategy.local_search import LocalSearchSampler as LocalSearchSampler
    from optnas.strategy.padded import PaddedSampler as PaddedSampler
    from optnas.strategy.predictor import PredictorSampler as PredictorSampler
    from optnas.strategy.reinforce import ReinforceSampler as ReinforceSampler
    from optnas.supernet.darts import Darts as Darts
    from optnas.supernet.fine_tuning import FineTuning as FineTuning
    from optnas.supernet.mixture import Mixture as Mixture
    from optnas.supernet.paths import Fair as Fair
    from optnas.supernet.paths import Sandwich as Sandwich
    from optnas.supernet.paths import SinglePath as SinglePath
    from optnas.supernet.supernet import Supernet as Supernet
    from optnas.supernet.validation import Validation as Validation
    from optnas.tasks.classification import Classification as Classification
    from optnas.tasks.regression import Regression as Regression
    from optnas.training.cross_validation import CrossValidation as CrossValidation
    from optnas.training.training import Training as Training
    from optnas.trial import Draw as Draw
    from optnas.trial import Trial as Trial
    from optnas.trial import scope as scope

__getattr__, __dir__, __all__ = lazily(__name__)
