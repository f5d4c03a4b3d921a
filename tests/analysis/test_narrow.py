import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import RandomSampler
from optuna.trial import create_trial

from optnas.analysis.importance import importance
from optnas.analysis.narrow import Narrowed, as_params, negligible, smaller_space


def objective(trial: optuna.Trial) -> float:
    """Good: op near "conv", depth 3 and 4, lr near 1e-2 (to be maximized). Seed and act do nothing."""
    rng = np.random.default_rng(trial.number)
    value = {"conv": 1.0, "separable": 0.9, "skip": 0.0, "zero": -1.0}[
        trial.suggest_categorical("op", ["conv", "separable", "skip", "zero"])
    ]
    value += 0.4 * trial.suggest_int("depth", 1, 4)
    value -= (np.log10(trial.suggest_float("lr", 1e-4, 1e-1, log=True)) + 2) ** 2
    trial.suggest_categorical("act", ["relu", "gelu"])
    return float(value + rng.normal(0, 0.1))


@pytest.fixture(scope="module", params=["maximize", "minimize"])
def study(request: pytest.FixtureRequest) -> optuna.Study:
    sign = 1 if request.param == "maximize" else -1
    study = optuna.create_study(direction=request.param, sampler=RandomSampler(seed=0))
    study.optimize(lambda trial: sign * objective(trial), n_trials=200)
    return study


@pytest.fixture(scope="module")
def narrowed(study: optuna.Study) -> dict[str, Narrowed]:
    return {n.name: n for n in smaller_space(study, study.best_trial, importance(study, n_bootstrap=30))}


def test_what_does_nothing_is_fixed_at_the_best_trial_s_answer(
    study: optuna.Study, narrowed: dict[str, Narrowed]
) -> None:
    assert negligible(study, importance(study, n_bootstrap=30)) == ("act",)
    assert narrowed["act"].fixed
    assert narrowed["act"].choices == (study.best_trial.params["act"],)


def test_bad_answers_go_and_good_ones_stay(narrowed: dict[str, Narrowed]) -> None:
    assert narrowed["op"].choices is not None
    assert {"conv", "separable"} <= set(narrowed["op"].choices)
    assert "zero" not in narrowed["op"].choices
    assert "zero" in narrowed["op"].why


def test_numbers_keep_one_range_around_the_optimum(narrowed: dict[str, Narrowed]) -> None:
    lr = narrowed["lr"]
    assert lr.low is not None
    assert lr.high is not None
    assert 1e-4 < lr.low < 1e-2 < lr.high
    assert narrowed["depth"].high == 4


def test_fixed_answers_fit_optuna_s_sampler(study: optuna.Study, narrowed: dict[str, Narrowed]) -> None:
    fixed = as_params(list(narrowed.values()))
    assert fixed == {"act": study.best_trial.params["act"]}


def test_nothing_is_dropped_for_want_of_evidence() -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    study.optimize(lambda t: {"a": 0.0, "b": 9.0}[t.suggest_categorical("x", ["a", "b"])], n_trials=12)
    assert [t.params["x"] for t in study.trials].count("b") < 10
    assert smaller_space(study, study.best_trial, importance(study, n_bootstrap=10)) == ()


@pytest.mark.parametrize("brings", [False, True])
def test_a_branch_takes_more_evidence_than_a_plain_answer(brings: bool) -> None:
    """Answer a was always worse in its 20 trials. Where it brings questions, that is not enough."""

    def objective(trial: optuna.Trial) -> float:
        branch = trial.suggest_categorical("branch", ["a", "b"])
        if brings and branch == "a":
            trial.suggest_categorical("a.op", ["conv", "pool"])
        return (trial.number % 7) / 100 - (branch == "a")

    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=0))
    for i in range(100):
        study.enqueue_trial({"branch": "a" if i % 5 == 0 else "b"})
    study.optimize(objective, n_trials=100)
    found = {n.name: n for n in smaller_space(study, study.best_trial, importance(study, n_bootstrap=10))}
    if brings:
        assert "branch" not in found
    else:
        assert found["branch"].choices == ("b",)


def test_ranges_and_choices_are_those_of_all_trials() -> None:
    """Trials 0 to 59 ask for x within 0 to 1, and offer "bad" and True; the others, 0 to 9, and 1, too."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    rng = np.random.default_rng(0)
    for i in range(120):
        late = i >= 60
        x = FloatDistribution(0, 9 if late else 1)
        op = CategoricalDistribution(("bad", True, 1) if late else ("bad", True))
        params = {"x": rng.uniform(0, x.high), "op": op.choices[i % len(op.choices)]}
        value = params["x"] + {str: 9, bool: 9, int: 0}[type(params["op"])] + rng.normal(0, 0.1)
        study.add_trial(create_trial(value=value, params=params, distributions={"x": x, "op": op}))
    found = {n.name: n for n in smaller_space(study, study.best_trial, importance(study, n_bootstrap=10))}
    assert found["x"].low == 0
    assert "of 0 to 9, the rest" in found["x"].why
    assert str(found["op"].choices) == "(1,)"
    assert found["op"].why.startswith("bad and True are clearly worse")
