from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from optnas.analysis.worth import decision_worth, prediction_quality

EFFECT = {"conv": 0.3, "pool": 0.1, "skip": 0.0}


def objective(trial: optuna.Trial) -> float:
    """Known everywhere: a.op counts, b.op counts half; with a third block where `more` says so; no noise."""
    value = EFFECT[trial.suggest_categorical("a.op", list(EFFECT))]
    value += EFFECT[trial.suggest_categorical("b.op", list(EFFECT))] / 2
    if trial.suggest_categorical("more", [False, True]):
        value += 0.2 + EFFECT[trial.suggest_categorical("c.op", list(EFFECT))] / 4
    trial.suggest_float("lr", 1e-3, 1e-1, log=True)
    return value


def study_of(objective: Callable[[optuna.Trial], float], direction: str, n_trials: int = 60) -> optuna.Study:
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=n_trials)
    return study


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_predicted_changes_are_near_the_true_ones(direction: str) -> None:
    sign = 1 if direction == "maximize" else -1
    study = study_of(lambda trial: sign * objective(trial), direction)
    worth = {w.name: w for w in decision_worth(study, study.best_trial)}
    truth = {  # what every other answer changes, best first
        "a.op": [-0.2, -0.3],
        "b.op": [-0.1, -0.15],
        "c.op": [-0.05, -0.075],
        "more": [-0.275],
    }
    for name, changes in truth.items():
        found = [sign * a.predicted for a in worth[name].alternatives]
        assert found == pytest.approx(changes, abs=0.06)
        assert worth[name].loss == pytest.approx(-changes[0], abs=0.06)
        assert all(a.deviation >= 0 and 0 <= a.better <= 1 for a in worth[name].alternatives)
    assert max(a.better for a in worth["a.op"].alternatives) < 0.05
    assert abs(worth["lr"].loss) < 0.05
    losses = [w.loss for w in decision_worth(study, study.best_trial)]
    assert losses == sorted(losses, reverse=True)


def test_seen_trials_differ_in_one_decision_only() -> None:
    def discrete(trial: optuna.Trial) -> float:
        value = EFFECT[trial.suggest_categorical("a.op", list(EFFECT))]
        if trial.suggest_categorical("more", [False, True]):
            value += EFFECT[trial.suggest_categorical("c.op", list(EFFECT))] / 4
        return value

    study = study_of(discrete, "maximize")
    worth = {w.name: w for w in decision_worth(study, study.best_trial)}
    assert [a.seen for a in worth["a.op"].alternatives] == pytest.approx([-0.2, -0.3])
    # Without the block its op is not asked: still one decision, and what depends on it.
    (without,) = worth["more"].alternatives
    assert without.seen == pytest.approx(-0.075)
    assert without.trial is not None
    assert study.trials[without.trial].params == {"a.op": "conv", "more": False}


def test_nothing_seen_where_something_else_differs() -> None:
    study = study_of(objective, "maximize")  # no two trials share lr
    assert all(a.seen is None for w in decision_worth(study, study.best_trial) for a in w.alternatives)


def test_quality_is_near_perfect_without_noise_and_near_nothing_with_noise_only() -> None:
    assert "guesses" not in prediction_quality(study_of(objective, "maximize"))
    rng = np.random.default_rng(0)
    noise = study_of(lambda trial: objective(trial) * 0 + rng.normal(), "maximize")
    assert "guesses" in prediction_quality(noise)
    assert "rest on 8 trials" in prediction_quality(study_of(objective, "maximize", n_trials=8))


def test_a_decision_without_another_answer_is_left_out() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: t.suggest_categorical("one", [1]) * t.suggest_float("x", 0, 1), n_trials=5)
    assert study.trials[0].distributions["one"] == CategoricalDistribution((1,))
    assert [w.name for w in decision_worth(study, study.best_trial)] == ["x"]
