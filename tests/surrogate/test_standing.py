import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from scipy.stats import spearmanr

from optnas.record import Reason, Why
from optnas.surrogate.model import Surrogate
from optnas.surrogate.standing import by_report, observe, standings

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


def test_where_trials_stopped_all_that_came_so_far_are_ranked_again():
    fast = trial(0.1, 0.6, value=0.6)
    slow = trial(0.9, 0.2, value=0.2)
    middle, stopped = trial(0.5, 0.4, value=0.4), trial(0.3)
    trials, scores, shares = by_report(observe([fast, slow, middle, stopped], 1.0))
    assert trials == [0, 1, 2, 0, 1, 2, 3]
    assert shares.tolist() == [1.0] * 3 + [0.5] * 4
    assert np.argsort(scores[:3]).tolist() == [1, 2, 0]  # at their end
    assert np.argsort(scores[3:]).tolist() == [0, 3, 2, 1]  # after one report


def test_of_few_that_ended_all_stand_once():
    some = [trial(0.9, 0.5, value=0.5), trial(0.8, 0.4, value=0.4), trial(0.3)]
    trials, scores, shares = by_report(observe(some, 1.0))
    assert trials == [0, 1, 2]
    assert (shares == 1).all()
    assert scores.tolist() == standings(observe(some, 1.0)).tolist()


def test_what_made_all_its_reports_has_not_ended_before_it_has_a_value():
    ended = [trial(0.9, 0.5, value=0.1 * i, x=0.1 * i) for i in range(4)]
    under_way = trial(0.8, 0.4, state=TrialState.RUNNING)
    rows, _, shares = by_report(observe([*ended, under_way], 1.0))
    assert [rows[i] for i in np.flatnonzero(shares == 1)] == [0, 1, 2, 3]
    assert shares[rows.index(4)] < 1


def test_what_is_behind_at_first_and_ahead_later_is_found_where_most_stopped_early():
    """As with small learning rates: those of 0.2 and below lead in the end, and stop early for the most."""
    rng = np.random.default_rng(0)
    early, final = (lambda x: 1 - x), (lambda x: abs(x - 0.2))
    ended = [trial(early(x), final(x), value=final(x), x=x) for x in (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)]
    stopped = [trial(early(x), x=x) for x in rng.uniform(0.0, 0.7, 24).tolist()]
    surrogate = Surrogate(StudyDirection.MINIMIZE).fit([*ended, *stopped])
    xs = np.linspace(0, 1, 21)
    promise = surrogate.promise([{"x": float(x)} for x in xs])
    assert abs(xs[int(np.argmax(promise))] - 0.2) <= 0.15


def test_early_reports_that_tell_the_end_are_believed():
    """Nothing ended above 0.5, where the best are: the early reports say so."""
    early, final = (lambda x: 2 + (x - 0.8) ** 2), (lambda x: (x - 0.8) ** 2)
    ended = [trial(early(x), final(x), value=final(x), x=x) for x in np.linspace(0, 0.5, 8).tolist()]
    stopped = [trial(early(x), x=x) for x in np.linspace(0.5, 1.0, 12).tolist()]
    surrogate = Surrogate(StudyDirection.MINIMIZE).fit([*ended, *stopped])
    xs = np.linspace(0, 1, 21)
    assert abs(xs[int(np.argmax(surrogate.promise([{"x": float(x)} for x in xs])))] - 0.8) <= 0.1
