"""Two architectures in one drawing: what both have, what only one has, and what changed."""

from __future__ import annotations

from collections.abc import Mapping

from optuna.trial import BaseTrial
from torch import nn

from optnas.drawing import svg
from optnas.drawing.align import Pair, align, same
from optnas.drawing.draw import Builder, heading, inputs, network, row, title
from optnas.drawing.draw_cell import Edges, draw_cells
from optnas.drawing.items import Item, items
from optnas.drawing.outline import SUM, outline
from optnas.drawing.svg import ADDED, INK, QUIET, REMOVED, SMALL, TEXT, WIDTH, Mark
from optnas.facts.cost import count_params
from optnas.facts.inputs import Example

_LINE, _BELOW, _GAP, _INSET = 21, 13, 5, 15


def draw_difference(
    first: nn.Module | BaseTrial | Edges,
    second: nn.Module | BaseTrial | Edges,
    example: Example | Builder | None = None,
    *,
    names: tuple[str, str] | None = None,
) -> str:
    """Two networks or cells as one SVG text, 400 pixels wide, in the look of `draw` and `draw_cell`.

    What only the first has is marked `−` in a dashed box, what only the second has `+` in a thick one; where
    a layer became another one, both stand above each other, and where only its sizes changed, the old ones
    stand below (`− was`). Groups that are equal in both are one box.

    Args:
        first, second: two modules, two trials, or two cells (`{(0, 1): "conv", ...}`).
        example: as in `draw`: inputs of both modules; of trials, the objective.
        names: what to call the two; by default `trial 3`, or `the first` and `the second`.

    Raises:
        ValueError: a model is lazy and has not seen an input yet; a mapping that is no cell.
        TypeError: a trial without its objective.

    Examples:
        >>> other = optnas.facts.materialize(
        ...     space(replay({"width": 8, "depth": 1, "block.0.kernel": 3})), example
        ... )
        >>> optnas.draw_difference(model, other, example)[:4]
        '<svg'
    """
    names = names or (_name(first, "the first"), _name(second, "the second"))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return draw_cells(first, second, names)
    sides: list[tuple[Item, ...]] = []
    sizes: list[int] = []
    for model in (first, second):
        module, given = network(model, example)
        root = outline(module, given)
        sides.append((*inputs(root, given), *items(root)))
        sizes.append(count_params(module))
    with_shapes = any(item.shape is not None for side in sides for item in side)
    canvas = [*svg.legend(names), *heading(with_shapes, 36)]
    pairs = align(*sides)
    y = _stack(canvas, pairs, 6, 44)
    total = f"{sizes[0]:,} → {sizes[1]:,} parameters"
    if all(pair.old and pair.new and same(pair.old, pair.new) for pair in pairs):
        total = f"no difference: {sizes[0]:,} parameters"
    canvas.append(svg.text(WIDTH - 8, y + 18, total, 11, INK, "end"))
    return svg.image(canvas, round(y + 26), f"{names[0]} and {names[1]}: {total}")


def _stack(canvas: list[str], pairs: tuple[Pair, ...], x: float, y: float, within: str = "") -> float:
    """Draw pairs below each other from `y`; returns where they end."""
    for pair in pairs:
        old, new = pair.old, pair.new
        if new is None:
            assert old is not None
            y = _single(canvas, old, x, y, REMOVED, within)
        elif old is None:
            y = _single(canvas, new, x, y, ADDED, within)
        elif same(old, new):
            y = _box(canvas, new, x, y, None, within)
        elif pair.inner:
            y = _group(canvas, old, new, pair.inner, x, y, within)
        elif (old.label, old.also) == (new.label, new.also):
            y = _box(canvas, new, x, y, None, within, was=old)
        else:
            y = _box(canvas, new, x, _box(canvas, old, x, y, REMOVED, within), ADDED, within)
        y += _GAP
    return y - _GAP


def _single(canvas: list[str], item: Item, x: float, y: float, mark: Mark, within: str) -> float:
    """What only one of the networks has, with all that is in it."""
    y = _box(canvas, item, x, y, mark, within)
    for inner in item.inner:
        y = _single(canvas, inner, x + _INSET, y + 2, mark, item.path)
    return y


def _group(
    canvas: list[str], old: Item, new: Item, inner: tuple[Pair, ...], x: float, y: float, within: str
) -> float:
    """A frame around the parts of two groups that are not equal."""
    place, top = len(canvas), y
    renamed = old.label != new.label
    canvas += row(new, x, y, INK, INK, f"{ADDED.sign} " * renamed + title(new, within))
    y += _LINE
    if renamed or (old.shape, old.n_params, old.count) != (new.shape, new.n_params, new.count):
        canvas += _was(old, x, y, INK, old.label if renamed else "")
        y += _BELOW
    y = _stack(canvas, inner, x + _INSET, y + 2, new.path) + 6
    look = f'fill="#808080" fill-opacity="0.06" stroke="{INK}" stroke-opacity="0.6"'
    canvas.insert(place, svg.box(x, top, WIDTH - 6 - x, y - top, look, new.path))
    return y


def _box(
    canvas: list[str],
    item: Item,
    x: float,
    y: float,
    mark: Mark | None,
    within: str,
    was: Item | None = None,
) -> float:
    look = f'fill="{svg.FILL_PLAIN}" stroke="{INK}"' if mark is None else mark.look
    sign = "" if mark is None else f"{mark.sign} "
    height = _LINE + _BELOW * (bool(item.also) + (was is not None))
    words = title(item, within) if item.inner else "add the input" if item.label == SUM else item.label
    canvas.append(svg.box(x, y, WIDTH - 6 - x, height, look, item.path))
    canvas += row(item, x, y, TEXT, QUIET, sign + words)
    if item.also:
        room = int((WIDTH - 20 - x) / SMALL)
        also = svg.cut(" " * len(sign) + "+ " + ", ".join(item.also), room)
        canvas.append(svg.text(x + 7, y + 28, also, 10, QUIET))
    if was is not None:
        canvas += _was(was, x, y + height - _BELOW, QUIET)
    return y + height


def _was(old: Item, x: float, y: float, color: str, words: str = "") -> list[str]:
    return row(old, x, y - 6, color, color, f"{REMOVED.sign} was {words}".rstrip())


def _name(model: object, otherwise: str) -> str:
    return f"trial {model.number}" if isinstance(model, BaseTrial) else otherwise
