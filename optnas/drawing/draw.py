"""Drawings of networks as SVG text: narrow enough for a phone, legible on light and on dark pages."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from optuna.trial import BaseTrial
from torch import nn

from optnas.drawing import svg
from optnas.drawing.items import Item, items
from optnas.drawing.outline import SUM, Call, outline
from optnas.drawing.svg import CHAR, INK, QUIET, SHORTCUT, SMALL, TEXT, WIDTH
from optnas.facts.cost import count_params
from optnas.facts.inputs import Example, as_inputs, tensors_in

LINE, TITLE, GAP, INSET = 23, 21, 11, 15
SHAPE, PARAMS = 318, WIDTH - 12  # right edges of the columns
_MIDDLE = WIDTH // 2
_LONGEST = 20  # path


@runtime_checkable
class Builder(Protocol):
    """Turns a trial into its network, as `optnas.Objective` does."""

    def build(self, trial: Any, /) -> nn.Module: ...

    def example_for(self, trial: Any, /) -> Any: ...


def draw(model: nn.Module | BaseTrial, example: Example | Builder | None = None) -> str:
    """The network from top to bottom as SVG text, 400 pixels wide: `draw(model)`, `draw(trial, objective)`.

    A box is a layer, with the normalization, activation and dropout after it; a frame is a module with
    layers of its own, under its path in the model. Numbers are the output's shape without the batch
    dimension, and parameters. Equal neighbors are drawn once (`× 3`). A colored line is a shortcut past
    layers, a dashed one stands for code between two modules.

    Args:
        model: a module, or a trial, stored or running.
        example: inputs of a module, without which no shapes are shown; of a trial, the objective.

    Raises:
        ValueError: the model is lazy and has not seen an input yet.
        TypeError: a trial without its objective.

    Examples:
        >>> optnas.draw(model, example)[:4]
        '<svg'
    """
    model, example = network(model, example)
    root = outline(model, example)
    canvas = heading(root.shape is not None)
    y = 22.0
    for given in inputs(root, example):
        canvas += _box(given, 6, y)
        y += LINE + GAP
    if y > 22:
        canvas.append(_arrow(_MIDDLE, y - GAP, y))
    y = _stack(canvas, items(root), 6, y)
    n_params = f"{count_params(model):,} parameters"
    canvas.append(svg.text(WIDTH - 8, y + 18, n_params, 11, INK, "end"))
    return svg.image(canvas, round(y + 26), f"{root.kind} with {n_params}")


def network(model: object, example: Example | Builder | None) -> tuple[nn.Module, Example | None]:
    """The module, and the example of its inputs, that the arguments of `draw` stand for."""
    builder = example if isinstance(example, Builder) else None
    if isinstance(model, nn.Module):
        return model, None if builder else example
    if builder is None:
        raise TypeError(
            f"{type(model).__name__} is not a module; to draw a trial, pass the objective too: "
            "draw(study.best_trial, objective)."
        )
    try:
        with torch.device("meta"):
            return builder.build(model), builder.example_for(model)
    except Exception:  # its construction looks at values, for example; or it fails for real as well
        return builder.build(model), builder.example_for(model)


def inputs(root: Call, example: Example | None) -> list[Item]:
    """What the network is given, where it ran."""
    if root.shape is None or example is None:
        return []
    args, named = as_inputs(example, "meta")
    given = [(f"input {i}" if len(args) > 1 else "input", value) for i, value in enumerate(args)]
    given += [(f"input {name}", value) for name, value in named.items()]
    return [Item("", name, tuple(t.shape[1:]), 0) for name, value in given for t in tensors_in(value)[:1]]


def heading(with_shapes: bool, y: float = 14) -> list[str]:
    """The names of the columns."""
    return [
        svg.text(8, y, "layer", 10, INK),
        svg.text(SHAPE, y, "output" if with_shapes else "", 10, INK, "end"),
        svg.text(PARAMS + 4, y, "parameters", 10, INK, "end"),
    ]


def title(item: Item, within: str = "") -> str:
    """Of a group: its path in the module `within`, and its class."""
    path = item.path.removeprefix(f"{within}.") if within else item.path
    if len(path) > _LONGEST:
        path = "…" + path.rpartition(".")[2][1 - _LONGEST :]  # its end tells most
    return f"{path} {item.label}".strip()


def row(item: Item, x: float, y: float, color: str, quiet: str, words: str) -> list[str]:
    """The columns of an item that is called `words`, in a line of 21 pixels below `y`."""
    shape = "" if item.shape is None else "×".join(map(str, item.shape)) or "number"
    times = f" × {item.count}" if item.count > 1 else ""
    room = int((SHAPE - 10 - x - CHAR * len(shape)) / CHAR) - len(times)
    return [
        svg.text(x + 7, y + 15, svg.cut(words, room) + times, 11, color),
        svg.text(SHAPE, y + 15, shape, 11, quiet, "end"),
        svg.text(PARAMS, y + 15, svg.count(item.n_params), 11, quiet, "end"),
    ]


def _stack(canvas: list[str], parts: tuple[Item, ...], x: float, y: float, within: str = "") -> float:
    """Draw parts of the module `within` below each other from `y`; returns where they end."""
    lane, start = x - INSET / 2, y
    for i, item in enumerate(parts):
        if i:
            if item.reads != "block":
                canvas.append(_arrow(_MIDDLE, y, y + GAP, dashed=item.reads == "elsewhere"))
            y += GAP
        end = y + _height(item)
        if item.label == SUM:
            canvas.append(_side(f"M{lane:g},{start:g} V{y + 6:g} H{_MIDDLE - 6}"))
            canvas.append(_side(f"M{_MIDDLE - 3},{y + 6:g} h6 m-3,-3 v6"))
            canvas.append(f'<circle cx="{_MIDDLE}" cy="{y + 6:g}" r="6" fill="none" stroke="{SHORTCUT}"/>')
        elif item.reads == "block":
            canvas.append(_side(f"M{lane:g},{start:g} V{y + TITLE / 2:g} H{x:g}"))
        if item.inner:
            canvas += _frame(item, x, y, within)
            _stack(canvas, item.inner, x + INSET, y + TITLE, item.path)
        elif item.label != SUM:
            canvas += _box(item, x, y)
        y = end
    return y


def _height(item: Item) -> float:
    if item.inner:
        return TITLE + sum(map(_height, item.inner)) + GAP * (len(item.inner) - 1) + 6
    return 12 if item.label == SUM else LINE + (13 if item.also else 0)


def _frame(item: Item, x: float, y: float, within: str) -> list[str]:
    look = f'fill="#808080" fill-opacity="0.06" stroke="{INK}" stroke-opacity="0.6"'
    return [
        svg.box(x, y, WIDTH - 6 - x, _height(item), look, item.path),
        *row(item, x, y, INK, INK, title(item, within)),
    ]


def _box(item: Item, x: float, y: float) -> list[str]:
    fill = svg.FILL if item.n_params else svg.FILL_PLAIN
    parts = [
        svg.box(x, y, WIDTH - 6 - x, _height(item), f'fill="{fill}" stroke="{INK}"', item.path),
        *row(item, x, y + 1, TEXT, QUIET, item.label),
    ]
    if item.also:
        room = int((WIDTH - 20 - x) / SMALL)
        parts.append(svg.text(x + 7, y + 29, svg.cut("+ " + ", ".join(item.also), room), 10, QUIET))
    return parts


def _arrow(x: float, y: float, end: float, *, dashed: bool = False) -> str:
    shaft = svg.line(f"M{x:g},{y:g} V{end:g}", f'stroke="{INK}"' + ' stroke-dasharray="2 2"' * dashed)
    return shaft + svg.line(
        f"M{x - 3:g},{end - 4:g} L{x:g},{end:g} L{x + 3:g},{end - 4:g}", f'stroke="{INK}"'
    )


def _side(path: str) -> str:
    return svg.line(path, f'stroke="{SHORTCUT}" stroke-width="1.5"')
