import numpy as np
import optuna
import pytest

from optnas.benchmarks import synthetic
from optnas.record import CHANGED, PARENT
from optnas.strategy.evolution import RegularizedEvolutionSampler


def run(sampler, n_trials):
    study = optuna.create_study(sampler=sampler)
    study.optimize(synthetic.loss, n_trials=n_trials)
    return study


def test_a_child_differs_in_one_decision_and_in_what_depends_on_it() -> None:
    trials = run(RegularizedEvolutionSampler(10, 3, seed=0), 100).trials
    for child in trials[10:]:
        parent = trials[PARENT.of(child)]
        shared = parent.params.keys() & child.params.keys()
        differ = {name for name in shared if parent.params[name] != child.params[name]}
        assert differ == {CHANGED.of(child)}
        if CHANGED.of(child) in ("activation", "dropout", "weight_decay"):
            assert parent.params.keys() == child.params.keys()
    appeared = [t for t in trials[10:] if t.params.keys() - trials[PARENT.of(t)].params.keys()]
    assert len(appeared) > 5


def test_parents_are_young_and_win_tournaments() -> None:
    trials = run(RegularizedEvolutionSampler(10, 5, seed=1), 120).trials
    assert all(PARENT.of(trial) is None for trial in trials[:10])
    better = []
    for child in trials[10:]:
        living = trials[child.number - 10 : child.number]
        parent = trials[PARENT.of(child)]
        assert parent in living
        better.append(sum(t.value < parent.value for t in living))
    # The best of 5 of 10 drawn without replacement is on average the (11 / 6 - 1)th best.
    assert np.mean(better) == pytest.approx(11 / 6 - 1, abs=0.25)


def test_infeasible_and_pruned_trials_are_no_parents() -> None:
    def objective(trial):
        value = synthetic.loss(trial)
        trial.set_constraint("depth", trial.params["depth"] - 3.0)
        if trial.params["activation"] == "tanh":
            raise optuna.TrialPruned
        return value

    study = optuna.create_study(sampler=RegularizedEvolutionSampler(5, 2, seed=2))
    study.optimize(objective, n_trials=80)
    parents = {PARENT.of(t) for t in study.trials if PARENT.of(t) is not None}
    assert len(parents) > 5
    for number in parents:
        assert study.trials[number].params["depth"] <= 3
        assert study.trials[number].params["activation"] != "tanh"


def test_an_enqueued_decision_is_not_the_one_that_changes() -> None:
    study = run(RegularizedEvolutionSampler(5, 2, seed=3), 10)
    for _ in range(20):
        study.enqueue_trial({"depth": 1, "optimizer": "adam"})
    study.optimize(synthetic.loss, n_trials=20)
    for child in study.trials[10:]:
        assert child.params["depth"] == 1
        assert CHANGED.of(child) not in ("depth", "optimizer")


def test_beats_random_on_a_space_with_a_known_optimum() -> None:
    wins = 0
    for seed in range(3):
        ours = run(RegularizedEvolutionSampler(seed=seed), 150).best_value
        wins += ours < run(optuna.samplers.RandomSampler(seed=seed), 150).best_value - 0.5
    assert wins == 3


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"tournament_size": 30}, "tournament_size=30"), ({"crossover": 1.5}, "crossover=1.5")],
)
def test_impossible_settings_are_named(settings, name) -> None:
    with pytest.raises(ValueError, match=name):
        RegularizedEvolutionSampler(**settings)
