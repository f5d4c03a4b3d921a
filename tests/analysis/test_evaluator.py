"""Our analysis of variance as an evaluator of Optuna's."""

import itertools

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.importance import get_param_importances
from optuna.trial import TrialState, create_trial

from optnas.analysis.evaluator import ConditionalAnovaEvaluator

ABC = CategoricalDistribution(("a", "b", "c"))
EFFECT = {"a": -1.0, "b": 0.0, "c": 1.0}  # variance 2/3


def test_is_an_optuna_evaluator() -> None:
    study = optuna.create_study()
    for x, y in itertools.product("abc", repeat=2):
        for w in "abc" if x == "a" else (None,) * 3:
            params = {"x": x, "y": y} | ({"w": w} if w else {})
            value = 2 * EFFECT[x] + EFFECT[y]
            trial = create_trial(value=value, params=params, distributions=dict.fromkeys(params, ABC))
            study.add_trials([trial, trial])
    study.add_trial(create_trial(state=TrialState.FAIL))
    found = get_param_importances(study, evaluator=ConditionalAnovaEvaluator())
    assert found == pytest.approx({"x": 0.8, "y": 0.2, "w": 0.0})
    assert list(found) == ["x", "y", "w"]


def test_several_objectives_need_a_target() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    with pytest.raises(ValueError, match="target="):
        ConditionalAnovaEvaluator().evaluate(study)


def test_fewer_than_two_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="levels must be at least 2, got 1"):
        ConditionalAnovaEvaluator(levels=1)
