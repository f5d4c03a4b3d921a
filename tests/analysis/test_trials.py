import math

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from optnas.analysis.trials import (
    choices_of,
    finished,
    maximizes,
    objective_value,
)
from optnas.record import End, end


def test_ends_are_told_apart(study: optuna.Study) -> None:
    assert [str(end(t)) for t in study.trials] == [
        "complete",
        "complete",
        "twin",
        "complete",
        "pruned",
        "infeasible",
        "failed",
        "complete",
    ]
    assert end(create_trial(state=TrialState.WAITING)) is End.OPEN


def test_a_broken_optuna_constraint_is_infeasible() -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.set_constraint("memory", 1.0)
    study.tell(trial, 0.1)
    assert end(study.trials[0]) is End.INFEASIBLE
    assert finished(study) == []


def test_a_twin_counts_only_where_its_params_are_new(study: optuna.Study) -> None:
    assert [t.number for t in finished(study)] == [0, 1, 3, 7]
    other = study.trials[2]
    other.params["lr"] = 0.05
    study.add_trial(other)
    assert [t.number for t in finished(study)] == [0, 1, 3, 7, 8]


def test_value_of_a_trial_and_direction(study: optuna.Study) -> None:
    assert objective_value(study, None)(study.trials[0]) == 0.5
    assert math.isnan(objective_value(study, None)(study.trials[6]))
    assert maximizes(study)
    with pytest.raises(ValueError, match="2 objectives"):
        objective_value(optuna.create_study(directions=["minimize", "minimize"]), None)


def test_choices_are_those_of_all_trials() -> None:
    def asked(distribution: BaseDistribution, answer: object) -> FrozenTrial:
        return create_trial(value=0.0, params={"x": answer}, distributions={"x": distribution})

    first = asked(CategoricalDistribution((True, "a")), "a")
    second = asked(CategoricalDistribution(("a", 1)), 1)
    number = asked(IntDistribution(0, 9), 7)
    assert choices_of([first, second, number], "x") == (True, "a", 1, 7)
    assert choices_of([number, number], "x") is None
