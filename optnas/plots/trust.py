"""Cheap estimates beside what costs nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from optnas.analysis.trust import Agreement, RankCorrelation
from optnas.plots.theme import BLUE, INK, empty, plain, style


def plot_rank_correlation(found: Sequence[RankCorrelation]) -> go.Figure:
    """Kendall's correlation of each estimate, and of the floors, with 95 % intervals.

    Examples:
        >>> found = [optnas.rank_correlation(study, "n_params", larger=False)]
        >>> optnas.plots.plot_rank_correlation(found).write_html("trust.html")
    """
    floors = {floor.name: floor for one in found for floor in one.floors}
    groups = {
        ("estimate", BLUE, "circle"): [one.estimate for one in found],
        ("costs nothing", INK, "diamond-open"): list(floors.values()),
    }
    figure = go.Figure()
    for (title, color, symbol), rows in groups.items():
        if shown := [row for row in rows if math.isfinite(row.kendall.value)]:
            figure.add_trace(_dots(shown, title, color, symbol))
    if not figure.data:
        return empty("No estimate to compare with trained results.")
    n = sum(len(trace.x) for trace in figure.data)
    style(figure, height=110 + 26 * n, x="Kendall's rank correlation")
    return figure.update_yaxes(nticks=n, autorange="reversed")


def _dots(rows: Sequence[Agreement], title: str, color: str, symbol: str) -> go.Scatter:
    return go.Scatter(
        x=[row.kendall.value for row in rows],
        y=[plain(row.name) for row in rows],
        mode="markers",
        name=title,
        marker={"color": color, "symbol": symbol, "size": 10},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [row.kendall.high - row.kendall.value for row in rows],
            "arrayminus": [row.kendall.value - row.kendall.low for row in rows],
            "color": color,
            "thickness": 1.5,
            "width": 3,
        },
        customdata=[[str(row.kendall), row.n] for row in rows],
        hovertemplate="%{y}: %{customdata[0]}<br>%{customdata[1]} trials<extra></extra>",
    )
