import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from torch import nn

from optnas.benchmarks import synthetic
from optnas.record import PADDED
from optnas.space.nodes import Chain, Choice, Repeat
from optnas.strategy.padded import PaddedSampler, slots
from optnas.strategy.seeded import SeededSampler
from optnas.testing.samplers import check_sampler, conditional

CONDITIONAL = {
    "depth": IntDistribution(1, 3),
    **{f"layer.{i}.op": CategoricalDistribution(("conv", "pool", "skip")) for i in range(3)},
    **{f"layer.{i}.width": IntDistribution(8, 64, step=8) for i in range(3)},
    "dropout": FloatDistribution(0.0, 0.9),
}


def conv(trial):
    return nn.Conv1d(4, 4, trial.suggest_categorical("kernel", [1, 3]), padding="same")


def skip(trial):
    return nn.Identity()


def gated(trial):
    if trial.suggest_categorical("gate", [True, False]):
        trial.suggest_int("width", 8, 32, step=8)
    return nn.Identity()


NODES = Chain(stem=gated, body=Repeat("block", Choice("op", {"conv": conv, "skip": skip}), 0, 2))


def test_slots_of_nodes_and_of_a_plain_function_are_the_same() -> None:
    def plain(trial):
        return NODES(trial)

    found = slots(NODES)
    assert found == slots(plain)
    assert set(found) == {
        "stem.gate",
        "stem.width",
        "body.block.depth",
        *(f"body.block.{i}.op" for i in range(2)),
        *(f"body.block.{i}.op.conv.kernel" for i in range(2)),
    }
    assert found["body.block.depth"] == IntDistribution(0, 2)


def test_what_cannot_be_known_exactly_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"'loss' exactly: Parameter 'dropout' is continuous.*by hand"):
        slots(synthetic.loss)
    with pytest.raises(ValueError, match=r"more than 5 architectures.*by hand"):
        slots(lambda trial: trial.suggest_int("n", 0, 9), limit=5)

    def dynamic(trial):
        trial.suggest_int("b", 0, trial.suggest_int("a", 1, 3))

    with pytest.raises(ValueError, match=r"asks 'b' from IntDistribution.*by hand"):
        slots(dynamic)


def run(sampler, n_trials, objective=conditional):
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    return study


def test_trials_keep_only_what_was_asked_and_the_rest_is_stored_aside() -> None:
    plain = run(RandomSampler(seed=0), 30)
    padded = run(PaddedSampler(RandomSampler(seed=1), CONDITIONAL), 30)
    assert {frozenset(t.params) for t in padded.trials} <= {frozenset(t.params) for t in plain.trials} | {
        frozenset(t.params) for t in run(RandomSampler(seed=2), 300).trials
    }
    for trial in padded.trials:
        stored = PADDED.of(trial)
        assert stored.keys() == CONDITIONAL.keys()
        assert trial.params == {name: stored[name] for name in trial.params}


class Spy(NSGAIISampler):
    """Counts what it has to answer one by one after its first generation."""

    one_by_one = 0

    def sample_independent(self, study, trial, param_name, param_distribution):
        self.one_by_one += trial.number >= 20
        return super().sample_independent(study, trial, param_name, param_distribution)


def test_a_relative_sampler_answers_everything_jointly() -> None:
    spy = Spy(population_size=10, seed=0, mutation_prob=0.0)
    run(spy, 60)
    assert spy.one_by_one > 50
    spy = Spy(population_size=10, seed=0, mutation_prob=0.0)
    run(PaddedSampler(spy, CONDITIONAL), 60)
    assert spy.one_by_one == 0


def test_the_inner_sampler_sees_all_slots_in_foreign_trials_too() -> None:
    study = run(RandomSampler(seed=0), 10)
    sampler = PaddedSampler(RandomSampler(seed=1), CONDITIONAL)
    first = sampler.padded_trials(study, states=None)
    assert all(set(trial.params) == set(trial.distributions) == set(CONDITIONAL) for trial in first)
    again = PaddedSampler(RandomSampler(seed=2), CONDITIONAL).padded_trials(study, states=None)
    assert [t.params for t in first] == [t.params for t in again]
    for padded, real in zip(first, study.trials, strict=True):
        assert padded.params | real.params == padded.params
        assert padded.value == real.value
    assert all(set(trial.params) < set(CONDITIONAL) for trial in study.trials if trial.params["depth"] < 3)


def test_questions_beyond_the_slots_go_to_the_inner_sampler() -> None:
    def objective(trial):
        return conditional(trial) + (trial.suggest_float("lr", 0, 1) - 0.7) ** 2 * 10

    study = run(PaddedSampler(TPESampler(seed=0), CONDITIONAL), 60, objective)
    assert sum(abs(trial.params["lr"] - 0.7) < 0.2 for trial in study.trials[30:]) > 20  # 12 by chance
    assert all("lr" not in PADDED.of(trial) for trial in study.trials)


def tpe(seed):
    return TPESampler(seed=seed, n_startup_trials=5)


def test_conforms() -> None:
    check_sampler(lambda seed: PaddedSampler(SeededSampler(tpe, seed), CONDITIONAL))


class TestOptunasOwn(BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: PaddedSampler(TPESampler(seed=0), {"unasked": IntDistribution(0, 3)})


def test_padding_helps_nsga2_on_a_conditional_space() -> None:
    padded = plain = 0.0
    for seed in range(2):
        nsga = NSGAIISampler(population_size=20, seed=seed)
        plain += run(nsga, 160, synthetic.loss).best_value
        nsga = NSGAIISampler(population_size=20, seed=seed)
        padded += run(PaddedSampler(nsga, synthetic.SLOTS), 160, synthetic.loss).best_value
    assert padded < plain - 0.5
