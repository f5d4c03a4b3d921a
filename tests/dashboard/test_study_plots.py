"""Plots are saved into the study and over their former selves; plots of pairs are of chosen decisions."""

from __future__ import annotations

import json

import optuna
import pytest
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

from optnas import record
from optnas.dashboard.study_plots import choose_params, save_plots


def many(trial: optuna.Trial) -> float:
    """Two of twelve decisions matter; one of them is asked in half of the trials."""
    answers = [trial.suggest_float(f"p{i}", 0, 1) for i in range(10)]
    value = 3 * answers[7] + 0.01 * answers[0]
    if trial.suggest_categorical("op", ["a", "b"]) == "a":
        value += 5 * trial.suggest_float("a.rate", 0, 1)
    trial.report(value, 0)
    return value


@pytest.fixture
def study() -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), direction="maximize")
    study.optimize(many, 100)
    return study


def saved(study: optuna.Study) -> dict[str, dict[str, object]]:
    attrs = study._storage.get_study_system_attrs(study._study_id)
    return {name: json.loads(text) for name, text in get_plotly_graph_objects(attrs).items()}


def test_plots_are_saved_and_replaced(study: optuna.Study) -> None:
    names = save_plots(study)
    assert set(saved(study)) == {f"optnas-{name.replace(' ', '-')}" for name in names}
    assert set(names) == {"history", "timeline", "learning curves", "decisions", "importance"}
    before = saved(study)["optnas-history"]["data"]
    study.optimize(many, 5)
    assert save_plots(study) == names
    after = saved(study)["optnas-history"]["data"]
    assert [len(trace["x"]) for trace in after if trace["name"] == "complete"] == [105]
    assert before != after
    assert sum(len(json.dumps(figure)) for figure in saved(study).values()) < 100_000


def test_a_study_without_results_has_no_plots() -> None:
    study = optuna.create_study()
    assert save_plots(study) == []
    assert choose_params(study, 3) == []


def test_the_decisions_that_matter_are_chosen(study: optuna.Study) -> None:
    assert set(choose_params(study, 3)) >= {"p7", "a.rate"}
    several = optuna.create_study(directions=["maximize", "minimize"])
    several.add_trials(
        [
            optuna.create_trial(params=t.params, distributions=t.distributions, values=[t.value, 0.0])
            for t in study.trials
        ]
    )
    assert choose_params(several, 3) == choose_params(study, 3)


def test_each_of_several_objectives_has_its_plots(study: optuna.Study) -> None:
    several = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        several.set_metric_names(["score", "a b", "a-b"])
    for t in study.trials:
        reports = {record.REPORTS.name: {"0": {"score": t.value}}}
        values = [t.value, t.params["p0"], t.params["p1"]]
        several.add_trial(
            optuna.create_trial(
                params=t.params, distributions=t.distributions, values=values, user_attrs=reports
            )
        )
    names = save_plots(several)
    assert names == [
        *("front", "hypervolume", "timeline", "importance, distance to the front"),
        *("learning curves, score", "importance, score", "importance, a b", "importance, a-b"),
        "decisions, by distance to the front",
    ]
    plots = saved(several)
    assert len(plots) == len(names)
    leads = {
        figure["layout"]["title"]["text"]: figure["data"][0]["customdata"][-1][0]
        for name, figure in plots.items()
        if name.startswith("optnas-importance")
    }
    assert leads["importance, a b"] == "p0"
    assert leads["importance, a-b"] == "p1"
    assert leads["importance, score"] in ("p7", "op", "a.rate")


def test_a_plot_that_cannot_be_made_costs_no_other() -> None:
    study = optuna.create_study()
    trial = optuna.create_trial(value=float("inf"), user_attrs={"n_params": 3})
    study.add_trials([trial] * 12)
    assert save_plots(study) == ["history", "timeline"]


def test_estimates_are_shown_where_a_fact_promises_something(study: optuna.Study) -> None:
    assert "cheap estimates" not in save_plots(study)
    for i in range(6):
        facts = {"naswot": float(i), "n_params": i % 2}
        study.add_trial(optuna.create_trial(value=i, user_attrs={record.FACTS.name: facts}))
    record.write_fact_kinds(study, {"naswot": record.FactKind("naswot", "NASWOT", "", "higher")})
    assert "cheap estimates" in save_plots(study)
    assert "NASWOT" in json.dumps(saved(study)["optnas-cheap-estimates"])
