"""Cells, small graphs whose edges are operations, as SVG text in the look of `draw`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from optnas.drawing import svg
from optnas.drawing.svg import ADDED, FILL, FILL_PLAIN, INK, QUIET, REMOVED, SMALL, TEXT, WIDTH, Mark

_MIDDLE, _RADIUS = WIDTH // 2, 10
_CHIP, _LONGEST = 16, 14  # height of a label in pixels, its length in characters
_NEAR, _FAR = 92, 168  # where the first and the last lane lie, from the middle
_NOTHING = "none"

Span = tuple[int, int]  # ranks of two nodes, the earlier one first
Edges = Mapping[tuple[int, int], str]


@dataclass(frozen=True)
class _Op:
    """An operation on an edge; with a mark where only one of two cells has it there."""

    name: str
    mark: Mark | None = None

    @property
    def words(self) -> str:
        sign = "" if self.mark is None else f"{self.mark.sign} "
        return sign + svg.cut(self.name, _LONGEST - len(sign))


@dataclass(frozen=True)
class _Chip:
    """The place of the labels of an edge."""

    x: float
    y: float
    width: float
    height: float

    def touches(self, other: _Chip) -> bool:
        near = abs(self.x - other.x) < (self.width + other.width) / 2 + 2
        return near and abs(self.y - other.y) < (self.height + other.height) / 2 + 2


def draw_cell(edges: Edges) -> str:
    """A cell as a graph from top to bottom, 400 pixels wide, every edge with its operation.

    `edges`: (from, to), with from < to, to the operation, as in NAS-Bench-201 and DARTS. Edges whose
    operation is "none" are dashed.

    Raises:
        ValueError: no edges, or an edge that does not lead to a later node.

    Examples:
        >>> optnas.draw_cell({(0, 1): "conv", (0, 2): "skip", (1, 2): "none"})[:4]
        '<svg'
    """
    _check(edges)
    return _draw({edge: (_Op(op),) for edge, op in edges.items()}, [], 0, "cell")


def draw_cells(first: Edges, second: Edges, names: tuple[str, str]) -> str:
    """Two cells as one graph; an edge whose operations differ has both. See `draw_difference`."""
    _check(first)
    _check(second)
    edges: dict[tuple[int, int], tuple[_Op, ...]] = {}
    for edge in sorted({*first, *second}):
        old, new = first.get(edge, _NOTHING), second.get(edge, _NOTHING)
        both = ((old, REMOVED), (new, ADDED))
        changed = tuple(_Op(op, mark) for op, mark in both if op != _NOTHING)
        edges[edge] = (_Op(old),) if old == new else changed
    return _draw(edges, svg.legend(names), 24, f"{names[0]} and {names[1]}: cell")


def _check(edges: Edges) -> None:
    if not edges:
        raise ValueError("edges={} has nothing to draw; give {(0, 1): 'conv', ...}.")
    for start, end in edges:
        if start >= end:
            raise ValueError(f"The edge {(start, end)} must lead to a later node: from < to.")


def _draw(edges: Mapping[tuple[int, int], tuple[_Op, ...]], parts: list[str], above: int, title: str) -> str:
    nodes = sorted({node for edge in edges for node in edge})
    rank = {node: i for i, node in enumerate(nodes)}
    spans = {(rank[a], rank[b]): ops for (a, b), ops in edges.items()}
    lanes = _lanes(list(spans))
    top, step = above + 18, 56
    while (chips := _chips(spans, lanes, top, step)) is None:
        step += 16
    parts = [*parts, *(_edge(span, lanes[span], top, step, ops) for span, ops in spans.items())]
    for span, ops in spans.items():
        parts += _label(chips[span], ops)
    for i, node in enumerate(nodes):
        y = top + i * step
        parts.append(f'<circle cx="{_MIDDLE}" cy="{y}" r="{_RADIUS}" fill="{FILL}" stroke="{INK}"/>')
        parts.append(svg.text(_MIDDLE, y + 4, str(node), 11, TEXT, "middle"))
    return svg.image(parts, top + 18 + step * (len(nodes) - 1), f"{title} of {len(nodes)} nodes")


def _lanes(spans: list[Span]) -> dict[Span, float]:
    """The x of each edge: neighbors are joined straight, others in lanes beside them, short ones inside."""
    taken: dict[int, list[Span]] = {}  # side * (1 + index of the lane) to its edges
    places = dict.fromkeys(spans, 0)
    for a, b in sorted(spans, key=lambda span: (span[1] - span[0], span)):
        if b - a > 1:
            side = -1 if a % 2 == 0 else 1
            free = (s * k for k in range(1, len(spans) + 1) for s in (side, -side))
            place = next(p for p in free if all(b <= c or d <= a for c, d in taken.get(p, [])))
            taken.setdefault(place, []).append((a, b))
            places[a, b] = place
    last = max(2, *map(abs, places.values())) if len(places) > 1 else 2
    width = (_FAR - _NEAR) / (last - 1)
    return {
        span: _MIDDLE + (place > 0 or -1) * (_NEAR + width * (abs(place) - 1)) if place else float(_MIDDLE)
        for span, place in places.items()
    }


def _chips(
    spans: Mapping[Span, tuple[_Op, ...]], lanes: Mapping[Span, float], top: int, step: int
) -> dict[Span, _Chip] | None:
    """Where labels stand so that none covers another; None if nodes this far apart leave no room."""
    chips: dict[Span, _Chip] = {}
    for (a, b), ops in sorted(spans.items(), key=lambda item: item[0][1] - item[0][0]):
        width = SMALL * max(len(op.words) for op in ops) + 8
        height = _CHIP * len(ops)
        x = min(max(lanes[a, b], width / 2 + 2), WIDTH - width / 2 - 2)
        heights = _heights(top + a * step, top + b * step, height)
        places = (_Chip(x, y, width, height) for y in heights)
        found = next((c for c in places if not any(c.touches(other) for other in chips.values())), None)
        if found is None:
            return None
        chips[a, b] = found
    return chips


def _heights(start: float, end: float, height: float) -> Iterator[float]:
    """From the middle outward, clear of the nodes."""
    middle = (start + end) / 2
    reach = int((end - start) / 2 - _RADIUS - height / 2 - 2)
    yield middle
    for away in range(3, reach + 1, 3):
        yield middle - away
        yield middle + away


def _edge(span: Span, x: float, top: int, step: int, ops: tuple[_Op, ...]) -> str:
    start, end = (top + i * step for i in span)
    side = (x > _MIDDLE) - (x < _MIDDLE)
    if side:
        tip = _MIDDLE + side * _RADIUS
        bend = step / 2
        path = f"M{_MIDDLE},{start} C{x:g},{start} {x:g},{start} {x:g},{start + bend:g} V{end - bend:g} "
        path += f"C{x:g},{end} {x:g},{end} {tip},{end}"
        head = f"M{tip + 5 * side},{end - 3} L{tip},{end} L{tip + 5 * side},{end + 3}"
    else:
        tip = end - _RADIUS
        path = f"M{_MIDDLE},{start} V{tip}"
        head = f"M{_MIDDLE - 3},{tip - 5} L{_MIDDLE},{tip} L{_MIDDLE + 3},{tip - 5}"
    look = f'stroke="{INK}" stroke-width="1.5"'
    if len(ops) == 1 and ops[0].mark is not None:
        look = ops[0].mark.border
    elif ops[0].name == _NOTHING:
        look = f'stroke="{INK}" stroke-dasharray="2 3"'
    return svg.line(path, look) + svg.line(head, f'stroke="{INK}"')


def _label(chip: _Chip, ops: tuple[_Op, ...]) -> list[str]:
    parts = []
    x, y = chip.x - chip.width / 2, chip.y - chip.height / 2
    for op in ops:
        plain = op.name == _NOTHING
        look = f'fill="{FILL_PLAIN if plain else FILL}" stroke="{INK}"' if op.mark is None else op.mark.look
        parts.append(svg.box(x, y, chip.width, _CHIP, look, op.name))
        parts.append(svg.text(chip.x, y + 11.5, op.words, 10, QUIET if plain else TEXT, "middle"))
        y += _CHIP
    return parts
