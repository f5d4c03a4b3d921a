"""A device of the tests, whose latency is what the operations of a network say, and a trial learns it."""

import logging

import numpy as np
import optuna
import pytest
from optuna.trial import create_trial
from scipy.stats import spearmanr
from torch import nn

from optnas import Objective, create_study, optimize, record
from optnas.facts.fact import Fact
from optnas.limits import Limit, Within
from optnas.record import Reason
from optnas.search.foreseen import MEASURED, LearnedCosts
from optnas.space import sample
from optnas.space.explore import on_meta
from optnas.surrogate.model import Surrogate
from optnas.trial import replay, scope

LIMIT = 60.0


def space(trial):
    layers, width = [], 4
    for i in range(trial.suggest_int("depth", 1, 6)):
        at = scope(trial, "layer", i)
        out = at.suggest_int("width", 4, 12)
        layers += [
            nn.Conv2d(width, out, at.suggest_categorical("kernel", [1, 3, 5]), padding="same"),
            nn.ReLU(),
        ]
        width = out
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(2))


def milliseconds(model, example):
    """Of its convolutions, by hand."""
    convolutions = [layer for layer in model if isinstance(layer, nn.Conv2d)]
    return 1.0 + sum(layer.kernel_size[0] ** 2 + 0.5 * layer.out_channels for layer in convolutions)


def noise(model, example):
    return float(np.random.default_rng(sum(p.numel() for p in model.parameters())).lognormal())


def score(model, run):
    return {"score": float(sum(p.numel() for p in model.parameters()))}


def objective(measure=milliseconds, **limits):
    latency = Fact("latency", measure, unit="ms", needs="batch")
    return Objective(
        space,
        score,
        values={"score": "maximize"},
        example=(2, 4, 6, 6),
        facts=[latency],
        limits=limits or {"latency": LIMIT},
    )


def refused(trials):
    return [(Reason.of(t) is not None and Reason.of(t).cause == "latency") for t in trials]


@pytest.fixture(scope="module")
def study():
    given = objective()
    study = create_study(given, seed=0, sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed))
    optimize(study, given, n_trials=45)
    return study


def test_what_is_over_the_limit_is_hardly_proposed_once_enough_were_measured(study):
    before, after = refused(study.trials[:MEASURED]), refused(study.trials[MEASURED:])
    assert sum(before) > 0.3 * MEASURED
    assert len(after) > 20
    assert sum(after) < 0.1 * len(after)
    over = [record.facts(t)["latency"] for t, r in zip(study.trials[MEASURED:], after, strict=True) if r]
    assert all(latency < 1.2 * LIMIT for latency in over)


def test_what_is_just_within_the_limit_is_still_proposed(study):
    later = [record.facts(t)["latency"] for t in study.trials[MEASURED:]]
    assert max(latency for latency in later if latency <= LIMIT) > 0.85 * LIMIT


def test_the_prediction_is_a_limit_beside_the_others(study):
    learned = LearnedCosts(study, objective())
    assert learned.learn().keys() == {"latency"}
    within = learned.limit(Within(lambda params: {"n_params": 5.0}, [Limit("n_params", high=10)]))
    assert [limit.name for limit in within.limits] == ["n_params", "latency, as predicted"]
    dear = {"depth": 6, **{f"layer.{i}.{k}": v for i in range(6) for k, v in (("width", 12), ("kernel", 5))}}
    cheap = {"depth": 1, "layer.0.width": 4, "layer.0.kernel": 1}
    assert (within(cheap), within(dear), within({"depth": 9})) == (True, False, True)
    assert "latency, as predicted <= " in str(within)


def test_what_cannot_be_predicted_limits_nothing_and_that_is_said(study, caplog):
    given = objective(noise)
    other = optuna.create_study(direction="maximize")
    for trial in study.trials:
        known = {**record.facts(trial), "latency": noise(given.build(trial), None)}
        trial.user_attrs = {**trial.user_attrs, record.FACTS.name: known}
        other.add_trial(trial)
    learned = LearnedCosts(other, given)
    with caplog.at_level(logging.INFO):
        assert learned.learn() == {}
    assert learned.limit(None) is None
    assert "latency cannot be predicted well enough from" in caplog.text


def test_limits_that_need_no_device_and_few_trials_are_left_alone():
    given = objective(n_params=1e6)
    study = create_study(given, seed=0)
    learned = LearnedCosts(study, given)
    assert learned.learn() == {}
    others = given.within
    assert learned.limit(others) is others


def test_as_an_objective_it_is_modeled_like_any_metric(study):
    """Nobody computes it before the trial, so a candidate is judged by what the measured ones let expect."""
    given = objective(flops=1e9)
    assert "latency" not in given.costs({"depth": 1, "layer.0.width": 4, "layer.0.kernel": 1})
    measured = [(t, record.facts(t)["latency"]) for t in study.trials if "latency" in record.facts(t)]
    trials = [
        create_trial(params=t.params, distributions=t.distributions, value=number)
        for t, number in measured[:MEASURED]
    ]
    others = [sample(space, seed) for seed in range(40)]
    expected, _ = Surrogate(optuna.study.StudyDirection.MINIMIZE).fit(trials).predict(others)
    truth = [milliseconds(on_meta(lambda p=p: space(replay(p))), None) for p in others]
    assert spearmanr(expected, truth).statistic > 0.9
