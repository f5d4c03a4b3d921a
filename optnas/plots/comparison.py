"""Strategies or spaces side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from optuna.study import Study
from scipy import stats

from optnas.analysis.compare import Floats, Groups, best_so_far, deviation, named_groups
from optnas.plots.theme import SERIES, empty, plain, style, transparent

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def plot_comparison(groups: Groups, *, name: str = "best value so far") -> go.Figure:
    """Mean best value after so many trials that count, with Student's 95 % band over each group's studies.

    `groups`: as for `compare`. A group's curve ends with its shortest study; a group of one has no band. The
    first tenth of the trials, where all are bad, may lie outside of what is seen at first.

    Raises:
        ValueError: fewer than two groups, an empty group, several objectives or different directions.

    Examples:
        >>> optnas.plots.plot_comparison({"a": [study], "b": [study]}).write_html("comparison.html")
    """
    bands: list[go.Scatter] = []
    lines: list[go.Scatter] = []
    shown: list[float] = []
    for i, (group_name, studies) in enumerate(named_groups(groups).items()):
        color, dash = SERIES[i % len(SERIES)], _DASHES[(i + i // len(SERIES)) % len(_DASHES)]
        x, mean, reach = _curve(studies)
        if not len(x):
            continue
        if len(studies) > 1:
            bands.append(
                go.Scatter(
                    x=np.concatenate([x, x[::-1]]),
                    y=np.concatenate([mean + reach, (mean - reach)[::-1]]),
                    fill="toself",
                    fillcolor=transparent(color, 0.18),
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                    legendgroup=group_name,
                )
            )
        lines.append(
            go.Scatter(
                x=x,
                y=mean,
                mode="lines",
                line={"color": color, "dash": dash, "width": 2.5},
                name=f"{plain(group_name)} ({len(studies)})",
                legendgroup=group_name,
                hovertemplate="%{y:.5g} after %{x} trials<extra>" + plain(group_name) + "</extra>",
            )
        )
        late = x > x[-1] / 10
        shown += [*(mean - reach)[late], *(mean + reach)[late]]
    if not lines:
        return empty("No study has a COMPLETE trial yet.")
    figure = go.Figure([*bands, *lines])  # no band covers a line
    legend = 22 * max(0, len(lines) - 3)  # on a phone, a row for each
    style(figure, height=420 + legend, x="trials", y=name)
    if margin := 0.05 * (max(shown) - min(shown)):
        figure.update_yaxes(range=[min(shown) - margin, max(shown) + margin])
    return figure


def _curve(studies: Sequence[Study]) -> tuple[Floats, Floats, Floats]:
    """Numbers of trials, the mean best value after them, half the width of its interval (0 of one study)."""
    length = min(len(best_so_far(study)) for study in studies)
    curves = np.array([best_so_far(study)[:length] for study in studies])
    complete = ~np.isnan(curves).any(axis=0)
    curves = curves[:, complete]
    reach = np.zeros(curves.shape[1])
    if len(studies) > 1:
        error = deviation(curves) / np.sqrt(len(studies))
        reach = stats.t.ppf(0.975, len(studies) - 1) * error
    return 1.0 + np.flatnonzero(complete).astype(np.float64), curves.mean(axis=0), reach
