"""What a better value costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas import record
from optnas.analysis.front import Axes, Quantity, best_trials, pareto_front, points, quantity
from optnas.analysis.trials import maximizes, objective_names
from optnas.analysis.words import shorten
from optnas.plots.theme import BLUE, ENDS, GREEN, RAMP, VERMILION, empty, plain, style, transparent
from optnas.record import End, end


def plot_front(
    study: Study,
    x: Quantity | None = None,
    y: Quantity | None = None,
    *,
    maximize: tuple[bool, bool] | None = None,
) -> go.Figure:
    """COMPLETE trials by two numbers, with the front of those that no other trial beats in both.

    What broke a limit is told apart, and what was pruned, which stands at its last report; of members of the
    front that were trained anew, mean and standard deviation. `x`, `y`, `maximize`: as for `pareto_front`.

    Of a study with more than two objectives, unless `x` or `y` is given, the axes are the first two, the
    color is the third, and the front is that of all of them: what another trial beats in both axes may still
    be on it.

    Raises:
        ValueError: no trial has both numbers; the message lists what trials have.

    Examples:
        >>> optnas.plots.plot_front(several).write_html("front.html")
    """
    axes = Axes.of(study, x, y, maximize)
    found = points(study, axes.x, axes.y)
    if not found:
        return empty("No finished trials yet.")
    names = objective_names(study) if x is None and y is None else []
    colored = len(names) > 2
    front = best_trials(study) if colored else pareto_front(study, x, y, maximize=maximize)
    figure = go.Figure()
    hover = "trial %{text}<br>%{x:.4~s}, %{y:.5g}<extra></extra>"
    figure.add_scatter(
        x=[p[0] for p in found],
        y=[p[1] for p in found],
        text=[_text(p[2], names) for p in found],
        mode="markers",
        marker={
            "size": 7,
            **(_colors([p[2] for p in found]) if colored else {"color": transparent(BLUE, 0.8)}),
        },
        name="trials",
        hovertemplate=hover,
    )
    for kind in (End.PRUNED, End.INFEASIBLE):
        apart = [p for p in _apart(study, axes) if end(p[2]) is kind]
        if apart:
            figure.add_scatter(
                x=[p[0] for p in apart],
                y=[p[1] for p in apart],
                text=[p[2].number for p in apart],
                mode="markers",
                marker=ENDS[kind],
                name=kind.value,
                hovertemplate=hover,
            )
    figure.add_scatter(
        x=[quantity(t, axes.x) for t in front],
        y=[quantity(t, axes.y) for t in front],
        text=[_text(t, names) for t in front],
        mode="markers" if colored else "lines+markers",
        line={"color": VERMILION, "shape": "vh" if axes.up[0] else "hv", "width": 2},
        marker={
            "symbol": "diamond",
            "size": 12 if colored else 9,
            **({**_colors(front), "line": {"color": VERMILION, "width": 2}} if colored else {}),
        },
        name="front",
        hovertemplate=hover,
    )
    anew = [(t.number, *_retrained(study, t, axes)) for t in front]
    if shown := [found for found in anew if max(len(found[1]), len(found[2])) > 1]:
        figure.add_scatter(
            x=[statistics.fmean(xs) for _, xs, _ in shown],
            y=[statistics.fmean(ys) for _, _, ys in shown],
            error_x={"type": "data", "array": [_spread(xs) for _, xs, _ in shown]},
            error_y={"type": "data", "array": [_spread(ys) for _, _, ys in shown]},
            text=[number for number, _, _ in shown],
            mode="markers",
            marker={"color": GREEN, "size": 7},
            name="trained anew",
            hovertemplate=hover,
        )
    style(figure, x=axes.labels[0], y=axes.labels[1])
    if colored:
        shades = RAMP if maximizes(study, 2) else RAMP[::-1]
        scale = [[i / (len(shades) - 1), shade] for i, shade in enumerate(shades)]
        title = {"text": plain(shorten(names[2], 20)), "side": "right"}
        bar = {"title": title, "thickness": 12, "outlinewidth": 0, "nticks": 5}
        figure.update_layout(coloraxis={"colorscale": scale, "colorbar": bar})
    xs = [p[0] for p in found]
    if min(xs) > 0 and max(xs) / min(xs) > 30:
        decades = math.log10(max(xs)) - math.log10(min(xs))
        figure.update_xaxes(type="log", dtick=max(1, math.ceil(decades / 6)))
    return figure


def _colors(trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    return {"color": [trial.values[2] for trial in trials], "coloraxis": "coloraxis"}


def _text(trial: FrozenTrial, names: Sequence[str]) -> str:
    """What the pointer shows of a trial beside its place: its number, and objectives beyond the axes."""
    beyond = zip(names[2:], trial.values[2:], strict=True) if len(names) > 2 else ()
    return "<br>".join([str(trial.number), *(f"{plain(name)} {value:.5g}" for name, value in beyond)])


def _apart(study: Study, axes: Axes) -> list[tuple[float, float, FrozenTrial]]:
    """Trials that are no candidates for the front, where both their numbers are known."""
    found = []
    for trial in study.get_trials(deepcopy=False):
        if end(trial) in (End.PRUNED, End.INFEASIBLE):
            last = max(trial.intermediate_values.items(), default=(0, math.nan))[1]
            reports = record.REPORTS.of(trial) or {}
            newest = reports[max(reports, key=int)] if reports else {}
            numbers = {**record.facts(trial), **newest, **record.metrics(trial), "value": last}
            values = dict(zip(objective_names(study), trial.values or (), strict=False))
            x, y = ({**numbers, **values}.get(name, math.nan) for name in _names(study, axes))
            if math.isfinite(x) and math.isfinite(y):
                found.append((float(x), float(y), trial))
    return found


def _names(study: Study, axes: Axes) -> tuple[str, str]:
    """What the axes are called in what trials record; "" of a function."""
    several = objective_names(study) if len(study.directions) > 1 and callable(axes.x) else ["", ""]
    x, y = (w if isinstance(w, str) else n for w, n in zip((axes.x, axes.y), several[:2], strict=True))
    return x, y


def _retrained(study: Study, trial: FrozenTrial, axes: Axes) -> tuple[list[float], list[float]]:
    """What trainings anew reached in x and in y; what they do not change, once."""
    runs = [
        run for kept in record.all_retrained(study) if kept["who"] == trial.number for run in kept["runs"]
    ]
    found = []
    for name, what in zip(_names(study, axes), (axes.x, axes.y), strict=True):
        metric = objective_names(study)[0] if name == "value" else name
        reached = [run[metric] for run in runs if metric in run and math.isfinite(run[metric])]
        found.append(reached or [quantity(trial, what)])
    return found[0], found[1]


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
