"""Which decisions matter, and what good trials answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.analysis.evaluator import ConditionalAnovaEvaluator
from optnas.analysis.importance import Importance, Share
from optnas.analysis.trials import choices_of, maximizes, objective_value, scored
from optnas.analysis.words import answer_in_words, shorten
from optnas.answers import key
from optnas.plots.theme import INK, RAMP, SKY, empty, plain, style
from optnas.record import Target

_ROW = 84  # pixels per decision: its name, a line of answers, two lines of their names
_PHONE = 310  # pixels that an axis has there
_SHORTEST, _LONGEST = 4, 22  # characters of an answer
_CHIP = "#555555"  # behind white words: hides the lines that pass, on light and on dark pages
_CLASSES = ("worst fifth", "fourth", "third", "second", "best fifth")


def plot_importance(importance: Importance, *, n: int = 15, of: str = "decisions") -> go.Figure:
    """The n largest importances with 95 % intervals; `of` is a group of `Importance`: "decisions",
    "positions", "kinds" or "pairs".

    Raises:
        ValueError: `of` is none of these.

    Examples:
        >>> optnas.plots.plot_importance(optnas.importance(study, n_bootstrap=10), n=5).write_html(
        ...     "importance.html"
        ... )
    """
    groups: dict[str, Sequence[Share]] = {
        "decisions": importance.decisions,
        "positions": importance.positions,
        "kinds": importance.kinds,
        "pairs": importance.pairs,
    }
    if of not in groups:
        raise ValueError(f"of={of!r} must be one of {', '.join(groups)}.")
    shares = groups[of][:n]
    if not shares:
        return empty(f"No {of} to compare.")
    shown = list(reversed(shares))
    figure = go.Figure(
        go.Bar(
            x=[s.value for s in shown],
            y=list(range(len(shown))),
            orientation="h",
            marker={"color": SKY},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [s.high - s.value for s in shown],
                "arrayminus": [s.value - s.low for s in shown],
                "color": INK,
                "thickness": 1.5,
                "width": 3,
            },
            customdata=[[plain(s.name), s.low, s.high, s.n_trials] for s in shown],
            hovertemplate="%{customdata[0]}: %{x:.3f}<br>95 %: %{customdata[1]:.3f} to %{customdata[2]:.3f}"
            "<br>active in %{customdata[3]} trials<extra></extra>",
        )
    )
    style(figure, height=90 + (40 if of == "pairs" else 26) * len(shown), x="share of variance")
    if not importance.method.startswith("conditional ANOVA"):
        figure.update_xaxes(title_text="importance")
    figure.update_xaxes(rangemode="tozero", nticks=5)
    figure.update_yaxes(
        tickvals=list(range(len(shown))),
        ticktext=[" ×<br>".join(plain(shorten(n)) for n in s.name.split(" × ")) for s in shown],
        showgrid=False,
    )
    return figure


def plot_parallel(
    study: Study, *, params: Sequence[str] | None = None, n: int = 8, target: Target | None = None
) -> go.Figure:
    """Parallel coordinates: a line per trial, colored by its value, through its answer to each decision.

    Decisions stand one below the other, so that names stay readable on a phone; a trial that was not asked
    passes at "not asked". `params`: the decisions to show; the `n` most important ones unless given.

    Examples:
        >>> optnas.plots.plot_parallel(study, params=["width", "depth"]).write_html("parallel.html")
    """
    value = objective_value(study, target)
    trials = scored(study, target)
    if len(trials) < 2:
        return empty("Too few finished trials to compare.")
    if params is None:
        scores = ConditionalAnovaEvaluator().evaluate(study, target=target)
        chosen = set(list(scores)[:n])
        # In the order asked, so that a decision stands below the one that it depends on.
        params = [name for name in dict.fromkeys(p for t in trials for p in t.params) if name in chosen]
    if not params:
        return empty("The trials of this study have no parameters.")
    axes = [_Axis(name, trials) for name in params]
    figure = go.Figure()
    ranks = np.argsort(np.argsort([value(t) for t in trials]))
    if target is None and not maximizes(study):
        ranks = ranks[::-1].max() - ranks
    classes = ranks * len(_CLASSES) // len(trials)
    rng = np.random.default_rng(0)
    rows = [len(axes) - 1 - i for i in range(len(axes))]
    for k, (label, color) in enumerate(zip(_CLASSES, RAMP, strict=True)):
        xs: list[float | None] = []
        ys: list[float | None] = []
        for trial in (t for t, c in zip(trials, classes, strict=True) if c == k):
            # Lines through one answer are spread a little, or a hundred of them look like one.
            xs += [axis.place(trial) + float(rng.uniform(-0.012, 0.012)) for axis in axes]
            ys += rows
            xs.append(None)
            ys.append(None)
        figure.add_scatter(
            x=xs,
            y=ys,
            mode="lines",
            line={"color": color, "width": 1 + 0.3 * k},
            opacity=0.55 + 0.1 * k,
            name=label,
            hoverinfo="skip",
        )
    for row, axis in zip(rows, axes, strict=True):
        _draw_axis(figure, row, axis)
    style(figure, height=90 + _ROW * len(axes))
    figure.update_xaxes(visible=False, range=[-0.05, 1.05])
    figure.update_yaxes(visible=False, range=[-0.6, len(axes) - 0.5])
    return figure


class _Axis:
    """Where on a line from 0 to 1 the answers to a decision stand; "not asked" stands at 0."""

    def __init__(self, name: str, trials: Sequence[FrozenTrial]) -> None:
        self.name = name
        asked = [t for t in trials if name in t.params]
        if not asked:
            raise ValueError(f"No finished trial was asked for {name!r}.")
        self.start = 0.0 if len(asked) == len(trials) else 0.25
        values = [t.params[name] for t in asked]
        self.log = all(_is_log(t.distributions[name]) for t in asked)
        choices = choices_of(asked, name)
        self._named = choices is not None
        if choices is not None:
            self.answers: list[Any] = list(choices)
        elif len(set(values)) <= 6:
            self.answers = sorted(set(values))
        else:
            self.answers = []
        self._places = {self._key(answer): i for i, answer in enumerate(self.answers)}
        self.low: float = 0 if self.answers else min(values)
        self.high: float = 1 if self.answers else max(values)

    def _key(self, value: Any) -> Any:
        return key(value) if self._named else float(value)

    def at(self, value: Any) -> float:
        if self.answers:
            share = self._places[self._key(value)] / max(len(self.answers) - 1, 1)
        elif self.log:
            share = float(np.log(value / self.low) / np.log(self.high / self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + (1 - self.start) * share

    def place(self, trial: FrozenTrial) -> float:
        return self.at(trial.params[self.name]) if self.name in trial.params else 0.0

    def labels(self) -> list[tuple[float, str]]:
        if self.answers:
            # In two lines, a label may be four thirds as long as two of them are apart.
            room = 4 / 3 * _PHONE * (1 - self.start) / max(len(self.answers) - 1, 1)
            every = math.ceil(_pixels(_SHORTEST) / room)
            length = next(n for n in range(_LONGEST, 0, -1) if _pixels(n) <= every * room)
            words = [(self.at(a), shorten(answer_in_words(a), length)) for a in self.answers[::every]]
        else:
            words = [(self.at(v), f"{v:.3g}") for v in (self.low, self.high)]
        return words if self.start == 0 else [(0.0, "not asked"), *words]


def _is_log(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log


def _draw_axis(figure: go.Figure, row: int, axis: _Axis) -> None:
    figure.add_shape(type="line", x0=axis.start, x1=1, y0=row, y1=row, line={"color": INK, "width": 1})
    chip = {"showarrow": False, "bgcolor": _CHIP, "font": {"color": "white", "size": 11}, "borderpad": 1}
    figure.add_annotation(
        x=0,
        y=row,
        text=f"<b>{plain(shorten(axis.name, 40))}</b>",
        xanchor="left",
        yanchor="bottom",
        yshift=8,
        **chip,
    )
    ends = [0.0, 0.0]  # of the two lines of labels, in pixels
    for x, label in axis.labels():
        share, anchor = (0.0, "left") if x < 0.05 else (1.0, "right") if x > 0.95 else (0.5, "center")
        width = _pixels(len(label))
        left = x * _PHONE - share * width
        line = int(left < ends[0])  # the second one where it would touch its neighbor on a phone
        ends[line] = left + width
        figure.add_annotation(
            x=x, y=row, text=plain(label), xanchor=anchor, yanchor="top", yshift=-5 - 17 * line, **chip
        )


def _pixels(length: int) -> float:
    """How wide a label of so many characters is, about."""
    return 6.6 * length + 4
