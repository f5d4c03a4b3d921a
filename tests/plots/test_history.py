import math
from datetime import datetime, timedelta

import optuna
import plotly.graph_objects as go
import pytest
from optuna.trial import create_trial

from optnas import record
from optnas.plots import plot_history, plot_hypervolume, plot_learning_curves, plot_timeline


def traces(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data}


def test_history_tells_the_ends_apart(study: optuna.Study) -> None:
    found = traces(plot_history(study))
    assert list(found["complete"].x) == [0, 1, 3, 7]
    assert list(found["complete"].y) == [0.5, 0.7, 0.9, 0.6]
    assert list(found["twin"].x) == [2]
    assert "of trial 1" in found["twin"].text[0]
    assert (list(found["pruned"].x), list(found["pruned"].y)) == ([4], [0.1])
    assert list(found["best so far"].y) == [0.5, 0.7, 0.7, 0.9, 0.9]
    # Without a value: a strip of their own.
    assert found["infeasible"].yaxis == found["failed"].yaxis == "y2"
    assert "out of memory" in found["infeasible"].text[0]
    assert "ValueError" in found["failed"].text[0]


def test_history_of_another_number(study: optuna.Study) -> None:
    found = traces(plot_history(study, target=lambda t: record.facts(t)["n_params"], name="parameters"))
    assert list(found["complete"].y) == [100, 200, 400, 300]
    assert "best so far" not in found


def test_learning_curves_mark_the_best_and_the_pruned(study: optuna.Study) -> None:
    figure = plot_learning_curves(study)
    found = traces(figure)
    assert list(found["best (trial 3)"].y) == [0.6, 0.9]
    assert list(found["complete"].y) == [0.3, 0.5, None]
    assert list(found["pruned"].y) == [0.1, None]


def test_diverged_values_do_not_reach_the_axes() -> None:
    study = optuna.create_study()

    def objective(trial: optuna.Trial) -> float:
        trial.report(1.0, 0)
        trial.report(float("nan"), 1)
        trial.report(float("inf"), 2)
        raise optuna.TrialPruned

    study.optimize(objective, n_trials=1)
    assert list(traces(plot_learning_curves(study))["pruned"].y) == [1.0, None]
    assert list(traces(plot_history(study))["pruned"].y) == [1.0]


def test_timeline_has_a_row_per_worker_and_a_bar_per_attempt(study: optuna.Study) -> None:
    figure = plot_timeline(study)
    found = traces(figure)
    assert list(found["interrupted"].text) == ["3"]
    assert list(found["interrupted"].x) == [10_000]
    assert {"a:1", "b:2"} <= set(figure.layout.yaxis.ticktext)
    n_bars = sum(len(trace.x) for trace in figure.data)
    assert n_bars == len(study.trials) + 1
    assert len({trace.width for trace in figure.data}) == 1
    looks = {(trace.marker.color, trace.marker.pattern.shape) for trace in figure.data}
    assert len(looks) == len(figure.data)


def test_workers_go_without_the_domain_of_their_hosts() -> None:
    study = optuna.create_study()
    for host in ("node-1.cluster.example.org", "10.0.0.7", "a-very-long-name-of-a-host"):
        attempt = {"host": host, "pid": 12345, "started": 1000.0, "ended": 1010.0}
        study.add_trial(create_trial(value=1.0, user_attrs={record.ATTEMPTS.name: [attempt]}))
    axis = plot_timeline(study).layout.yaxis
    assert axis.ticktext == ("node-1:12345", "10.0.0.7:12345", "a-very-l…ost:12345")


def test_an_empty_study_says_so() -> None:
    study = optuna.create_study()
    for plot in (plot_history, plot_learning_curves, plot_timeline):
        figure = plot(study)
        assert not figure.data
        assert figure.layout.annotations[0].text.startswith("No ")


def test_an_infinite_value_is_never_the_best() -> None:
    study = optuna.create_study(direction="maximize")
    reports = {0: 1.0}
    study.add_trials(
        [create_trial(value=v, intermediate_values=reports) for v in (0.5, math.inf, 0.7, -math.inf)]
    )
    found = traces(plot_history(study))
    assert (list(found["best so far"].x), list(found["best so far"].y)) == ([0, 2], [0.5, 0.7])
    assert "best (trial 2)" in traces(plot_learning_curves(study))


def test_attributes_of_another_kind_are_none_of_ours() -> None:
    own = {"attempts": 3, "twin_of": "no", "infeasible": False, "reason": {"why": None}}
    study = optuna.create_study()
    study.add_trial(create_trial(value=0.5, user_attrs=own))
    assert list(traces(plot_history(study))["complete"].text) == ["trial 0, complete"]
    assert list(traces(plot_timeline(study))["complete"].text) == ["0"]


def test_bars_last_as_long_as_the_trials() -> None:
    study = optuna.create_study()
    begun = datetime(2026, 3, 1, 12)
    for seconds in (0.0, 1.5, 7200.0):
        trial = create_trial(value=1.0)
        trial.datetime_start, trial.datetime_complete = begun, begun + timedelta(seconds=seconds)
        study.add_trial(trial)
    assert list(traces(plot_timeline(study))["complete"].x) == pytest.approx([0, 1500, 7_200_000])


def test_the_hypervolume_says_up_to_where_it_is_counted() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    assert plot_hypervolume(study).layout.annotations[0].text == "No trial has values yet."
    study.add_trials([create_trial(values=v) for v in ((1.0, 3.0), (2.0, 4.0))])
    figure = plot_hypervolume(study, {"value 0": 0.0, "value 1": 5.0})
    assert list(figure.data[0].y) == [2.0, 3.0]
    assert figure.layout.yaxis.title.text == "hypervolume up to value 0 0, value 1 5"
