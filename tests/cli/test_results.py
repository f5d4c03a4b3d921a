"""Results in words."""

from __future__ import annotations

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from optnas.cli.results import best_values, in_words, leaders


def test_parameters_are_grouped_by_their_path() -> None:
    params = {"depth": 2, "block.0.op": "conv", "block.0.kernel": 3, "block.1.op": None, "lr": 0.00123456}
    assert in_words(params) == "depth 2, lr 0.001235; block.0: op conv, kernel 3; block.1: op None"
    assert in_words({}) == ""


def study_of(*values: float | None, direction: str, twins: tuple[int, ...] = ()) -> optuna.Study:
    study = optuna.create_study(direction=direction)
    for number, value in enumerate(values):
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED if value is None else TrialState.COMPLETE,
                value=value,
                params={"x": number},
                distributions={"x": IntDistribution(0, 9)},
                user_attrs={"twin_of": 0} if number in twins else {},
            )
        )
    return study


def test_leaders_come_in_the_order_of_the_direction_earlier_first_without_repeats() -> None:
    scores = (0.5, 0.9, None, 0.9, 0.1, 0.9, 0.7, 0.6)
    up = study_of(*scores, direction="maximize", twins=(5,))
    assert [trial.number for trial in leaders(up)] == [1, 3, 6, 7, 0]
    down = study_of(*scores, direction="minimize", twins=(5,))
    assert [trial.number for trial in leaders(down, 2)] == [4, 0]
    assert best_values(up) == "0.9"
    assert best_values(study_of(None, direction="maximize")) == ""


def test_of_two_objectives_the_front_leads() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values in ((0.9, 10.0), (0.5, 20.0), (0.8, 5.0)):
        study.add_trial(create_trial(values=values))
    assert [trial.number for trial in leaders(study)] == [0, 2]
    assert best_values(study) == "0.9, 10 and others"
