import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from scipy.stats import spearmanr

from optnas.record import Reason, Why
from optnas.surrogate.model import Surrogate
from optnas.surrogate.standing import observe, standings

X = {"x": FloatDistribution(0.0, 1.0)}


def trial(*reports, value=None, state=None, x=0.5, **more):
    state = state or (TrialState.PRUNED if value is None else TrialState.COMPLETE)
    steps = dict(enumerate(reports))
    return create_trial(
        params={"x": x}, distributions=X, state=state, value=value, intermediate_values=steps, **more
    )


def order(*trials, sign=1.0):
    """Numbers of the trials, the best first."""
    return np.argsort(standings(observe(trials, sign)), kind="stable").tolist()


def test_two_are_compared_at_the_last_report_that_both_made():
    went_on = trial(5.0, 4.0, 3.0, value=3.0)
    better_at_first = trial(4.5)
    worse_at_second = trial(4.8, 4.7)
    assert order(went_on, better_at_first, worse_at_second) == [1, 0, 2]


def test_an_early_report_is_not_taken_for_a_final_value():
    finished = [trial(0.9, 0.5, 0.1, value=0.1), trial(0.8, 0.4, 0.2, value=0.2)]
    promising, hopeless = trial(0.7, state=TrialState.WAITING), trial(0.95)
    assert order(*finished, promising, hopeless) == [2, 0, 1, 3]


def test_what_diverged_is_the_worst_however_it_began():
    reason = {}
    Reason(Why.DIVERGED, "diverged").write(type("Writer", (), {"set_user_attr": reason.__setitem__})())
    diverged = trial(0.1, 0.05, user_attrs=reason)
    not_finite = trial(0.1, float("nan"))
    assert sorted(order(trial(0.9), diverged, trial(0.8, 0.3, value=0.3), not_finite)[2:]) == [1, 3]


def test_a_value_without_reports_is_level_with_what_stopped_early():
    values = [trial(value=float(v)) for v in range(5)]
    assert order(*values, trial(-9.0))[2:4] == [2, 5]


def test_maximizing_the_negated_values_is_the_same():
    trials = [trial(0.9, 0.5, value=0.5), trial(0.4), trial(0.8, 0.7), trial(0.85, 0.1, value=0.1)]
    mirrored = [
        trial(*(-v for v in t.intermediate_values.values()), value=None if t.value is None else -t.value)
        for t in trials
    ]
    assert order(*trials) == order(*mirrored, sign=-1.0)


def test_what_tells_nothing_is_left_out():
    left_out = [
        trial(0.1, state=TrialState.FAIL),
        trial(),
        trial(value=float("inf")),
        trial(0.2, value=0.2, constraints={"memory": 1.0}),
        create_trial(state=TrialState.RUNNING),
    ]
    assert observe(left_out, 1.0) == []
    assert standings([]).tolist() == []


@pytest.mark.parametrize("direction", [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE])
def test_a_surrogate_ranks_what_stopped_early_and_predicts_final_values(direction):
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
    rng = np.random.default_rng(0)
    trials = []
    for i, x in enumerate(rng.uniform(size=40)):
        curve = [sign * (2.0 + abs(x - 0.3) + 8.0 / (step + 1)) for step in range(8)]
        trials.append(trial(*curve, value=curve[-1], x=x) if i % 8 == 0 else trial(curve[0], x=x))
    grid = np.linspace(0, 1, 21)
    mean, std = Surrogate(direction).fit(trials).predict([{"x": x} for x in grid])
    assert spearmanr(sign * mean, abs(grid - 0.3))[0] > 0.95
    ended = [t.value for t in trials if t.value is not None]
    assert min(ended) - 1e-9 <= mean.min()
    assert mean.max() <= max(ended) + 1e-9
    assert np.isfinite(std).all()
