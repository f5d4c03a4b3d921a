"""What holds for every sampler of ours; the conformance of the predictor has its own file."""

from itertools import product

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from optnas.answers import key, params_key
from optnas.strategy.cmaes import MixedCmaEsSampler
from optnas.strategy.distinct import DistinctSampler
from optnas.strategy.evolution import RegularizedEvolutionSampler
from optnas.strategy.local_search import LocalSearchSampler
from optnas.strategy.padded import PaddedSampler
from optnas.strategy.predictor import PredictorSampler
from optnas.strategy.reinforce import ReinforceSampler
from optnas.testing.samplers import check_sampler, conditional

SLOTS = {
    "depth": IntDistribution(1, 3),
    **{f"layer.{i}.op": CategoricalDistribution(("conv", "pool", "skip")) for i in range(3)},
    **{f"layer.{i}.width": IntDistribution(8, 64, step=8) for i in range(3)},
    "dropout": FloatDistribution(0.0, 0.9),
}
OURS = {
    "evolution": lambda seed: RegularizedEvolutionSampler(10, 3, seed=seed),
    "crossover": lambda seed: RegularizedEvolutionSampler(10, 3, crossover=0.5, seed=seed),
    "local search": lambda seed: LocalSearchSampler(5, seed=seed),
    "mixed CMA-ES": lambda seed: MixedCmaEsSampler(SLOTS, population_size=6, seed=seed),
    "REINFORCE": lambda seed: ReinforceSampler(hidden=8, seed=seed),
}
SINGLE = ("mixed CMA-ES", "REINFORCE")  # search for one value
every_sampler = pytest.mark.parametrize("make", OURS.values(), ids=OURS.keys())


@every_sampler
def test_conforms(make) -> None:
    check_sampler(make)


class TestOptunasOwn(BasicSamplerTestCase):
    @pytest.fixture(params=OURS.values(), ids=OURS.keys())
    def sampler(self, request):
        return lambda: request.param(0)


class TestOptunasOwnOfOneObjective(SingleOnlySamplerTestCase):
    @pytest.fixture(params=SINGLE)
    def sampler(self, request):
        return lambda: OURS[request.param](0)


class TestOptunasOwnOfSeveralObjectives(MultiObjectiveSamplerTestCase):
    @pytest.fixture(params=[name for name in OURS if name not in SINGLE])
    def sampler(self, request):
        return lambda: OURS[request.param](0)


@pytest.mark.parametrize("make", [OURS[name] for name in SINGLE], ids=SINGLE)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda sampler: sampler,
        lambda sampler: DistinctSampler(sampler, conditional),
        lambda sampler: PaddedSampler(sampler, SLOTS),
    ],
    ids=["bare", "distinct", "padded"],
)
def test_several_objectives_are_refused_with_the_way_out(make, wrap) -> None:
    def objective(trial):
        return conditional(trial), 0.0

    study = optuna.create_study(directions=["minimize", "maximize"], sampler=wrap(make(0)))
    message = rf"{type(make(0)).__name__} searches for one value.*has 2.*RegularizedEvolutionSampler.*limits="
    with pytest.raises(ValueError, match=message):
        study.optimize(objective, n_trials=1)
    study.sampler = wrap(RegularizedEvolutionSampler(10, 3, seed=0))  # the way out
    study.optimize(objective, n_trials=2)
    assert len(study.best_trials) > 0


CONFUSED = {
    "flag": CategoricalDistribution((0, False)),
    "kind": CategoricalDistribution((1, 1.0, True, "1")),
    "rate": FloatDistribution(1.0, 1.0),
    "depth": IntDistribution(1, 1),
}
"""Choices that Python calls equal, and a float and an integer that have the value of some of them."""
EIGHT = [
    {"flag": flag, "kind": kind, "rate": 1.0, "depth": 1}
    for flag, kind in product(CONFUSED["flag"].choices, CONFUSED["kind"].choices)
]
WITH_PREDICTOR = {
    **OURS,
    "mixed CMA-ES": lambda seed: MixedCmaEsSampler(CONFUSED, population_size=6, seed=seed),
    "predictor": lambda seed: PredictorSampler(confused, seed=seed),
}


def confused(trial):
    trial.suggest_categorical("flag", CONFUSED["flag"].choices)
    trial.suggest_categorical("kind", CONFUSED["kind"].choices)
    trial.suggest_float("rate", 1.0, 1.0)
    trial.suggest_int("depth", 1, 1)


def study_of(params, sampler):
    """A study with one COMPLETE trial for each of `params`."""
    study = optuna.create_study(sampler=sampler)
    for value, answers in enumerate(params):
        study.add_trial(optuna.trial.create_trial(value=float(value), params=answers, distributions=CONFUSED))
    return study


def answers_to(study):
    """What a trial is answered. (Optuna stores the first choice that Python calls equal to it.)"""
    trial = study.ask()
    confused(trial)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return trial.params


@pytest.mark.parametrize("make", WITH_PREDICTOR.values(), ids=WITH_PREDICTOR.keys())
@pytest.mark.parametrize(
    "wrap",
    [lambda sampler: sampler, lambda sampler: PaddedSampler(sampler, CONFUSED)],
    ids=["bare", "padded"],
)
def test_choices_that_python_calls_equal_are_different_choices(make, wrap) -> None:
    study = study_of(3 * EIGHT, wrap(make(0)))
    given = [answers_to(study) for _ in range(60)]
    for name in ("flag", "kind"):
        assert {key(params[name]) for params in given} == set(map(key, CONFUSED[name].choices))


@pytest.mark.parametrize("make", WITH_PREDICTOR.values(), ids=WITH_PREDICTOR.keys())
@pytest.mark.parametrize("left", EIGHT, ids=repr)
def test_the_one_that_is_left_is_found_among_those_that_python_calls_equal(make, left) -> None:
    known = [params for params in EIGHT if params_key(params) != params_key(left)]
    study = study_of(known, DistinctSampler(make(1), confused, seed=2))
    assert params_key(answers_to(study)) == params_key(left)
