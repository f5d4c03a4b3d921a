from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from scipy import stats
from torch import nn

from optnas import Objective, create_study, rank_correlation
from optnas.analysis.trust import MIN_TRIALS, _resampled, _statistics, agreement, recorded_estimates
from optnas.record import FactKind, write_fact_kinds

WIDTH = {"width": IntDistribution(0, 10_000)}


def study_of(values, facts, direction="maximize", **more) -> optuna.Study:
    """A trial for each value, with its facts, and with more attributes by the names of `create_trial`."""
    study = optuna.create_study(direction=direction)
    for i, value in enumerate(values):
        attrs = {"optnas:facts": {name: numbers[i] for name, numbers in facts.items()}}
        rest = {name: each[i] for name, each in more.items()}
        attrs |= rest.pop("user_attrs", {})
        trial = create_trial(value=value, params={"width": i}, distributions=WIDTH, user_attrs=attrs, **rest)
        study.add_trial(trial)
    return study


def test_every_resample_is_what_scipy_says_of_the_repeated_trials() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(8, size=60).astype(float)  # with ties
    estimate = truth + rng.integers(6, size=60)
    weights = _resampled(60, seed=1)[:20]
    found = _statistics(estimate, truth, weights)
    for row, weight in enumerate(weights):
        e, t = (np.repeat(x, weight.astype(int)) for x in (estimate, truth))
        assert found["kendall"][row] == pytest.approx(stats.kendalltau(e, t).statistic)
        assert found["spearman"][row] == pytest.approx(stats.spearmanr(e, t).statistic)


def test_the_best_tenth_by_hand() -> None:
    truth = np.arange(100.0)
    estimate = truth.copy()
    estimate[95:] = -1.0  # five of the best ten are missed; 85 to 94 are the estimate's best
    found = agreement("e", estimate, truth)
    assert found.top.value == pytest.approx(0.5)
    inside = stats.kendalltau(estimate[90:], truth[90:]).statistic
    assert found.kendall_top.value == pytest.approx(inside)
    assert found.kendall.low < found.kendall.value < found.kendall.high
    # Tied for the last places: by lot.
    assert agreement("e", np.zeros(100), truth).top.value == pytest.approx(0.1)
    assert math.isnan(agreement("e", np.zeros(100), truth).kendall.value)


def test_intervals_hold_the_true_correlation_nine_times_in_ten_or_more() -> None:
    """Of normal pairs with correlation r, Kendall's is 2/pi asin(r)."""
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=80)
        y = 0.6 * x + 0.8 * rng.normal(size=80)
        found = agreement("e", x, y).kendall
        held += found.low <= 2 / math.pi * math.asin(0.6) <= found.high
    assert held >= 52


def test_an_estimate_that_beats_the_floors_and_one_that_does_not() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=80)
    facts = {
        "good": list(truth + 0.1 * rng.normal(size=80)),
        "poor": list(truth + 3 * rng.normal(size=80)),
        "n_params": [round(1000 * (5 - x + rng.normal())) for x in truth],  # the smaller the better
        "flops": [7] * 80,
    }
    study = study_of(list(truth), facts)
    good, poor = (rank_correlation(study, name) for name in ("good", "poor"))
    assert good.beats_floors
    assert "good ranks better than fewer parameters" in good.words
    assert not poor.beats_floors
    assert poor.words.startswith("Warning: poor ranks no better than fewer parameters, which costs nothing")
    assert [floor.name for floor in good.floors] == ["fewer parameters"]  # FLOPs are all the same
    assert good.estimate.kendall.value == pytest.approx(stats.kendalltau(facts["good"], truth).statistic)
    assert good.to_dict()["beats_floors"] is True
    assert "fewer parameters" in str(good)
    assert "Kendall" in str(good)


def test_what_is_too_close_to_call_is_a_warning() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=20)
    facts = {"mine": list(truth + rng.normal(size=20)), "n_params": [float(x + rng.normal()) for x in truth]}
    found = rank_correlation(study_of(list(truth), facts), "mine")
    assert found.lead is not None
    assert found.lead.low < 0 < found.lead.high
    assert found.words.startswith("Warning:")


def test_steps_other_studies_metrics_and_functions_are_estimates_too() -> None:
    values = [0.1, 0.5, 0.3, 0.2, 0.9, 0.7]
    worse = [1 - v for v in values]
    curves = [{1: loss + 1, 2: loss} for loss in worse]
    metrics = [{"optnas:metrics": {"val_loss": v}} for v in worse]
    facts = {"n_params": [1, 2, 3, 4, 5, 6]}
    study = study_of(worse, facts, "minimize", intermediate_values=curves, user_attrs=metrics)
    other = study_of(values[:5], {}, "maximize")
    found = [
        rank_correlation(study, 1),
        rank_correlation(study, other),
        rank_correlation(study, "val_loss", larger=False),
        rank_correlation(study, lambda trial: -trial.value),
    ]
    assert [f.estimate.kendall.value for f in found] == [1, 1, 1, 1]
    assert [f.estimate.n for f in found] == [6, 5, 6, 6]
    assert found[0].estimate.name == "step 1"


def test_twins_and_unfinished_trials_are_left_out_and_titles_are_used() -> None:
    attrs = [{"optnas:twin_of": 0} if i in (5, 6) else {} for i in range(8)]
    study = study_of(range(8), {"naswot": [5, 4, 3, 2, 1, 9, 9, 9]}, user_attrs=attrs)
    write_fact_kinds(study, {"naswot": FactKind("naswot", "NASWOT")})
    found = rank_correlation(study, "naswot").estimate
    assert (found.n, found.name) == (6, "NASWOT")


def test_an_objective_knows_all_floors() -> None:
    def space(trial) -> nn.Module:
        depth = trial.suggest_int("depth", 1, 6)
        return nn.Sequential(*(nn.Linear(4, 4) for _ in range(depth)))

    objective = Objective(
        space, lambda m, trial: {"score": float(len(m))}, values={"score": "maximize"}, example=(2, 4)
    )
    study = create_study(objective, seed=0)
    for depth in range(1, 7):
        study.enqueue_trial({"depth": depth})
    study.optimize(objective, n_trials=6)
    found = rank_correlation(study, lambda trial: trial.number, objective=objective)
    assert [floor.name for floor in found.floors] == ["parameters", "FLOPs", "depth", "layers"]
    assert all(floor.kendall.value == 1 for floor in found.floors)
    assert "no better" in found.words


def test_facts_that_promise_something_are_the_recorded_estimates() -> None:
    facts = {"naswot": [1.0, 2, 3, 4, 5], "size": [5, 4, 3, 2, 1], "rare": [1.0] * 5}
    study = study_of(range(5), facts)
    assert recorded_estimates(study) == []  # nobody has said which fact promises anything
    kinds = {
        "naswot": FactKind("naswot", "NASWOT", "", "higher"),
        "size": FactKind("size", "size", "", "lower"),
    }
    write_fact_kinds(study, kinds)
    [found] = recorded_estimates(study)
    assert found.estimate.name == "NASWOT"
    assert recorded_estimates(study_of([1] * 5, facts)) == []


def test_too_little_to_say_anything_is_an_error() -> None:
    study = study_of(range(MIN_TRIALS - 1), {"x": [1, 2, 3, 4]})
    with pytest.raises(ValueError, match=r"Of the 4 trained architectures .* 4 have the estimate 'x'; .* 5"):
        rank_correlation(study, "x")
    with pytest.raises(ValueError, match="All 6 trained architectures have the value 1"):
        rank_correlation(study_of([1] * 6, {"x": range(6)}), "x")
    with pytest.raises(ValueError, match="as many finite numbers"):
        agreement("x", [1, 2], [1, 2, 3])
