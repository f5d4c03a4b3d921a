import optuna
import pytest
from optuna.samplers import CmaEsSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

from optnas.errors import SpaceExhausted
from optnas.limits import Limit, Within
from optnas.record import PLAN
from optnas.space import enumerate_params
from optnas.strategy.cmaes import MixedCmaEsSampler
from optnas.strategy.distinct import DistinctSampler
from optnas.strategy.evolution import RegularizedEvolutionSampler
from optnas.strategy.limited import LimitedSampler
from optnas.strategy.local_search import LocalSearchSampler
from optnas.strategy.padded import PaddedSampler
from optnas.strategy.predictor import PredictorSampler
from optnas.strategy.reinforce import ReinforceSampler
from optnas.strategy.seeded import SeededSampler
from optnas.testing.samplers import check_sampler, conditional

WIDTHS = (1, 2, 4, 8)


def space(trial):
    """Up to four layers of four widths."""
    return [trial.suggest_categorical(f"width.{i}", WIDTHS) for i in range(trial.suggest_int("depth", 1, 4))]


def cost(params):
    return {"cost": sum(value**2 for name, value in params.items() if name != "depth")}


def score(trial):
    """Wants it wide and deep, so that the limit is what holds it."""
    return sum(width**0.5 for width in space(trial)) + 0.1 * trial.params["depth"]


ALL = [dict(params) for params in enumerate_params(space)]
HIGH = 21
FEASIBLE = [params for params in ALL if cost(params)["cost"] <= HIGH]


def within(high=HIGH):
    return Within(cost, [Limit("cost", high=high)])


def told(sampler):
    """As `create_study` does."""
    sampler.within = within()
    return sampler


def make_tpe(seed):
    return TPESampler(seed=seed)


MAKE = {
    "random": lambda: RandomSampler(seed=0),
    "tpe": lambda: SeededSampler(make_tpe, 0),
    "group": lambda: TPESampler(seed=0, multivariate=True, group=True),
    "cmaes": lambda: CmaEsSampler(seed=0, warn_independent_sampling=False),
    "nsga2": lambda: NSGAIISampler(population_size=10, seed=0),
    "qmc": lambda: QMCSampler(seed=0, warn_independent_sampling=False, warn_asynchronous_seeding=False),
    "gp": lambda: GPSampler(seed=0, n_startup_trials=23),
    "evolution": lambda: RegularizedEvolutionSampler(10, 3, seed=0),
    "local-search": lambda: LocalSearchSampler(seed=0),
    "mixed-cmaes": lambda: MixedCmaEsSampler(space, seed=0),
    "reinforce": lambda: ReinforceSampler(seed=0),
    "predictor": lambda: told(PredictorSampler(space, seed=0)),
    "padded": lambda: PaddedSampler(TPESampler(seed=0), space),
}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_no_sampler_proposes_what_breaks_a_limit(make):
    assert len(FEASIBLE) < len(ALL) / 5
    sampler = LimitedSampler(make(), space, within(), seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(score, n_trials=25)
    assert all(trial.params in FEASIBLE for trial in study.trials)
    assert all(PLAN.of(trial)["params"] == trial.params for trial in study.trials)


@pytest.mark.parametrize("name", ["random", "predictor", "evolution", "local-search"])
def test_under_the_wrapper_against_repeats_neither_is_proposed_until_all_are_known(name):
    inner = LimitedSampler(MAKE[name](), space, within(), seed=0)
    sampler = DistinctSampler(inner, space, within=within(), seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(score, n_trials=len(FEASIBLE))
    assert sorted(map(str, FEASIBLE)) == sorted(str(trial.params) for trial in study.trials)
    with pytest.raises(SpaceExhausted, match="none within the limits was found"):
        study.optimize(score, n_trials=1)


def test_random_draws_within_limits_are_as_likely_as_without():
    """Rejection keeps the distribution; only changing decisions one by one would not."""
    sampler = LimitedSampler(RandomSampler(seed=0), space, within(100), seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(score, n_trials=600)
    assert {PLAN.of(trial)["how"] for trial in study.trials} == {"drawn", "redrawn"}
    shallow = sum(trial.params["depth"] == 1 for trial in study.trials) / len(study.trials)
    # A depth is drawn with probability 1/4, and then this share of its networks is within the limit.
    share = {d: sum(cost(p)["cost"] <= 100 for p in ALL if p["depth"] == d) / 4**d for d in (1, 2, 3, 4)}
    assert shallow == pytest.approx(share[1] / sum(share.values()), abs=0.05)


def test_a_limit_that_one_network_in_thousands_keeps_is_kept():
    def wide(trial):
        return [trial.suggest_int(f"width.{i}", 1, 100) for i in range(6)]

    def narrow(params):
        return {"cost": sum(params.values())}

    limit = Within(narrow, [Limit("cost", high=20)])
    study = optuna.create_study(sampler=LimitedSampler(RandomSampler(seed=0), wide, limit, seed=0))
    study.optimize(lambda trial: sum(wide(trial)), n_trials=10)
    assert all(trial.value <= 20 for trial in study.trials)


def test_what_nothing_keeps_ends_with_the_limit_and_the_smallest_seen():
    study = optuna.create_study(sampler=LimitedSampler(RandomSampler(seed=0), space, within(0.5), seed=0))
    with pytest.raises(SpaceExhausted, match=r"cost <= 0\.5 \(the smallest seen is 1\)"):
        study.optimize(score, n_trials=1)


def test_enqueued_answers_are_kept_and_completed_within_the_limit():
    study = optuna.create_study(sampler=LimitedSampler(RandomSampler(seed=0), space, within(), seed=0))
    study.enqueue_trial({"depth": 4, "width.0": 8, "width.1": 8, "width.2": 8, "width.3": 8})
    for _ in range(5):
        study.enqueue_trial({"depth": 3})
    study.optimize(score, n_trials=6)
    assert study.trials[0].params["width.3"] == 8
    for trial in study.trials[1:]:
        assert trial.params["depth"] == 3
        assert cost(trial.params)["cost"] <= HIGH


def nothing(params):
    return {}


def test_conforms():
    everything = Within(nothing, [Limit("cost", high=1)])
    check_sampler(
        lambda seed: LimitedSampler(
            RegularizedEvolutionSampler(8, 3, seed=seed), conditional, everything, seed=seed
        )
    )
