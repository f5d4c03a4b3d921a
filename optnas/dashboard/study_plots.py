"""Plots that a study carries along, so that any optuna-dashboard shows them."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from functools import partial

import optuna
import plotly.graph_objects as go
from optuna.trial import TrialState
from optuna_dashboard import save_plotly_graph_object

from optnas import plots
from optnas.analysis.evaluator import ConditionalAnovaEvaluator
from optnas.analysis.front import has_points
from optnas.analysis.importance import MIN_TRIALS, importance
from optnas.analysis.objectives import FRONT, as_one
from optnas.analysis.trials import finished, objective_names, scored
from optnas.analysis.trust import recorded_estimates
from optnas.analysis.words import shorten
from optnas.errors import describe_error
from optnas.plots.theme import empty, plain
from optnas.record import Target

_log = logging.getLogger(__name__)
_MOST = 1000  # trials in a plot with a line per trial, which the study's attributes have to hold


def save_plots(study: optuna.Study) -> list[str]:
    """Save what optnas plots of a study into it, over what was saved before; returns the names.

    What a plot cannot show yet is left out: a study of ten trials gets all. An error of one stands in its
    place.
    """
    names: dict[str, str] = {}
    for name, make in _plots(study).items():
        try:
            figure = make()
        except Exception as error:
            _log.warning("The plot %r of study %r fails.", name, study.study_name, exc_info=True)
            figure = empty(f"This could not be drawn: {plain(shorten(describe_error(error), 80))}")
        else:
            if not figure.data:
                continue
        # On a phone the legend takes a line for two entries, between the title and the plot.
        n_lines = math.ceil(sum(trace.showlegend is not False for trace in figure.data) / 2)
        figure.update_layout(
            template=go.layout.Template(),  # or each carries plotly's own, of 7 kB
            title={"text": plain(shorten(name, 60)), "x": 0.01, "y": 0.98, "yanchor": "top"},
            margin={"t": max(72, 36 + 20 * n_lines), "b": 24},
            height=430,  # the page puts its buttons over the plot, which is no higher than this
        )
        plot_id = "optnas-" + re.sub("[^A-Za-z0-9_-]", "-", name)  # an objective may be called anything
        while plot_id in names.values():
            plot_id += "-"
        save_plotly_graph_object(study, figure, graph_object_id=plot_id)
        names[name] = plot_id
    return list(names)


def choose_params(study: optuna.Study, n: int) -> list[str]:
    """The `n` most important decisions of the first objective: Optuna's plots of all pairs never end."""
    value: Target | None = (lambda trial: trial.values[0]) if len(study.directions) > 1 else None
    if len(finished(study)) < 2:
        return []
    return list(ConditionalAnovaEvaluator().evaluate(study, target=value))[:n]


def _plots(study: optuna.Study) -> dict[str, Callable[[], go.Figure]]:
    n_complete = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    if n_complete < 2:
        return {}
    if len(study.directions) > 1:
        return _of_several(study, n_complete)
    found: dict[str, Callable[[], go.Figure]] = {
        "history": lambda: plots.plot_history(study),
        "timeline": lambda: plots.plot_timeline(study),
    }
    if has_points(study):
        found["cost"] = lambda: plots.plot_front(study)
    if estimates := recorded_estimates(study):
        found["cheap estimates"] = lambda: plots.plot_rank_correlation(estimates)
    if n_complete <= _MOST:
        found["learning curves"] = lambda: plots.plot_learning_curves(study)
        found["decisions"] = lambda: plots.plot_parallel(study, n=4)
    if len(scored(study)) >= MIN_TRIALS:
        found["importance"] = partial(_importance, study)
    return found


def _of_several(study: optuna.Study, n_complete: int) -> dict[str, Callable[[], go.Figure]]:
    found: dict[str, Callable[[], go.Figure]] = {
        "front": lambda: plots.plot_front(study),
        "hypervolume": lambda: plots.plot_hypervolume(study),
        "timeline": lambda: plots.plot_timeline(study),
    }
    ones = {"distance to the front": FRONT, **{name: name for name in objective_names(study)}}
    for title, of in ones.items():
        one = as_one(study, of)
        if of != FRONT and n_complete <= _MOST:
            found[f"learning curves, {title}"] = partial(plots.plot_learning_curves, one, name=of)
        if len(scored(one)) >= MIN_TRIALS:
            found[f"importance, {title}"] = partial(_importance, one)
    if n_complete <= _MOST:
        found["decisions, by distance to the front"] = lambda: plots.plot_parallel(as_one(study, FRONT), n=4)
    return found


def _importance(study: optuna.Study) -> go.Figure:
    return plots.plot_importance(importance(study))
