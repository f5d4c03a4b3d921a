"""Plots that a study carries along, so that any optuna-dashboard shows them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import optuna
import plotly.graph_objects as go
from optuna.trial import TrialState
from optuna_dashboard import save_plotly_graph_object

from optnas import plots
from optnas.analysis.anova import ConditionalAnovaEvaluator
from optnas.analysis.front import has_points
from optnas.analysis.importance import MIN_TRIALS, importance
from optnas.analysis.trials import finished, scored
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
    names = []
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
            title={"text": name, "x": 0.01, "y": 0.98, "yanchor": "top"},
            margin={"t": max(72, 36 + 20 * n_lines), "b": 24},
            height=430,  # the page puts its buttons over the plot, which is no higher than this
        )
        plot_id = f"optnas-{name.replace(' ', '-')}"
        save_plotly_graph_object(study, figure, graph_object_id=plot_id)
        names.append(name)
    return names


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
        return {
            "front": lambda: plots.plot_front(study),
            "hypervolume": lambda: plots.plot_hypervolume(study),
            "timeline": lambda: plots.plot_timeline(study),
        }
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
        found["importance"] = lambda: plots.plot_importance(importance(study))
    return found
