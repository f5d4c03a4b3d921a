import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from optnas import pareto, private, record
from optnas.surrogate.front import FrontSurrogate, _shortfall

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

DISTRIBUTIONS = {"x": IntDistribution(0, 40), "y": IntDistribution(0, 40)}


def study_of(n=12, directions=("maximize", "minimize"), values=lambda x, y: (x - 0.01 * y, x + y)):
    study = optuna.create_study(directions=list(directions))
    study.set_metric_names(["score", "cost"])
    rng = np.random.default_rng(0)
    for _ in range(n):
        params = {"x": int(rng.integers(41)), "y": int(rng.integers(41))}
        study.add_trial(create_trial(values=values(**params), params=params, distributions=DISTRIBUTIONS))
    return study


def cost(params):
    return {"cost": params["x"] + params["y"]}


def test_a_shortfall_is_an_average_over_what_may_come():
    points, weights = np.array([[0.0, 2.0]]), np.array([0.25, 0.75])
    assert _shortfall(np.array([-np.inf, 1.0, 4.0]), points, weights).tolist() == [[0.0, 0.25, 2.5]]


def test_with_everything_known_it_is_the_hypervolume_that_is_gained():
    study = study_of()

    def known(params):
        x, y = params["x"], params["y"]
        return {"score": x - 0.01 * y, "cost": x + y}

    surrogate = FrontSurrogate(study, costs=known).fit(study.trials)
    candidates = [{"x": x, "y": y} for x in range(0, 41, 5) for y in (0, 7, 30)]
    gains = np.exp(surrogate.improvement(candidates))
    now = pareto.losses(study, study.trials)
    new = np.array([[-known(p)["score"], known(p)["cost"]] for p in candidates])
    reference = pareto.reference_point(np.vstack([now, np.vstack([now, new]).max(axis=0)]))
    before = private.hypervolume(now, reference)
    expected = [private.hypervolume(np.vstack([now, row]), reference) - before for row in new]
    assert gains == pytest.approx(expected, abs=1e-9)
    assert max(expected) > 0


def test_what_would_be_good_and_cheap_is_expected_to_gain_most():
    study = study_of(20)
    surrogate = FrontSurrogate(study, costs=cost).fit(study.trials)
    wasteful, useless, good = surrogate.improvement(
        [{"x": 38, "y": 40}, {"x": 0, "y": 40}, {"x": 40, "y": 0}]
    )
    assert good > wasteful
    assert good > useless


def test_a_candidate_of_unknown_cost_gains_nothing():
    study = study_of()
    surrogate = FrontSurrogate(study, costs=lambda p: cost(p) if p["x"] < 41 else {}).fit(study.trials)
    known, unknown = surrogate.improvement([{"x": 40, "y": 0}, {"x": 41, "y": 0}])
    assert known > unknown == -np.inf


def test_without_costs_every_objective_is_modeled():
    study = study_of(20)
    surrogate = FrontSurrogate(study).fit(study.trials)
    assert np.isfinite(surrogate.improvement([{"x": 40, "y": 0}, {"x": 20, "y": 0}])).all()


def test_what_runs_is_believed_and_not_expected_again():
    study = study_of(20)
    surrogate = FrontSurrogate(study, costs=cost).fit(study.trials)
    candidate = [{"x": 40, "y": 0}]
    assert surrogate.believe(candidate).improvement(candidate) < surrogate.improvement(candidate)
    assert surrogate.believe([]) is surrogate


def test_only_trials_with_values_within_limits_make_the_front():
    study = study_of(12)
    add = {"params": {"x": 40, "y": 0}, "distributions": DISTRIBUTIONS}
    plain = FrontSurrogate(study, costs=cost).fit(study.trials).improvement([{"x": 39, "y": 0}])
    study.add_trial(create_trial(values=(1000.0, 0.0), constraints={"latency": 1.0}, **add))
    study.add_trial(create_trial(values=(float("inf"), 0.0), **add))
    study.add_trial(create_trial(state=TrialState.PRUNED, **add))
    study.add_trial(create_trial(state=TrialState.FAIL))
    same = FrontSurrogate(study, costs=cost).fit(study.trials).improvement([{"x": 39, "y": 0}])
    assert same == pytest.approx(plain)


def test_what_was_reported_of_pruned_trials_is_learned_from():
    study = study_of(12)
    reports = {record.REPORTS.name: {"0": {"score": 0.0}, "1": {"score": 0.1}}}
    before = FrontSurrogate(study, costs=cost).fit(study.trials)
    for y in range(6):
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED,
                params={"x": 40, "y": y},
                distributions=DISTRIBUTIONS,
                user_attrs=reports,
            )
        )
    after = FrontSurrogate(study, costs=cost).fit(study.trials)
    candidate = [{"x": 40, "y": 0}]
    assert after.improvement(candidate) < before.improvement(candidate)


def test_two_trials_are_needed():
    study = study_of(1)
    with pytest.raises(ValueError, match="needs two COMPLETE, feasible trials; there are 1"):
        FrontSurrogate(study).fit(study.trials)


def test_one_lucky_cheap_trial_does_not_end_the_search_for_costlier_ones():
    lucky = {"x": 4, "y": 0}
    study = study_of(20, values=lambda x, y: (x, x + y))
    study.add_trial(create_trial(values=(40, 4), params=lucky, distributions=DISTRIBUTIONS))
    surrogate = FrontSurrogate(study).fit(study.trials)
    best, bad = surrogate.improvement([{"x": 40, "y": 0}, {"x": 5, "y": 40}])
    assert best > bad
