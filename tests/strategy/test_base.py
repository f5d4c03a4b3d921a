"""What holds for every sampler of ours but the predictor, which has its own file."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import NSGAIISampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, SingleOnlySamplerTestCase

from optnas.strategy.base import hashable
from optnas.strategy.cmaes import MixedCmaEsSampler
from optnas.strategy.distinct import DistinctSampler
from optnas.strategy.evolution import RegularizedEvolutionSampler
from optnas.strategy.local_search import LocalSearchSampler
from optnas.strategy.padded import PaddedSampler
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
every_sampler = pytest.mark.parametrize("make", OURS.values(), ids=OURS.keys())


@every_sampler
def test_conforms(make) -> None:
    check_sampler(make)


class TestOptunasOwn(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture(params=OURS.values(), ids=OURS.keys())
    def sampler(self, request):
        return lambda: request.param(0)


@every_sampler
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
    message = rf"{type(make(0)).__name__} searches for one value.*has 2.*NSGAIISampler.*set_constraint"
    with pytest.raises(ValueError, match=message):
        study.optimize(objective, n_trials=1)
    study.sampler = wrap(NSGAIISampler(seed=0))  # the way out
    study.optimize(objective, n_trials=2)
    assert len(study.best_trials) > 0


def test_equal_answers_have_equal_keys() -> None:
    assert hashable({"a": 1, "b": 2}) == hashable({"b": 2, "a": 1})
    assert len({hashable({"a": value}) for value in (1, 1.0, True, "1", None)}) == 5
