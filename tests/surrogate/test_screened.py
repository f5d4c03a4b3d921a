import math

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from scipy.stats import norm, spearmanr

from optnas import record
from optnas.surrogate.model import Surrogate
from optnas.surrogate.screened import BELIEF, FEWEST, cheap_loss, screen, worth
from optnas.surrogate.standing import normal

X = {"x": FloatDistribution(0.0, 1.0)}


def trial(cheap=None, value=None, x=0.5, better="lower", **more):
    about = {"name": "cheap", "value": cheap, "better": better, "reports": 1, "seconds": 1.0}
    attrs = {} if cheap is None else {record.SCREENED.name: about}
    state = TrialState.WAITING if value is None else TrialState.COMPLETE
    return create_trial(**{"params": {"x": x}, "distributions": X, "state": state, "value": value,
                           "user_attrs": attrs, **more})  # fmt: skip


def correlated(rng, n, correlation):
    """Cheap and whole losses of n networks, jointly normal."""
    cheap = rng.normal(size=n)
    return cheap, correlation * cheap + math.sqrt(1 - correlation**2) * rng.normal(size=n)


def test_a_cheap_score_is_read_as_a_loss() -> None:
    assert cheap_loss(trial(3.0)) == 3.0
    assert cheap_loss(trial(3.0, better="higher")) == -3.0
    assert cheap_loss(trial()) is None


def test_of_few_networks_or_of_equal_ones_nobody_can_tell() -> None:
    few = [trial(float(i), float(i)) for i in range(FEWEST - 1)]
    assert worth([*few, *(trial(float(i)) for i in range(50))], 1.0) is None
    assert worth([trial(1.0, float(i)) for i in range(20)], 1.0) is None
    assert worth([trial(float(i), 1.0) for i in range(20)], 1.0) is None
    assert worth([*few, trial(9.0, 9.0)], 1.0) is not None


def test_twins_and_what_breaks_a_limit_say_nothing_again() -> None:
    sound = [trial(float(i), float(i % 3)) for i in range(8)]
    twin = trial(0.0, 9.0, user_attrs={**trial(0.0).user_attrs, record.TWIN_OF.name: 0})
    broken = trial(0.0, 9.0, constraints={"flops": 1.0})
    assert worth([*sound, twin, broken], 1.0) == worth(sound, 1.0)


def test_the_correlation_of_a_random_share_is_that_of_all() -> None:
    cheap, whole = correlated(np.random.default_rng(0), 400, 0.7)
    found = worth(
        [trial(c, w if i % 2 else None) for i, (c, w) in enumerate(zip(cheap, whole, strict=True))], 1.0
    )
    assert (found.n, found.n_screened) == (200, 400)
    assert found.among == pytest.approx(spearmanr(cheap[1::2], whole[1::2])[0])
    assert found.correlation == pytest.approx(spearmanr(cheap, whole)[0], abs=0.06)
    assert found.low < 0.7 < found.high


def test_of_the_best_by_the_cheap_score_the_correlation_of_all_is_inferred() -> None:
    """Among the best tenth it is far smaller; what is inferred lies between the truth and the belief."""
    rng, among, inferred = np.random.default_rng(0), [], []
    for _ in range(40):
        cheap, whole = correlated(rng, 600, 0.8)
        chosen = cheap <= np.quantile(cheap, 0.1)
        found = worth([trial(c, w if y else None) for c, w, y in zip(cheap, whole, chosen, strict=True)], 1.0)
        among.append(found.among)
        inferred.append(found.correlation)
        assert not found.is_none
    assert np.mean(among) < 0.5
    assert math.tanh(BELIEF[0]) + 0.1 < np.mean(inferred) < 0.8


def test_a_score_that_says_nothing_is_found_out_and_ignored() -> None:
    rng = np.random.default_rng(0)
    found_out = []
    for _ in range(40):
        cheap, whole = correlated(rng, 240, 0.0)
        trials = [trial(c, w if i < 80 else None) for i, (c, w) in enumerate(zip(cheap, whole, strict=True))]
        found = worth(trials, 1.0)
        found_out.append(found.is_none)
        assert screen(trials, 1.0).trials == ([] if found.is_none else trials)
    assert np.mean(found_out) > 0.8


def test_whole_scores_of_chosen_networks_are_placed_where_regression_expects_them() -> None:
    cheap, whole = correlated(np.random.default_rng(0), 5000, 0.8)
    trials = [trial(c, w if c < -1.0 else None) for c, w in zip(cheap, whole, strict=True)]
    screened = screen(trials, 1.0)
    mean, spread = screened.place(t for t in trials if t.value is not None)
    chosen = normal(whole)[cheap < -1.0]
    assert mean == pytest.approx(chosen.mean(), abs=0.15)  # the correlation is drawn to the belief
    assert spread == pytest.approx(chosen.std(), abs=0.1)
    assert screened.place([]) == (0.0, 1.0)


def test_normal_scores_are_those_of_ranks() -> None:
    assert normal(np.array([3.0, 1.0, 2.0])) == pytest.approx(norm.ppf([5 / 6, 1 / 6, 3 / 6]))


@pytest.mark.parametrize("direction", [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE])
def test_a_surrogate_learns_from_cheap_scores_and_corrects_them_by_whole_ones(direction) -> None:
    """The cheap loss has its best at 0.4, the whole one at 0.3, on another scale."""
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
    grid = np.linspace(0, 1, 101)
    trials = [
        trial(abs(x - 0.4), sign * (5 + 2 * abs(x - 0.3)) if i % 5 == 0 else None, x=x)
        for i, x in enumerate(np.random.default_rng(0).uniform(size=40))
    ]
    best = {}
    for name, known in {
        "both": trials,
        "whole": [t for t in trials if t.value is not None],
        "cheap": [trial(cheap_loss(t), x=t.params["x"]) for t in trials],
    }.items():
        surrogate = Surrogate(direction).fit(known)
        best[name] = grid[surrogate.improvement([{"x": x} for x in grid]).argmax()]
        if name != "cheap":
            mean, std = surrogate.predict([{"x": x} for x in grid])
            assert np.isfinite(std).all()
            assert spearmanr(sign * mean, abs(grid - 0.3))[0] > (0.95 if name == "both" else 0.8)
            values = [sign * t.value for t in known if t.value is not None]
            assert min(values) - 1 < (sign * mean).min() < min(values) + 0.3
    assert abs(best["cheap"] - 0.4) < 0.2
    assert abs(best["both"] - 0.3) <= 0.1
    with pytest.raises(ValueError, match="No trial has a value yet"):
        Surrogate(direction).fit([trial(1.0, x=0.1), trial(2.0, x=0.9)]).predict([{"x": 0.5}])
