import logging

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from optnas.benchmarks import synthetic
from optnas.record import CMA
from optnas.strategy.cmaes import MixedCmaEsSampler

MIXED = {
    "x": FloatDistribution(-5, 5),
    "lr": FloatDistribution(1e-5, 1, log=True),
    "n": IntDistribution(0, 20),
    "wide": IntDistribution(1, 10_000, log=True),
    "step": FloatDistribution(0, 1, step=0.1),
    "op": CategoricalDistribution(("a", "b", "c")),
    "flag": CategoricalDistribution((True, False)),
    "bit": IntDistribution(0, 1),
    "only": IntDistribution(4, 4),
}


def mixed(trial):
    """Zero at x=2, lr=1e-2, n=13, wide=100, step=0.3, op=b, flag=True, bit=1."""
    value = 0.1 * (trial.suggest_float("x", -5, 5) - 2) ** 2
    value += np.log10(trial.suggest_float("lr", 1e-5, 1, log=True) / 1e-2) ** 2
    value += 0.02 * (trial.suggest_int("n", 0, 20) - 13) ** 2
    value += np.log10(trial.suggest_int("wide", 1, 10_000, log=True) / 100) ** 2
    value += 2 * (trial.suggest_float("step", 0, 1, step=0.1) - 0.3) ** 2
    value += trial.suggest_categorical("op", ["a", "b", "c"]) != "b"
    value += 0.5 * (not trial.suggest_categorical("flag", [True, False]))
    value += 0.5 * (trial.suggest_int("bit", 0, 1) == 0) + trial.suggest_int("only", 4, 4) - 4
    return float(value)


def run(sampler, n_trials, objective=mixed, study=None):
    study = study or optuna.create_study()
    study.sampler = sampler
    study.optimize(objective, n_trials=n_trials)
    return study


def test_finds_the_optimum_of_floats_integers_and_categories_together() -> None:
    best = run(MixedCmaEsSampler(MIXED, seed=0), 500).best_trial
    assert best.value < 0.02
    assert (best.params["op"], best.params["flag"], best.params["bit"]) == ("b", True, 1)
    assert run(RandomSampler(seed=0), 500).best_value > 0.3


def test_what_a_trial_was_told_is_what_it_got() -> None:
    sampler = MixedCmaEsSampler(MIXED, seed=1)
    study = optuna.create_study()
    study.enqueue_trial({"x": -1.25, "n": 7, "op": "c", "flag": False})
    run(sampler, 40, study=study)
    assert study.trials[0].params["x"] == -1.25
    for trial in study.trials:
        decoded = sampler._code.decode(sampler._code.encode(trial))
        got = {name: trial.params[name] for name in decoded}
        assert decoded == pytest.approx(got)
        assert [type(v) for v in decoded.values()] == [type(v) for v in got.values()]


def test_pruned_and_infeasible_trials_rank_last() -> None:
    def objective(trial):
        value = mixed(trial)
        if trial.params["op"] == "a":
            raise optuna.TrialPruned
        trial.set_constraint("b is forbidden", float(trial.params["op"] == "b"))
        return value

    late = run(MixedCmaEsSampler(MIXED, seed=2), 150, objective).trials[100:]
    assert sum(trial.params["op"] == "c" for trial in late) > 40


def test_a_generation_is_settled_by_the_first_trials_that_end() -> None:
    study = optuna.create_study(sampler=MixedCmaEsSampler(MIXED, population_size=5, seed=3))
    slow = study.ask()
    value = mixed(slow)
    run(study.sampler, 12, study=study)
    before = [CMA.of(t)["generation"] for t in study.trials]
    assert before == [0] * 6 + [1] * 5 + [2] * 2
    next_without = study.ask()
    mixed(next_without)
    study.tell(slow, value)
    rebuilt = MixedCmaEsSampler(MIXED, population_size=5, seed=3)
    study.tell(next_without, state=optuna.trial.TrialState.FAIL)
    told = rebuilt._optimizer(study)
    assert told.generation == 2
    np.testing.assert_array_equal(told._mean, study.sampler._optimizer(study)._mean)


def test_a_question_it_does_not_know_is_answered_at_random_with_one_warning(caplog) -> None:
    optuna.logging.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING, logger="optuna"):
            run(MixedCmaEsSampler({"x": FloatDistribution(-5, 5)}, seed=0), 20)
    finally:
        optuna.logging.disable_propagation()
    warned = [r.message for r in caplog.records if "does not know 'op'" in r.message]
    assert len(warned) == 1


def test_beats_random_on_a_conditional_space() -> None:
    for seed in range(3):
        ours = run(MixedCmaEsSampler(synthetic.SLOTS, seed=seed), 150, synthetic.loss).best_value
        assert ours < run(RandomSampler(seed=seed), 150, synthetic.loss).best_value - 0.5


def test_nothing_to_decide_is_refused() -> None:
    with pytest.raises(ValueError, match="more than one answer"):
        MixedCmaEsSampler({"only": IntDistribution(4, 4)})
