import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from optnas import pareto, private, record


def study_of(*values, directions=("maximize", "minimize")):
    study = optuna.create_study(directions=list(directions))
    for value in values:
        study.add_trial(create_trial(values=value))
    return study


points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(points)
def test_rank_zero_is_what_nothing_dominates(rows):
    losses = np.array(rows, dtype=float)
    dominated = [any((o <= row).all() and (o < row).any() for o in losses) for row in losses]
    assert [rank > 0 for rank in private.ranks(losses)] == dominated


@given(points)
def test_hypervolume_counts_unit_cubes(rows):
    losses = np.array(rows, dtype=float)
    cubes = sum(
        any(a <= x and b <= y and c <= z for a, b, c in rows)
        for x in range(7)
        for y in range(7)
        for z in range(7)
    )
    assert private.hypervolume(losses, np.array([7.0, 7.0, 7.0])) == cubes


@given(points)
def test_open_boxes_are_what_the_hypervolume_is_not(rows):
    losses, reference, floor = np.array(rows, dtype=float), np.array([7.0, 7.0, 7.0]), -1.0
    lower, upper = private.open_boxes(losses, reference)
    volume = np.clip(upper - np.maximum(lower, floor), 0, None).prod(axis=1).sum()
    assert volume + private.hypervolume(losses, reference) == pytest.approx(8**3)


def test_losses_follow_the_directions():
    study = study_of((0.9, 10.0))
    assert pareto.losses(study, study.trials).tolist() == [[-0.9, 10.0]]


def test_the_front_has_no_twin_no_infeasible_and_no_infinite_trial():
    study = study_of((0.9, 10.0), (0.8, 5.0), (0.7, 7.0), (float("inf"), 1.0))
    study.add_trial(create_trial(values=(0.99, 1.0), constraints={"latency": 0.1}))
    study.add_trial(create_trial(values=(0.9, 10.0), user_attrs={record.TWIN_OF.name: 0}))
    study.add_trial(create_trial(state=TrialState.PRUNED))
    assert [trial.number for trial in pareto.front_trials(study)] == [0, 1]
    assert pareto.front_trials(study_of()) == []


def test_one_objective_stands_by_its_value():
    study = study_of((3.0,), (1.0,), (2.0,), directions=["minimize"])
    assert pareto.standing(study, study.trials).tolist() == [2, 0, 1]


def test_several_stand_by_rank_and_then_by_room():
    study = study_of((5, 5), (1, 1), (3, 3), (2.9, 2.9), (2.8, 9))
    # The first three and the fourth are a front; its ends come first, the two close together last.
    places = pareto.standing(study, study.trials)
    assert places[4] == 4
    assert set(places[[0, 1]]) == {0, 1}


def test_the_reference_point_is_beyond_the_worst():
    losses = np.array([[0.0, 5.0], [10.0, 5.0]])
    assert pareto.reference_point(losses).tolist() == [11.0, 5.5]
