"""Oracle: scipy's own tests, on the scores alone."""

import json
from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from scipy import stats

from optnas import record
from optnas.analysis.compare import best_so_far, compare


def study_of(*values: float | None, seed: int | None = None, direction: str = "maximize") -> optuna.Study:
    """A study whose trials have these values; None is a pruned trial."""
    study = optuna.create_study(direction=direction)
    if seed is not None:
        study.set_user_attr(record.SEED.name, seed)
    for value in values:
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        study.add_trial(create_trial(value=value, state=state))
    return study


def group(scores: Sequence[float], seeds: bool = True) -> list[optuna.Study]:
    return [study_of(score, seed=i if seeds else None) for i, score in enumerate(scores)]


A = (0.91, 0.93, 0.90, 0.94, 0.92, 0.95)
B = (0.90, 0.91, 0.89, 0.93, 0.90, 0.93)


def test_paired_by_seed_in_any_order() -> None:
    result = compare({"a": group(A), "b": group(B)[::-1]})
    (difference,) = result.differences
    oracle = stats.ttest_rel(A, B)
    interval = oracle.confidence_interval(0.95)
    assert difference.paired
    assert difference.mean == pytest.approx(np.mean(A) - np.mean(B))
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))
    assert difference.probability == pytest.approx(1 - oracle.pvalue / 2)
    assert difference.sure
    assert "a is better than b" in difference.words


def test_unpaired_without_seeds_is_welch() -> None:
    (difference,) = compare({"a": group(A, seeds=False), "b": group(B, seeds=False)[:4]}).differences
    oracle = stats.ttest_ind(A, B[:4], equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert not difference.paired
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))
    assert not difference.sure
    assert "not sure" in difference.words


def test_lower_is_better_when_minimizing() -> None:
    groups = {
        name: [study_of(v, seed=i, direction="minimize") for i, v in enumerate(values)]
        for name, values in (("a", A), ("b", B))
    }
    result = compare(groups)
    assert [g.name for g in result.groups] == ["b", "a"]
    assert result.differences[0].probability > 0.99
    assert "b is better than a" in result.differences[0].words


def test_one_study_each_cannot_be_said() -> None:
    result = compare([study_of(0.9, seed=0), study_of(0.8, seed=0)])
    (difference,) = result.differences
    assert difference.low is difference.high is difference.probability is None
    assert not difference.sure
    assert "cannot be said" in difference.words
    assert result.groups[0].deviation is None


def test_intervals_hold_together_under_the_null() -> None:
    """Three equal groups of three: all three intervals hold zero at least 95 % of the time."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(150):
        groups = {name: group(rng.normal(size=3).tolist(), seeds=False) for name in "abc"}
        held += not any(d.sure for d in compare(groups).differences)
    assert held >= 0.91 * 150  # three standard errors below 95 %


def test_equal_scores_are_equal() -> None:
    (difference,) = compare({"a": group(A), "b": group(A)}).differences
    assert (difference.low, difference.high, difference.probability) == (0, 0, 0.5)
    assert "same scores" in difference.words


def test_budgets_are_equal() -> None:
    long, short = study_of(0.1, 0.2, 0.9), study_of(0.3, 0.1)
    result = compare({"long": [long], "short": [short]})
    assert result.n_trials == 2
    assert result.differences[0].mean == pytest.approx(0.1)
    for n_trials in (0, 3):
        with pytest.raises(ValueError, match=f"n_trials={n_trials}"):
            compare({"long": [long], "short": [short]}, n_trials=n_trials)


def test_own_score() -> None:
    a, b = study_of(0.1, 0.2), study_of(0.3)
    result = compare({"a": [a], "b": [b]}, score=lambda study: len(study.trials))
    assert result.n_trials is None
    assert result.groups[0].name == "a"


def test_paired_by_position_on_request() -> None:
    (difference,) = compare({"a": group(A, False), "b": group(B, False)}, paired=True).differences
    assert difference.low == pytest.approx(stats.ttest_rel(A, B).confidence_interval(0.95).low)
    with pytest.raises(ValueError, match="one size"):
        compare({"a": group(A), "b": group(B)[:3]}, paired=True)


def test_best_so_far_counts_what_counts() -> None:
    study = study_of(None, 0.2, 0.1, None, 0.5)
    limit = {record.REASON.name: {"kind": "limit", "words": "memory"}}
    not_counted = {record.COUNTS.name: False}
    study.add_trial(create_trial(value=0.5, user_attrs={record.TWIN_OF.name: 4, **not_counted}))
    study.add_trial(create_trial(state=TrialState.PRUNED, user_attrs={**limit, **not_counted}))
    study.add_trial(create_trial(state=TrialState.FAIL))
    np.testing.assert_equal(best_so_far(study), [np.nan, 0.2, 0.2, 0.2, 0.5])
    assert record.n_counted(study.trials) == 5


def test_a_trained_trial_that_breaks_a_constraint_spends_budget_and_is_not_the_best() -> None:
    study = study_of(0.2, 0.1)
    trial = study.ask()
    trial.set_constraint("mine", 1.0)
    study.tell(trial, 0.9)
    np.testing.assert_equal(best_so_far(study), [0.2, 0.2, 0.2])
    assert (
        compare({"a": [study], "b": [study_of(*[0.1] * 9)]}).n_trials == record.n_counted(study.trials) == 3
    )


def test_reads_as_words_and_as_data() -> None:
    result = compare({"a": group(A), "b": group(B)})
    assert json.loads(json.dumps(result.to_dict()))["differences"][0]["sure"] is True
    assert "a is better than b" in str(result)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": [study_of(1.0)]}, "at least two"),
        ({"a": [study_of(1.0)], "b": []}, "no studies"),
        ({"a": [study_of(1.0)], "b": [study_of(1.0, direction="minimize")]}, "maximize in .*; minimize in "),
        ({k: [optuna.create_study(directions=["minimize"] * 2)] for k in "ab"}, "minimize, minimize in"),
        ({k: [optuna.create_study()] for k in "ab"}, "no trial that counts yet. Run it first"),
        ({k: [study_of(float("inf"))] for k in "ab"}, "no COMPLETE trial with a finite value"),
        ({"a": [study_of(None)], "b": [study_of(1.0)]}, "no COMPLETE trial"),
    ],
)
def test_refuses_what_cannot_be_compared(groups: dict[str, list[optuna.Study]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(groups)


@pytest.mark.parametrize("unit", [1e-200, 1e200])
@pytest.mark.parametrize("seeds", [True, False])
def test_intervals_do_not_depend_on_the_unit_of_the_values(unit: float, seeds: bool) -> None:
    plain = compare({"a": group(A, seeds), "b": group(B, seeds)})
    scaled = compare({"a": group([unit * a for a in A], seeds), "b": group([unit * b for b in B], seeds)})
    (one,), (other,) = plain.differences, scaled.differences
    assert (other.low / unit, other.high / unit) == pytest.approx((one.low, one.high))
    assert other.probability == pytest.approx(one.probability)
    assert scaled.groups[0].deviation / unit == pytest.approx(plain.groups[0].deviation)


def test_names_are_no_markup_and_a_seed_of_another_kind_pairs_nothing() -> None:
    studies = {name: group(A, seeds=False) for name in ("[/x]", "a[b]")}
    for study in (*studies["[/x]"], *studies["a[b]"]):
        study.set_user_attr(record.SEED.name, ["mine"])
    result = compare(studies)
    assert not result.differences[0].paired
    assert str(result).count("[/x]") == str(result).count("a[b]") == 2
