"""What a trial reported, step by step, as SVG text in the look of the drawings."""

from __future__ import annotations

import math

from optuna.trial import FrozenTrial

from optnas.drawing import svg
from optnas.drawing.svg import INK, WIDTH

_TOP, _BOTTOM, _LEFT, _RIGHT = 26, 150, 64, WIDTH - 12
_OWN, _OTHER = 'stroke="#0072b2" stroke-width="2.5"', f'stroke="{INK}" stroke-dasharray="4 3"'
_MANY = 40  # points, from which on they get no marks

Points = list[tuple[int, float]]


def draw_curve(trial: FrozenTrial, best: FrozenTrial | None = None, name: str = "reported") -> str:
    """The learning curve of a trial, 400 pixels wide, with that of the `best` trial dashed beside it.

    `name`: of what was reported. Values that are not finite are left out.

    Examples:
        >>> optnas.drawing.draw_curve(study.best_trial)[:4]
        '<svg'
    """
    curves = [(_points(trial), _OWN)]
    if best is not None and best.number != trial.number:
        curves.insert(0, (_points(best), _OTHER))
    points = [point for curve, _ in curves for point in curve]
    title = f"{name} of trial {trial.number} by step"
    if not curves[-1][0]:
        words = svg.text(WIDTH / 2, 30, "Nothing has been reported yet.", 11, INK, "middle")
        return svg.image([words], 48, title)
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, high = min(values), max(values)
    # Of halves, or from -1e308 to 1e308 is infinitely far.
    span, length = (high / 2 - low / 2) or 1.0, (max(steps) - min(steps)) or 1

    def place(point: tuple[int, float]) -> tuple[float, float]:
        x = _LEFT + (_RIGHT - _LEFT) * (point[0] - min(steps)) / length
        return x, _BOTTOM - (_BOTTOM - _TOP) * ((point[1] / 2 - low / 2) / span)

    parts = [svg.text(8, 14, svg.cut(name, 30), 10, INK)]
    parts.append(svg.line(f"M{_LEFT},{_TOP - 4} V{_BOTTOM + 4} H{_RIGHT + 4}", f'stroke="{INK}"'))
    for value, y in {high: _TOP, low: _BOTTOM}.items():  # once where they are equal
        parts.append(svg.text(_LEFT - 6, y + 4, f"{value:.4g}", 10, INK, "end"))
    for step, (x, anchor) in {max(steps): (_RIGHT, "end"), min(steps): (_LEFT, "start")}.items():
        parts.append(svg.text(x, _BOTTOM + 18, str(step), 10, INK, anchor))
    for curve, look in curves:
        spots = [place(point) for point in curve]
        parts.append(svg.line("M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in spots), look))
        if look == _OWN and len(spots) <= _MANY:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#0072b2"/>' for x, y in spots]
    if len(curves) > 1 and best is not None:
        legend = f"trial {trial.number}, and dashed the best, trial {best.number}"
        parts.append(svg.text(_RIGHT, 14, svg.cut(legend, 48), 10, INK, "end"))
    return svg.image(parts, _BOTTOM + 26, title)


def _points(trial: FrozenTrial) -> Points:
    return sorted((step, v) for step, v in trial.intermediate_values.items() if math.isfinite(v))
