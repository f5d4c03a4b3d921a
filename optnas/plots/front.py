"""What a better value costs."""

from __future__ import annotations

import math

import plotly.graph_objects as go
from optuna.study import Study

from optnas.analysis.front import Axes, Quantity, pareto_front, points, quantity
from optnas.plots.theme import BLUE, VERMILION, empty, style, transparent


def plot_front(
    study: Study,
    x: Quantity | None = None,
    y: Quantity | None = None,
    *,
    maximize: tuple[bool, bool] | None = None,
) -> go.Figure:
    """COMPLETE trials by two numbers, with the front of those that no other trial beats in both.

    `x`, `y`, `maximize`: as for `pareto_front`.

    Raises:
        ValueError: no trial has both numbers; the message lists what trials have.
    """
    axes = Axes.of(study, x, y, maximize)
    found = points(study, axes.x, axes.y)
    if not found:
        return empty("No finished trials yet.")
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
        x=[quantity(t, axes.x) for t in front],
        y=[quantity(t, axes.y) for t in front],
        text=[t.number for t in front],
        mode="lines+markers",
        line={"color": VERMILION, "shape": "vh" if axes.up[0] else "hv", "width": 2},
        marker={"symbol": "diamond", "size": 9},
        name="front",
        hovertemplate=hover,
    )
    style(figure, x=axes.labels[0], y=axes.labels[1])
    xs = [p[0] for p in found]
    if min(xs) > 0 and max(xs) / min(xs) > 30:
        decades = math.log10(max(xs)) - math.log10(min(xs))
        figure.update_xaxes(type="log", dtick=max(1, math.ceil(decades / 6)))
    return figure
