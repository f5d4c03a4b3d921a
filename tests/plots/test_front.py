import optuna
import pytest
from optuna.trial import create_trial

from optnas import record
from optnas.plots import plot_front
from optnas.plots.theme import RAMP


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


def test_what_broke_a_limit_what_was_pruned_and_what_was_trained_anew_are_told_apart() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values in ((0.5, 10.0), (0.9, 20.0)):
        study.add_trial(create_trial(values=values))
    study.add_trial(create_trial(values=(0.99, 5.0), constraints={"latency": 1.0}))
    reports = {"0": {"value 0": 0.1}, "10": {"value 0": 0.4}}
    attrs = {record.REPORTS.name: reports, record.FACTS.name: {"value 1": 7.0}}
    study.add_trial(create_trial(state=optuna.trial.TrialState.PRUNED, user_attrs=attrs))
    record.write_retrained(study, 1, None, [{"value 0": 0.8}, {"value 0": 0.9}])
    found = {trace.name: (list(trace.x), list(trace.y)) for trace in plot_front(study).data}
    assert found["infeasible"] == ([0.99], [5.0])
    assert found["pruned"] == ([0.4], [7.0])
    assert found["front"] == ([0.5, 0.9], [10.0, 20.0])
    assert found["trained anew"] == ([pytest.approx(0.85)], [20.0])


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_of_three_objectives_the_third_is_the_color_and_the_front_that_of_all() -> None:
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    study.set_metric_names(["val_acc", "latency", "size<b>"])
    for values in ((0.9, 1.0, 300.0), (0.8, 2.0, 100.0), (0.7, 3.0, 200.0)):
        study.add_trial(create_trial(values=values))
    study.add_trial(create_trial(values=(0.99, 0.5, 50.0), constraints={"size": 1.0}))
    figure = plot_front(study)
    trials, infeasible, front = figure.data
    assert sorted(trials.x) == [0.7, 0.8, 0.9]
    assert (infeasible.name, list(infeasible.x)) == ("infeasible", [0.99])
    assert (sorted(front.x), front.mode) == ([0.8, 0.9], "markers")  # trial 1 is beaten in both axes
    assert sorted(front.marker.color) == [100.0, 300.0]
    assert "size&lt;b&gt; 100" in "".join(front.text)
    shades = figure.layout.coloraxis.colorscale
    assert shades[0][1] == RAMP[-1]  # the smallest stands out
    of_two = plot_front(study, x=lambda t: t.values[0], y=lambda t: t.values[1], maximize=(True, False))
    assert list(of_two.data[-1].x) == [0.9]
