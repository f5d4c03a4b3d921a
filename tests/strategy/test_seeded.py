import optuna
import pytest
from optuna.samplers import GPSampler, NSGAIISampler, RandomSampler, TPESampler

from optnas.benchmarks import synthetic
from optnas.strategy.seeded import SeededSampler
from optnas.testing.samplers import check_sampler


def tpe(seed):
    return TPESampler(seed=seed, n_startup_trials=5)


def grouped_tpe(seed):
    return TPESampler(seed=seed, multivariate=True, group=True)


def nsga(seed):
    return NSGAIISampler(seed=seed, population_size=8)


def random(seed):
    return RandomSampler(seed=seed)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("make", [random, tpe, grouped_tpe, nsga])
def test_optunas_samplers_conform_once_seeded_by_trial(make) -> None:
    check_sampler(lambda seed: SeededSampler(make, seed))


def run(sampler, n_trials, study=None):
    study = study or optuna.create_study()
    study.sampler = sampler
    study.optimize(synthetic.loss, n_trials=n_trials)
    return study


def test_a_resumed_study_does_not_repeat_its_first_points() -> None:
    plain = run(RandomSampler(seed=0), 10, run(RandomSampler(seed=0), 10))
    assert [t.params for t in plain.trials[:10]] == [t.params for t in plain.trials[10:]]
    ours = run(SeededSampler(random, 0), 10, run(SeededSampler(random, 0), 10))
    assert len({tuple(t.params.items()) for t in ours.trials}) == 20
    assert [t.params for t in ours.trials] == [t.params for t in run(SeededSampler(random, 0), 20).trials]


def test_the_sampler_it_makes_learns() -> None:
    def objective(trial):
        return (trial.suggest_float("x", 0, 1) - 0.3) ** 2

    study = optuna.create_study(sampler=SeededSampler(tpe, 0))
    study.optimize(objective, n_trials=50)
    late = [trial.params["x"] for trial in study.trials[30:]]
    assert sum(abs(x - 0.3) < 0.1 for x in late) > 10  # 4 by chance


def test_a_wrong_argument_fails_at_once() -> None:
    with pytest.raises(TypeError, match="wrong"):
        SeededSampler(lambda seed: GPSampler(wrong=seed), 0)
