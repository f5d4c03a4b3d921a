"""What happened, trial by trial: values, learning curves, and who worked when."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import plotly.graph_objects as go
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from plotly.subplots import make_subplots

from optnas import record
from optnas.analysis.front import hypervolumes
from optnas.analysis.trials import maximizes, objective_names, objective_value, scored
from optnas.analysis.words import shorten
from optnas.pareto import valued
from optnas.plots.theme import BLUE, ENDS, GREEN, INK, empty, plain, style, transparent
from optnas.record import End, Target, end


def plot_history(study: Study, *, target: Target | None = None, name: str | None = None) -> go.Figure:
    """Values by trial number, with the best so far.

    Pruned trials stand at the last value that they reported; failed and infeasible ones, whose values are not
    compared, in a strip of their own below. `name`: of the value, for the axis; the study's own name for it
    if not given.

    Raises:
        ValueError: several objectives and no `target`.

    Examples:
        >>> optnas.plots.plot_history(study).write_html("history.html")
    """
    value = objective_value(study, target)
    trials = study.get_trials(deepcopy=False)
    heights = {t.number: _height(t, value) for t in trials}
    strip = [t for t in trials if t.state.is_finished() and heights[t.number] is None]
    if not any(t.state.is_finished() for t in trials):
        return empty("No finished trials yet.")
    rows = 2 if strip else 1
    figure = make_subplots(
        rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.03, row_heights=[0.92, 0.08][:rows]
    )
    for kind in (End.COMPLETE, End.TWIN, End.PRUNED, End.INFEASIBLE, End.FAILED):
        for row, group in ((1, [t for t in trials if heights[t.number] is not None]), (2, strip)):
            chosen = [t for t in group if end(t) is kind]
            if chosen:
                ys = [heights[t.number] if row == 1 else 0 for t in chosen]
                shown = row == 1 or all(heights[t.number] is None for t in trials if end(t) is kind)
                figure.add_trace(_points(chosen, ys, kind, shown), row=row, col=1)
    if target is None:
        figure.add_trace(_best_so_far(study, trials, value), row=1, col=1)
    style(figure, height=420)
    name = name or (objective_names(study)[0] if target is None else "value")
    figure.update_yaxes(title_text=plain(shorten(name, 40)), row=1, col=1)
    figure.update_xaxes(title_text="trial", title_standoff=8, row=rows, col=1)
    if strip:
        figure.update_yaxes(visible=False, range=[-1, 1], row=2, col=1)
    return figure


def plot_hypervolume(study: Study, reference: Mapping[str, float] | None = None) -> go.Figure:
    """The hypervolume of the front after each trial, of a study with several objectives.

    `reference`: as for `hypervolumes`; the title of the axis says which one was taken.

    Examples:
        >>> optnas.plots.plot_hypervolume(several).write_html("hypervolume.html")
    """
    if not valued(study):
        return empty("No trial has values yet.")
    found = hypervolumes(study, reference)
    figure = go.Figure()
    figure.add_scatter(
        x=list(range(1, len(found.volumes) + 1)),
        y=list(found.volumes),
        text=list(found.trials),
        mode="lines",
        line={"color": BLUE, "shape": "hv", "width": 2},
        hovertemplate="trial %{text}<br>%{y:.5g}<extra></extra>",
    )
    corner = ", ".join(f"{name} {value:.4g}" for name, value in found.reference.items())
    style(figure, x="trials with values", y=f"hypervolume up to {shorten(corner, 60)}")
    return figure


def plot_learning_curves(study: Study, *, name: str = "value reported") -> go.Figure:
    """What trials reported, step by step; the best trial stands out, pruned ones end in a mark.

    `name`: of the reported metric, for the axis.

    Examples:
        >>> optnas.plots.plot_learning_curves(study, name="val_acc").write_html("curves.html")
    """
    curves = [t for t in study.get_trials(deepcopy=False) if len(_finite(t)) > 0]
    if not curves:
        return empty("No trial has reported a value: estimators report with trial.report(value, step).")
    best = _best(study, curves)
    figure = go.Figure()
    for kind in (End.COMPLETE, End.PRUNED, End.OPEN):
        group = [t for t in curves if end(t) is kind and t is not best]
        if not group:
            continue
        xs, ys = _joined(group)
        look = ENDS[kind]
        line = {"color": transparent(look["color"], max(0.5, min(1.0, 30 / len(group)))), "width": 1.5}
        mode = "lines+markers" if max(len(_finite(t)) for t in group) == 1 else "lines"
        figure.add_scatter(x=xs, y=ys, mode=mode, line=line, name=str(kind), hoverinfo="skip")
        ends = [(*_finite(t)[-1], t) for t in group]
        figure.add_scatter(
            x=[step for step, _, _ in ends],
            y=[value for _, value, _ in ends],
            mode="markers",
            marker={**look, "size": 7 if kind is End.PRUNED else 4},
            text=[_words(t) for *_, t in ends],
            hovertemplate="%{text}<br>step %{x}: %{y:.5g}<extra></extra>",
            showlegend=False,
        )
    if best is not None:
        steps, values = zip(*_finite(best), strict=True)
        figure.add_scatter(
            x=steps,
            y=values,
            mode="lines+markers",
            line={"color": GREEN, "width": 3.5},
            name=f"best (trial {best.number})",
        )
    return style(figure, x="step", y=name)


def plot_timeline(study: Study) -> go.Figure:
    """Which worker worked on which trial when, a bar per attempt; without recorded attempts, per trial.

    Examples:
        >>> optnas.plots.plot_timeline(study).write_html("timeline.html")
    """
    bars = [bar for t in study.get_trials(deepcopy=False) for bar in _attempts(t)]
    if not bars:
        return empty("No trial has started yet.")
    workers = list(dict.fromkeys(bar["worker"] for bar in sorted(bars, key=lambda b: float(b["started"]))))
    figure = go.Figure()
    for kind in dict.fromkeys(bar["end"] for bar in bars):
        group = [bar for bar in bars if bar["end"] == kind]
        figure.add_bar(
            base=[_utc(b["started"]) for b in group],
            x=[1000 * (b["ended"] - b["started"]) for b in group],  # milliseconds, as a date axis counts
            y=[workers.index(b["worker"]) for b in group],
            orientation="h",
            width=0.75,  # or each kind of bar gets its own
            marker={
                "color": INK if kind == "interrupted" else ENDS[End(kind)]["color"],
                "line": {"color": INK, "width": 0.5},
                "pattern": {"shape": {"interrupted": "/", "failed": "x"}.get(kind, "")},
            },
            text=[b["trial"] for b in group],
            textposition="inside",
            insidetextanchor="middle",
            insidetextfont={"color": "white" if kind in ("complete", "failed", "interrupted") else "black"},
            constraintext="inside",
            customdata=[[plain(b["worker"]), b["ended"] - b["started"]] for b in group],
            hovertemplate="trial %{text}, "
            + kind
            + "<br>%{customdata[0]}, %{customdata[1]:.1f} s<extra></extra>",
            name=kind,
        )
    style(figure, height=max(220, 120 + 36 * len(workers)), x="time (UTC)")
    figure.update_layout(barmode="overlay", uniformtext={"mode": "hide", "minsize": 9})
    start, stop = min(b["started"] for b in bars), max(b["ended"] for b in bars)
    # As many ticks as there is room for; of less than a tenth of a second, their labels would touch.
    span = [_utc(start), _utc(max(stop, start + 0.1))]
    figure.update_xaxes(type="date", range=span, nticks=0)
    figure.update_yaxes(
        tickvals=list(range(len(workers))),
        ticktext=[plain(_short(worker)) for worker in workers],
        autorange="reversed",
        showgrid=False,
        nticks=None,
    )
    return figure


def _utc(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).isoformat()


def _short(worker: str) -> str:
    """Without the host's domain, so that the bars have room."""
    host, _, pid = worker.partition(":")
    name = host if host.replace(".", "").isdigit() else host.split(".")[0]
    return shorten(f"{name}:{pid}" if pid else name, 18)


def _height(trial: FrozenTrial, value: Target) -> float | None:
    kind = end(trial)
    if kind in (End.COMPLETE, End.TWIN):
        number = float(value(trial))
        return number if math.isfinite(number) else None
    reported = _finite(trial)
    return reported[-1][1] if kind is End.PRUNED and reported else None


def _finite(trial: FrozenTrial) -> list[tuple[int, float]]:
    """Reported (step, value) pairs in order, without NaN and infinities."""
    return [(s, v) for s, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)]


def _points(trials: list[FrozenTrial], ys: Iterable[float | None], kind: End, shown: bool) -> go.Scatter:
    return go.Scatter(
        x=[t.number for t in trials],
        y=list(ys),
        mode="markers",
        marker={**ENDS[kind], "size": 8, "line": {"width": 1.5}},
        name=str(kind),
        legendgroup=str(kind),
        showlegend=shown,
        text=[_words(t) for t in trials],
        hovertemplate="%{text}<br>%{y:.5g}<extra></extra>" if shown else "%{text}<extra></extra>",
    )


def _words(trial: FrozenTrial) -> str:
    words = f"trial {trial.number}, {end(trial)}"
    if (original := record.TWIN_OF.of(trial)) is not None:
        words += f" of trial {original}"
    if (audited := record.AUDIT_OF.of(trial)) is not None:
        words += f", a twin of trial {audited} that was trained all the same"
    lines = record.why(trial).splitlines()
    return f"{words}<br>{plain(lines[0][:80])}" if lines else words


def _best_so_far(study: Study, trials: list[FrozenTrial], value: Target) -> go.Scatter:
    better = max if maximizes(study) else min
    xs: list[int] = []
    ys: list[float] = []
    for trial in trials:
        height = _height(trial, value)
        if height is not None and trial.state == TrialState.COMPLETE:
            xs.append(trial.number)
            ys.append(better(ys[-1], height) if ys else height)
    line = {"shape": "hv", "color": BLUE, "width": 1.5}
    return go.Scatter(x=xs, y=ys, mode="lines", line=line, name="best so far", hoverinfo="skip")


def _best(study: Study, trials: list[FrozenTrial]) -> FrozenTrial | None:
    if len(study.directions) > 1:
        return None
    numbers = {t.number for t in scored(study)}
    complete = [t for t in trials if t.number in numbers and end(t) is End.COMPLETE]
    if not complete:
        return None
    return (max if maximizes(study) else min)(complete, key=lambda t: t.value or 0.0)


def _joined(trials: list[FrozenTrial]) -> tuple[list[int | None], list[float | None]]:
    """All curves as one line with gaps, which draws a thousand of them quickly."""
    xs: list[int | None] = []
    ys: list[float | None] = []
    for trial in trials:
        for step, value in _finite(trial):
            xs.append(step)
            ys.append(value)
        xs.append(None)
        ys.append(None)
    return xs, ys


def _attempts(trial: FrozenTrial) -> list[dict[str, Any]]:
    last = str(end(trial)) if trial.state.is_finished() else str(End.OPEN)
    done = trial.datetime_complete or datetime.now()
    attempts = record.attempts(trial)
    if not attempts:
        if trial.datetime_start is None:
            return []
        attempts = [{"started": trial.datetime_start.timestamp()}]
    bars = []
    for i, attempt in enumerate(attempts):
        final = i == len(attempts) - 1
        follower = done.timestamp() if final else attempts[i + 1]["started"]
        worker = f"{attempt['host']}:{attempt['pid']}" if "host" in attempt else "worker"
        bars.append(
            {
                "trial": trial.number,
                "worker": worker,
                "started": attempt["started"],
                "ended": attempt.get("ended", follower),
                "end": last if final else "interrupted",
            }
        )
    return bars
