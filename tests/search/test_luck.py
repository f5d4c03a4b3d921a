"""The best of many single trainings owes its place partly to luck."""

import math

import numpy as np
import optuna
import pytest
from torch import nn

from optnas import record
from optnas.estimation.estimator import Estimator
from optnas.objective import Objective
from optnas.search.best import best, final
from optnas.search.luck import FEWEST, leaders
from optnas.search.optimize import optimize
from optnas.search.study import create_study

NOISE = 3.0


class Noisy(Estimator):
    """Close to 60 is best; a training scatters by `noise`."""

    values = {"loss": "minimize"}  # noqa: RUF012  # read only

    def __init__(self, noise=NOISE, noisy=True):
        self.noise, self.noisy, self.n = noise, noisy, 0

    @property
    def is_noisy(self):
        return self.noisy

    def __call__(self, model, run):
        self.n += 1
        scatter = self.noise * np.random.default_rng(run.seed).standard_normal()
        return {"loss": abs(model.out_features - 60) / 4 + scatter}


def linear(trial):
    return nn.Linear(2, trial.suggest_int("width", 1, 100))


def searched(seed, n_trials=40, **options):
    objective = Objective(linear, Noisy(**options), example=(2, 2))
    random = lambda seed: optuna.samplers.RandomSampler(seed=seed)  # noqa: E731
    study = create_study(objective, sampler=random, seed=seed)
    optimize(study, objective, n_trials)
    return study, objective


def truth(trial):
    return abs(trial.params["width"] - 60) / 4


def test_what_is_expected_is_better_than_the_luckiest_and_less_optimistic():
    chosen, luckiest, expected, won = [], [], [], []
    for seed in range(4):
        study, objective = searched(seed)
        found = best(study, objective)
        chosen.append(truth(found.trial))
        luckiest.append(truth(study.best_trial))
        expected.append(found.expected - truth(found.trial))
        won.append(study.best_value - truth(study.best_trial))
        assert 0 < found.probability < 1
    assert np.mean(chosen) <= np.mean(luckiest)
    assert abs(np.mean(expected)) < 0.5 * abs(np.mean(won))


def test_probabilities_add_up_and_order_goes_by_what_is_expected():
    found = leaders(*searched(0))
    assert sum(leader.probability for leader in found) == pytest.approx(1)
    assert [leader.expected for leader in found] == sorted(leader.expected for leader in found)


@pytest.mark.parametrize("noise", [3.0, 1.0, 0.3])
def test_how_much_single_trainings_differ_is_told_and_no_other_is_better_by_more(noise):
    for seed in range(3):
        study, objective = searched(seed, noise=noise)
        found = best(study, objective)
        assert noise / 2 < found.scatter < 1.5 * noise
        assert found.near_best > 0.9
        others = [truth(leader.trial) for leader in leaders(study, objective)]
        assert truth(found.trial) - min(others) <= found.scatter


class Small(Estimator):
    """Eight decisions that matter as much, all together, as the luck of a training."""

    values = {"loss": "minimize"}  # noqa: RUF012  # read only

    def __call__(self, model, run):
        answers = run.study.get_trials(deepcopy=False)[run.number].params
        merit = sum(answers.values()) / np.sqrt(8 * 1.25)  # of variance 1
        return {"loss": merit + np.random.default_rng(run.seed).standard_normal()}


def test_of_few_trials_with_many_decisions_luck_is_not_taken_for_merit():
    def space(trial):
        return nn.Linear(2, 10 + sum(trial.suggest_int(f"d{i}", 0, 3) for i in range(8)))

    scatters = []
    for seed in range(8):
        objective = Objective(space, Small(), example=(2, 2))
        random = lambda seed: optuna.samplers.RandomSampler(seed=seed)  # noqa: E731
        study = create_study(objective, sampler=random, seed=seed)
        optimize(study, objective, 14)
        scatters.append(best(study, objective).scatter)
    assert 0.5 < np.exp(np.mean(np.log(scatters))) < 2  # 1


def test_what_is_worse_than_others_by_far_is_not_near_the_best():
    found = leaders(*searched(0, noise=1.0))
    worst = max(found, key=lambda leader: truth(leader.trial))
    assert truth(worst.trial) > 5
    assert worst.near_best == 0
    assert all(leader.near_best >= leader.probability for leader in found)


def test_without_noise_the_best_is_the_best():
    for options in ({"noise": 0.0}, {"noisy": False}):
        study, objective = searched(1, **options)
        assert best(study, objective).trial.number == study.best_trial.number
    assert best(study, objective).probability is None


def test_of_few_trials_nothing_is_known():
    study, objective = searched(0, n_trials=FEWEST - 1)
    found = best(study, objective)
    assert found.trial.number == study.best_trial.number
    assert (found.expected, found.probability) == (None, None)
    assert all(math.isnan(leader.probability) for leader in leaders(study, objective))


def test_a_final_takes_a_tenth_and_is_known_to_best():
    study, objective = searched(2)
    before, value = best(study, objective), study.best_value
    assert final(study, objective) == objective.estimator.n - 40 == 4
    runs = record.all_retrained(study)
    assert sum(len(kept["runs"]) for kept in runs) == 4
    assert len(runs) > 1
    after = best(study, objective)
    assert (after.expected, after.probability) != (before.expected, before.probability)
    assert study.best_value == value
    assert final(study, objective) == 0
    assert final(study, objective, finalists=7) == 3


def test_where_one_is_ahead_of_all_there_is_no_final():
    study, objective = searched(2, noise=0.0)
    assert final(study, objective) == 0
