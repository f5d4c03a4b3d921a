"""One look for all plots: color-blind safe, legible on light and on dark pages, from 400 pixels of width."""

from __future__ import annotations

from html import escape
from typing import Any

import plotly.graph_objects as go

from optnas.analysis.words import shorten
from optnas.record import End

# Okabe & Ito's palette without its yellow and black, which vanish on a light and on a dark page.
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#56b4e9",
    "#cc79a7",
)
SERIES = (BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE)
RAMP = (  # from worst to best; the best stands out on either page
    "#767676",
    "#7c93a8",
    SKY,
    ORANGE,
    VERMILION,
)
INK = "#767676"  # contrast at least 4.1 on white and on #111
GRID = "rgba(128, 128, 128, 0.25)"

_TITLE = 40  # characters of an axis' title, which the lowest plot has room for
_BUTTONS = ("zoom", "pan", "select", "lasso", "zoomin", "zoomout", "autoscale")

# Color and shape both tell how a trial ended.
ENDS: dict[End, dict[str, Any]] = {
    End.COMPLETE: {"color": BLUE, "symbol": "circle"},
    End.TWIN: {"color": SKY, "symbol": "diamond-open"},
    End.PRUNED: {"color": ORANGE, "symbol": "triangle-down"},
    End.INFEASIBLE: {"color": PURPLE, "symbol": "square-open"},
    End.FAILED: {"color": VERMILION, "symbol": "x"},
    End.OPEN: {"color": INK, "symbol": "circle-open"},
}


def style(figure: go.Figure, *, height: int = 420, x: str | None = None, y: str | None = None) -> go.Figure:
    """Transparent, sized by its container, with the legend above the plot; `x` and `y` title the axes."""
    figure.update_layout(
        height=height,
        autosize=True,
        margin={"l": 8, "r": 12, "t": 8, "b": 8, "autoexpand": True},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "size": 12, "family": "system-ui, sans-serif"},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
        # On a phone all of plotly's buttons hide the legend; dragging and double clicks do what these do.
        modebar={"remove": list(_BUTTONS), "bgcolor": "rgba(0,0,0,0)", "color": INK},
    )
    axes = {"automargin": True, "gridcolor": GRID, "linecolor": GRID, "zeroline": False}
    figure.update_xaxes(**axes, nticks=8)
    figure.update_yaxes(**axes, nticks=7)
    if x is not None:
        figure.update_xaxes(title_text=plain(shorten(x, _TITLE)), title_standoff=8)
    if y is not None:
        figure.update_yaxes(title_text=plain(shorten(y, _TITLE)), title_standoff=8)
    return figure


def transparent(color: str, opacity: float) -> str:
    """A `#rrggbb` color, see-through."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"


def empty(message: str) -> go.Figure:
    """A figure that says why there is nothing to see."""
    figure = style(go.Figure(), height=160)
    figure.add_annotation(text=message, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def plain(words: str) -> str:
    """Words as plotly shows them, which reads markup and, under the pointer, `%{x}`."""
    return escape(words, quote=False).replace("%{", "%&#123;")
