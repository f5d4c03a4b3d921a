import optuna
import pytest
from optuna.trial import create_trial
from torch import nn

from optnas import record
from optnas.objective import Objective
from optnas.search.best import best
from optnas.search.front import front, in_figures, knee, pick
from optnas.search.optimize import optimize
from optnas.search.study import create_study


def space(trial):
    return nn.Linear(4, trial.suggest_int("width", 1, 40))


def estimate(model, trial):
    """Every further unit is worth less than the one before."""
    return {"score": 1 - 1 / model.out_features, "seen": float(model.training)}


OBJECTIVE = Objective(space, estimate, values={"score": "maximize", "flops": "minimize"}, example=(2, 4))


@pytest.fixture(scope="module")
def study():
    study = create_study(OBJECTIVE, seed=0)
    for width in (1, 2, 4, 8, 16, 32):
        study.enqueue_trial({"width": width})
    optimize(study, OBJECTIVE, n_trials=6)
    study.add_trial(create_trial(values=(0.1, 1000.0)))
    return study


def test_the_front_begins_with_the_best_in_the_first_value(study):
    members = front(study, OBJECTIVE)
    assert [member.params["width"] for member in members] == [32, 16, 8, 4, 2, 1]
    assert members[1].values == {"score": 1 - 1 / 16, "flops": 128}
    assert members[1].value == 1 - 1 / 16
    assert in_figures(members[1]) == "score 0.9375, flops 128"


def test_a_member_is_a_winner_that_can_be_rebuilt_and_trained_anew(study):
    member = front(study, OBJECTIVE)[2]
    assert OBJECTIVE.build(member.trial).out_features == 8
    assert member.retrain(n_seeds=2) == [{"score": 1 - 1 / 8, "seen": 1.0}] * 2


@pytest.mark.parametrize(
    ("limits", "width"),
    [
        ({"flops": 100}, 8),
        ({"flops": 32}, 4),
        ({"n_params": 20}, 4),
        ({"score": (0.6, None), "flops": 100}, 8),
        ({"score": (None, 0.9)}, 8),
    ],
)
def test_the_pick_is_the_best_that_keeps_the_limits(study, limits, width):
    assert pick(front(study, OBJECTIVE), limits).params["width"] == width


def test_without_limits_the_knee_is_picked(study):
    members = front(study, OBJECTIVE)
    # As shares of their spans, what a width of 4 or 8 lacks is 10/31 in all; 2 and 16 lack 16/31.
    assert knee(members).params["width"] in (4, 8)
    assert pick(members) is knee(members)


def test_limits_that_none_keeps_are_told_with_how_near_it_comes(study):
    with pytest.raises(ValueError, match=r"None of the 6.*flops <= 5 \(the smallest seen is 8\)"):
        pick(front(study, OBJECTIVE), {"flops": 5})
    with pytest.raises(
        ValueError, match=r"'latency', which no trial of the front has: n_params, flops, score"
    ):
        pick(front(study, OBJECTIVE), {"latency": 5})


def test_where_there_is_no_front_it_says_why():
    study = create_study(OBJECTIVE, study_name="empty", seed=0)
    with pytest.raises(ValueError, match=r"has no front yet. Run optnas.optimize"):
        front(study, OBJECTIVE)
    for choose in (pick, knee):
        with pytest.raises(ValueError, match="the front is empty"):
            choose([])


def test_several_objectives_have_no_one_best(study):
    with pytest.raises(ValueError, match=r"2 objectives, and no single best trial; take optnas.pick"):
        best(study, OBJECTIVE)


def test_of_one_objective_the_front_is_the_best():
    objective = Objective(space, estimate, values={"score": "maximize"}, example=(2, 4))
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=3)
    [member] = front(study, objective)
    assert member.trial.number == best(study, objective).trial.number
    assert knee([member]) is member


def test_twins_and_infeasible_trials_are_not_on_it(study):
    copied = optuna.create_study(directions=study.directions)
    copied.add_trials(study.get_trials())
    copied.add_trial(create_trial(values=(2.0, 0.0), constraints={"memory": 1.0}))
    copied.add_trial(create_trial(values=study.trials[0].values, user_attrs={record.TWIN_OF.name: 0}))
    assert len(front(copied, OBJECTIVE)) == 6
