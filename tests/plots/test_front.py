import optuna
from optuna.trial import create_trial

from optnas import record
from optnas.plots import plot_front


def test_front_and_trials(study: optuna.Study) -> None:
    trials, front = plot_front(study).data
    assert sorted(trials.x) == [100, 200, 300, 400]
    assert (list(front.x), list(front.y)) == ([100, 200, 400], [0.5, 0.7, 0.9])


def test_a_wide_range_gets_a_logarithmic_axis(study: optuna.Study) -> None:
    assert plot_front(study).layout.xaxis.type is None
    assert plot_front(study, x=lambda t: 10.0**t.number).layout.xaxis.type == "log"


def test_an_empty_study_says_so() -> None:
    assert plot_front(optuna.create_study()).layout.annotations[0].text == "No finished trials yet."


def test_twins_alone_say_so_too() -> None:
    study = optuna.create_study()
    study.add_trial(create_trial(value=1.0, user_attrs={record.TWIN_OF.name: 7, "n_params": 3}))
    assert plot_front(study).layout.annotations[0].text == "No finished trials yet."


def test_ticks_of_many_decades_have_room(study: optuna.Study) -> None:
    figure = plot_front(study, x=lambda t: 1e40**t.number)
    assert 280 / figure.layout.xaxis.dtick <= 6
