"""Drawings of networks as SVG text: narrow enough for a phone, legible on light and on dark pages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from html import escape

from torch import nn

from optnas.facts.cost import Example, count_params
from optnas.facts.outline import SUM, Call, outline

WIDTH = 400
_MIDDLE = WIDTH // 2
INK = "#7b7b7b"  # contrast at least 4.2 on white and on #111
TEXT, QUIET = "#1a1a1a", "#555555"  # on boxes, which bring their own background
FILL, FILL_PLAIN = "#d3e5f3", "#ececec"  # with and without parameters
SKIP = "#d55e00"

_CHAR, _SMALL = 6.65, 6.05  # widths of a monospace character at 11 and at 10 pixels
_LINE, _TITLE, _GAP, _INSET = 23, 21, 11, 15
_SHAPE, _PARAMS = 318, 380  # right edges of the columns
_DEEPEST = 4  # groups below are one box


@dataclass(frozen=True)
class _Item:
    """A box, or a group of them where it has `inner` ones; `count` of it in a row."""

    path: str
    label: str
    shape: tuple[int, ...] | None
    n_params: int
    reads: str
    inner: tuple[_Item, ...] = ()
    also: tuple[str, ...] = ()
    count: int = field(default=1, compare=False)

    @property
    def look(self) -> _Item:
        """Equal for items that differ only in where they are."""
        return replace(self, path="", reads="before", inner=tuple(item.look for item in self.inner), count=1)


def draw(model: nn.Module, example: Example | None = None) -> str:
    """The network from top to bottom as SVG text, 400 pixels wide.

    A box is a layer, with the normalization, activation and dropout after it; a frame is a module with
    layers of its own, under its path in the model. Numbers are the output's shape without the batch
    dimension, and parameters. Equal neighbors are drawn once (`× 3`). A colored line is a shortcut past
    layers, a dashed one stands for code between two modules. Shapes need an `example` of the inputs.

    Raises:
        ValueError: the model is lazy and has not seen an input yet.
    """
    root = outline(model, example)
    whole = _prune(_item(root), _DEEPEST + 1)
    items = whole.inner if whole.inner and not _branches(whole) else (whole,)
    canvas: list[str] = []
    canvas.append(_text(8, 14, "layer", 10, INK))
    canvas.append(_text(_SHAPE, 14, "output" if root.shape is not None else "", 10, INK, "end"))
    canvas.append(_text(WIDTH - 8, 14, "parameters", 10, INK, "end"))
    y = 22.0
    if root.given is not None:
        canvas += _box(_Item("", "input", root.given, 0, "before"), 6, y)
        y += _LINE
        canvas.append(_arrow(_MIDDLE, y, y + _GAP))
        y += _GAP
    y = _stack(canvas, items, 6, y)
    canvas.append(_text(WIDTH - 8, y + 18, f"{count_params(model):,} parameters", 11, INK, "end"))
    return svg(canvas, round(y + 26), f"{root.kind} with {count_params(model):,} parameters")


def svg(parts: list[str], height: int, title: str) -> str:
    """An image of the usual width."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace"><title>{escape(title)}</title>'
        + "".join(parts)
        + "</svg>"
    )


def _item(call: Call) -> _Item:
    label = f"{call.kind} {call.detail}".strip()
    item = _Item(call.path, label, call.shape, call.n_params, call.reads)
    items: list[_Item] = []
    for inner in call.calls:
        last = items[-1] if items else None
        if inner.kind == "Identity" and inner.reads == "block":
            continue  # the addition that follows shows it
        if (
            inner.follower
            and last
            and _is_layer(last)
            and inner.shape == last.shape
            and inner.reads == "before"
        ):
            also = (*last.also, inner.kind)
            items[-1] = replace(last, also=also, n_params=last.n_params + inner.n_params)
        else:
            items.append(_item(inner))
    folded: list[_Item] = []
    for one in items:
        if folded and folded[-1].look == one.look and one.reads == "before":
            folded[-1] = replace(folded[-1], count=folded[-1].count + 1)
        else:
            folded.append(one)
    if call.kind == "Sequential" and len(folded) == 1 and folded[0].count == 1:
        return replace(folded[0], reads=call.reads)
    if call.kind != "Sequential" and folded and folded[0].label == "Sequential" and folded[0].count == 1:
        folded[:1] = folded[0].inner or folded[:1]  # the body of a block needs no frame of its own
    return replace(item, inner=tuple(folded))


def _prune(item: _Item, depth: int) -> _Item:
    """Frames within `depth` frames become boxes."""
    return replace(item, inner=tuple(_prune(inner, depth - 1) for inner in item.inner) if depth else ())


def _is_layer(item: _Item) -> bool:
    return not item.inner and item.label != SUM


def _branches(item: _Item) -> bool:
    """Whether something in it takes a shortcut from where it begins."""
    return any(inner.reads == "block" or inner.label == SUM for inner in item.inner)


def _stack(canvas: list[str], items: tuple[_Item, ...], x: float, y: float) -> float:
    """Draw items below each other from `y`; returns where they end."""
    lane, start = x - _INSET / 2, y
    for i, item in enumerate(items):
        if i:
            if item.reads != "block":
                canvas.append(_arrow(_MIDDLE, y, y + _GAP, dashed=item.reads == "elsewhere"))
            y += _GAP
        end = y + _height(item)
        if item.label == SUM:
            canvas.append(_side(f"M{lane:g},{start:g} V{y + 6:g} H{_MIDDLE - 6}"))
            canvas.append(_side(f"M{_MIDDLE - 3},{y + 6:g} h6 m-3,-3 v6"))
            canvas.append(f'<circle cx="{_MIDDLE}" cy="{y + 6:g}" r="6" fill="none" stroke="{SKIP}"/>')
        elif item.reads == "block":
            canvas.append(_side(f"M{lane:g},{start:g} V{y + _TITLE / 2:g} H{x:g}"))
        if item.inner:
            canvas += [_frame(item, x, y), *_words(item, x, y, INK, INK, f"{item.path} {item.label}")]
            _stack(canvas, item.inner, x + _INSET, y + _TITLE)
        elif item.label != SUM:
            canvas += _box(item, x, y)
        y = end
    return y


def _height(item: _Item) -> float:
    if item.inner:
        return _TITLE + sum(map(_height, item.inner)) + _GAP * (len(item.inner) - 1) + 6
    return 12 if item.label == SUM else _LINE + (13 if item.also else 0)


def _frame(item: _Item, x: float, y: float) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH - 6 - x:g}" height="{_height(item):g}" rx="5" '
        f'fill="#808080" fill-opacity="0.06" stroke="{INK}" stroke-opacity="0.6">'
        f"<title>{escape(item.path)}</title></rect>"
    )


def _box(item: _Item, x: float, y: float) -> list[str]:
    fill = FILL if item.n_params else FILL_PLAIN
    parts = [
        f'<rect x="{x}" y="{y}" width="{WIDTH - 6 - x}" height="{_height(item)}" rx="4" fill="{fill}" '
        f'stroke="{INK}"><title>{escape(item.path)}</title></rect>',
        *_words(item, x, y + 1, TEXT, QUIET, item.label),
    ]
    if item.also:
        room = int((WIDTH - 20 - x) / _SMALL)
        parts.append(_text(x + 7, y + 29, _cut("+ " + ", ".join(item.also), room), 10, QUIET))
    return parts


def _words(item: _Item, x: float, y: float, color: str, quiet: str, title: str) -> list[str]:
    shape = "" if item.shape is None else "×".join(map(str, item.shape)) or "number"
    times = f" × {item.count}" if item.count > 1 else ""
    room = int((_SHAPE - 10 - x - _CHAR * len(shape)) / _CHAR) - len(times)
    return [
        _text(x + 7, y + 15, _cut(title, room) + times, 11, color),
        _text(_SHAPE, y + 15, shape, 11, quiet, "end"),
        _text(_PARAMS + 8, y + 15, _count(item.n_params), 11, quiet, "end"),
    ]


def _text(x: float, y: float, words: str, size: int, color: str, anchor: str = "start") -> str:
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}"{where}>{escape(words)}</text>'


def _arrow(x: float, y: float, end: float, *, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="2 2"' if dashed else ""
    return (
        f'<path d="M{x:g},{y:g} V{end:g}" stroke="{INK}"{dashes}/>'
        f'<path d="M{x - 3:g},{end - 4:g} L{x:g},{end:g} L{x + 3:g},{end - 4:g}" fill="none" stroke="{INK}"/>'
    )


def _side(path: str) -> str:
    return f'<path d="{path}" fill="none" stroke="{SKIP}" stroke-width="1.5"/>'


def _count(n: int) -> str:
    """At most six characters: 512, 4.6k, 12.3M."""
    if not n:
        return ""
    for unit, size in (("", 1), ("k", 10**3), ("M", 10**6), ("G", 10**9)):
        if n < 999.5 * size:
            return f"{n / size:.3g}{unit}"
    return f"{n / 10**12:.3g}T"


def _cut(words: str, room: int) -> str:
    return words if len(words) <= room else words[: max(0, room - 1)] + "…"
