import zlib

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from scipy.integrate import quad
from scipy.stats import norm

from optnas.benchmarks import synthetic
from optnas.surrogate.model import Surrogate, _log_improvement


def trials_of(objective, n, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    study.optimize(objective, n_trials=n)
    return study.trials


def smooth(trial) -> float:
    """A conditional function: `op` decides which of two numbers matters."""
    if trial.suggest_categorical("op", ["conv", "pool"]) == "conv":
        return 10 + (trial.suggest_float("width", 0.0, 1.0) - 0.3) ** 2
    return 10.2 + (np.log10(trial.suggest_float("rate", 1e-4, 1.0, log=True)) + 2) ** 2 / 4


@pytest.fixture(scope="module")
def held_out():
    trials = trials_of(smooth, 200, seed=1)
    return [trial.params for trial in trials], np.array([trial.value for trial in trials])


def test_learns_a_conditional_function(held_out) -> None:
    params, values = held_out
    mean, std = Surrogate().fit(trials_of(smooth, 60)).predict(params)
    assert np.abs(mean - values).mean() < 0.1 * values.std()
    covered = (np.abs(mean - values) <= 2 * std + 1e-3).mean()
    assert covered > 0.85


def test_uncertainty_covers_what_it_should_where_little_is_known() -> None:
    held = trials_of(synthetic.loss, 300, seed=1)
    values = np.array([trial.value for trial in held])
    errors = []
    for seed in range(4):
        mean, std = (
            Surrogate().fit(trials_of(synthetic.loss, 80, seed=seed + 2)).predict([t.params for t in held])
        )
        errors.append(np.abs(mean - values) / std)
        assert np.corrcoef(mean, values)[0, 1] > 0.6
    within = [(np.concatenate(errors) <= k).mean() for k in (1, 2)]
    assert 0.6 < within[0] < 0.9
    assert within[1] > 0.9


def test_maximizing_the_negated_values_is_the_same() -> None:
    trials = trials_of(smooth, 30)
    mirrored = [create_trial(params=t.params, distributions=t.distributions, value=-t.value) for t in trials]
    params = [t.params for t in trials_of(smooth, 10, seed=3)]
    down, up = Surrogate().fit(trials), Surrogate(StudyDirection.MAXIMIZE).fit(mirrored)
    np.testing.assert_allclose(down.predict(params)[0], -up.predict(params)[0])
    np.testing.assert_allclose(down.predict(params)[1], up.predict(params)[1])
    np.testing.assert_allclose(down.improvement(params), up.improvement(params))


X = {"x": FloatDistribution(0.0, 1.0)}


def point(x, **more):
    return create_trial(params={"x": x}, distributions=X, **more)


def test_only_what_tells_something_about_values_counts() -> None:
    complete = [point(i / 10, value=(i / 10 - 0.5) ** 2) for i in range(11)]
    others = [
        point(0.5, state=TrialState.FAIL),
        point(0.5, state=TrialState.PRUNED),
        point(0.52, value=9.0, constraints={"memory": 1.0}),
        point(0.5, state=TrialState.COMPLETE, value=float("inf")),
        create_trial(state=TrialState.RUNNING),
    ]
    grid = [{"x": x} for x in np.linspace(0, 1, 21)]
    expected, got = (Surrogate().fit(trials).predict(grid) for trials in (complete, complete + others))
    np.testing.assert_array_equal(expected, got)


def test_a_pruned_trial_is_no_better_than_the_middle() -> None:
    complete = [point(x, value=1 + x) for x in (0.0, 0.1, 0.2, 0.3, 0.4)]
    pruned = point(0.9, state=TrialState.PRUNED, intermediate_values={1: 0.0, 2: 0.5})
    diverged = point(0.8, state=TrialState.PRUNED, intermediate_values={1: float("nan")})
    mean, _ = Surrogate().fit([*complete, pruned, diverged]).predict([{"x": 0.9}])
    assert 1.1 < mean[0] < 1.4


def test_repeats_of_one_value_are_no_obstacle() -> None:
    mean, std = Surrogate().fit([point(i / 10, value=3.0) for i in range(5)]).predict([{"x": 0.25}])
    assert mean[0] == pytest.approx(3.0, abs=0.2)
    assert np.isfinite(std[0])


def test_all_kinds_of_answers_and_absent_ones() -> None:
    distributions = {
        "choice": CategoricalDistribution([None, True, 1, 1.5, "1"]),
        "width": IntDistribution(1, 1024, log=True),
        "one": IntDistribution(3, 3),
    }
    trials = [
        create_trial(params={"choice": c, "width": w, "one": 3}, distributions=distributions, value=v)
        for c, w, v in [(None, 1, 0.0), (True, 2, 1.0), (1, 64, 2.0), (1.5, 512, 3.0), ("1", 1024, 4.0)]
    ]
    mean, std = Surrogate().fit(trials).predict([t.params for t in trials] + [{}, {"unknown": 1}])
    assert np.isfinite(mean).all()
    assert (std[5:] > std[:5].max()).all()
    assert (np.diff(mean[:5]) > 0).all()


def test_a_number_that_is_best_in_the_middle_is_learned_from_few_trials_among_many_choices() -> None:
    def asked(trial: optuna.Trial) -> float:
        apart = np.log10(trial.suggest_float("lr", 1e-4, 1e-2, log=True)) + 3
        return apart**2 + sum(0.03 * trial.suggest_categorical(f"choice{i}", [0, 1, 2]) for i in range(10))

    found = []
    for seed in range(10):
        unseen = [trial.params for trial in trials_of(asked, 1, seed=99)]
        fitted = Surrogate().fit(trials_of(asked, 20, seed=seed))
        low, middle, high = (
            fitted.predict([{**params, "lr": lr} for params in unseen])[0].mean() for lr in (2e-4, 1e-3, 5e-3)
        )
        found.append(middle < min(low, high))
    assert sum(found) >= 8, found


def test_values_scatter_as_much_as_is_told() -> None:
    for noise in (0.1, 1.0):
        rng = np.random.default_rng(0)
        drawn = rng.uniform(0, 1, 60)
        values = 5 * (drawn - 0.3) ** 2 + noise * rng.normal(size=60)
        fitted = Surrogate(headroom=1.0).fit([point(x, value=v) for x, v in zip(drawn, values, strict=True)])
        assert noise / 2 < np.median(fitted.scatter([{"x": x} for x in drawn])) < 1.5 * noise


def test_running_trials_lower_the_improvement_near_them() -> None:
    surrogate = Surrogate().fit([point(x, value=(x - 0.6) ** 2) for x in (0.0, 0.2, 1.0)])
    grid = [{"x": x} for x in np.linspace(0, 1, 101)]
    best = grid[int(surrogate.improvement(grid).argmax())]
    assert surrogate.believe([best]).improvement([best])[0] < surrogate.improvement([best])[0]
    elsewhere = grid[int(surrogate.believe([best]).improvement(grid).argmax())]
    assert elsewhere != best


@pytest.mark.parametrize("z", [-35.0, -30.01, -29.99, -6.0, -1.0, 0.0, 2.0, 50.0])
def test_expected_improvement_is_the_integral(z) -> None:
    integral, _ = quad(lambda t: t * np.exp(norm.logpdf(t - z) - norm.logpdf(min(z, 0))), 0, max(z, 0) + 40)
    expected = np.log(integral) + norm.logpdf(min(z, 0))
    assert _log_improvement(np.array([z]))[0] == pytest.approx(expected, abs=5e-3)


def test_too_few_values_are_refused() -> None:
    with pytest.raises(ValueError, match="two feasible trials"):
        Surrogate().fit([point(0.5, value=1.0), point(0.1, state=TrialState.FAIL)])


def test_features_that_say_nothing_are_left_out() -> None:
    """Twenty random numbers beside the answers: whoever believes in them predicts worse."""
    held = trials_of(synthetic.loss, 200, seed=1)
    params, values = [t.params for t in held], np.array([t.value for t in held])

    def noise(params):
        rng = np.random.default_rng(zlib.crc32(repr(sorted(params.items())).encode()))
        return {f"noise {i}": number for i, number in enumerate(rng.normal(size=20))}

    def error(features, seed):
        surrogate = Surrogate(features=features).fit(trials_of(synthetic.loss, 40, seed=seed))
        return np.abs(surrogate.predict(params)[0] - values).mean()

    with_noise, without = (np.mean([error(f, seed) for seed in range(2, 8)]) for f in (noise, None))
    assert with_noise < 1.03 * without


def test_features_that_tell_are_used() -> None:
    held = trials_of(synthetic.loss, 100, seed=1)
    params, values = [t.params for t in held], np.array([t.value for t in held])

    def telling(params):
        return {"value": synthetic.loss(optuna.trial.FixedTrial(params)), "the same for all": 1.0}

    def error(features):
        mean, _ = Surrogate(features=features).fit(trials_of(synthetic.loss, 30)).predict(params)
        return np.abs(mean - values).mean()

    assert error(telling) < 0.5 * error(None)


def test_what_runs_is_believed_alike_before_and_after_features_are_left_out() -> None:
    trials, candidates = trials_of(synthetic.loss, 30), [t.params for t in trials_of(synthetic.loss, 40, 1)]
    running, others = candidates[:3], candidates[3:]

    def telling(params):
        return {"value": synthetic.loss(optuna.trial.FixedTrial(params))}

    surrogate = Surrogate(features=telling).fit(trials)
    assert surrogate.looks
    before = surrogate.believe(running).without_features()
    after = surrogate.without_features().believe(running)
    np.testing.assert_allclose(before.improvement(others), after.improvement(others))
    assert not np.allclose(before.improvement(others), surrogate.without_features().improvement(others))


def test_a_feature_that_all_trials_share_says_nothing_of_a_candidate_without() -> None:
    trials = [point(i / 10, value=(i / 10 - 0.5) ** 2) for i in range(11)]

    def features(params):
        return {"x": params["x"], "rare": float(params["x"] == 0.25)}

    def alone(params):
        return {"x": params["x"]}

    seen, expected = (Surrogate(features=f).fit(trials).predict([{"x": 0.25}]) for f in (features, alone))
    np.testing.assert_array_equal(seen, expected)
