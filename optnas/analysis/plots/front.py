"""What a better value costs."""

from __future__ import annotations

import plotly.graph_objects as go
from optuna.study import Study

from optnas.analysis.front import Quantity, pareto_front, points, quantity
from optnas.analysis.plots.theme import BLUE, VERMILION, empty, style, transparent
from optnas.analysis.trials import finished

_LABELS = {
    "n_params": "parameters",
    "flops": "FLOPs per sample",
    "duration": "duration of the estimate (s)",
}


def plot_front(
    study: Study,
    x: Quantity = "n_params",
    y: Quantity = "value",
    *,
    maximize: tuple[bool, bool] | None = None,
) -> go.Figure:
    """COMPLETE trials by two numbers, with the front of those that no other trial beats in both.

    `x`, `y`: "value", a fact, a metric, or a function of a trial. `maximize`: whether larger is better, of x
    and of y; unless given, less of x is better, and y is read as the study's first objective.

    Raises:
        ValueError: no trial has both numbers; the message lists what trials have.
    """
    if not finished(study):
        return empty("No finished trials yet.")
    found = points(study, x, y)
    front = pareto_front(study, x, y, maximize=maximize)
    figure = go.Figure()
    hover = "trial %{text}<br>%{x:.4~s}, %{y:.5g}<extra></extra>"
    figure.add_scatter(
        x=[p[0] for p in found],
        y=[p[1] for p in found],
        text=[p[2].number for p in found],
        mode="markers",
        marker={"color": transparent(BLUE, 0.8), "size": 7},
        name="trials",
        hovertemplate=hover,
    )
    figure.add_scatter(
        x=[quantity(t, x) for t in front],
        y=[quantity(t, y) for t in front],
        text=[t.number for t in front],
        mode="lines+markers",
        line={"color": VERMILION, "shape": "hv", "width": 2},
        marker={"symbol": "diamond", "size": 9},
        name="front",
        hovertemplate=hover,
    )
    style(figure, x=_label(x), y=_label(y))
    xs = [p[0] for p in found]
    if min(xs) > 0 and max(xs) / min(xs) > 30:
        figure.update_xaxes(type="log", dtick=1)
    return figure


def _label(what: Quantity) -> str:
    return _LABELS.get(what, what) if isinstance(what, str) else getattr(what, "__name__", "")
