"""Cells, small graphs whose edges are operations, as SVG text in the look of `draw`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from optnas.facts.draw import _SMALL, FILL, FILL_PLAIN, INK, QUIET, TEXT, WIDTH, _cut, _text, svg

_MIDDLE, _RADIUS, _TOP = WIDTH // 2, 10, 18
_CHIP, _LONGEST = 16, 14  # height of a label in pixels, its length in characters
_NEAR, _FAR = 92, 168  # where the first and the last lane lie, from the middle
_NOTHING = "none"


@dataclass(frozen=True)
class _Chip:
    x: float
    y: float
    width: float

    def touches(self, other: _Chip) -> bool:
        near = abs(self.x - other.x) < (self.width + other.width) / 2 + 2
        return near and abs(self.y - other.y) < _CHIP + 2


def draw_cell(edges: Mapping[tuple[int, int], str]) -> str:
    """A cell as a graph from top to bottom, 400 pixels wide, every edge with its operation.

    `edges`: (from, to), with from < to, to the operation, as in NAS-Bench-201 and DARTS. Edges whose
    operation is "none" are dashed.

    Raises:
        ValueError: no edges, or an edge that does not lead to a later node.
    """
    if not edges:
        raise ValueError("edges={} has nothing to draw; give {(0, 1): 'conv', ...}.")
    for start, end in edges:
        if start >= end:
            raise ValueError(f"The edge {(start, end)} must lead to a later node: from < to.")
    nodes = sorted({node for edge in edges for node in edge})
    rank = {node: i for i, node in enumerate(nodes)}
    spans = {(rank[a], rank[b]): op for (a, b), op in edges.items()}
    lanes = _lanes(list(spans))
    step = 56
    while (chips := _chips(spans, lanes, step)) is None:
        step += 16
    parts = [_edge(span, lanes[span], step, op == _NOTHING) for span, op in spans.items()]
    for span, op in spans.items():
        parts += _label(chips[span], op)
    for i, node in enumerate(nodes):
        y = _TOP + i * step
        parts.append(f'<circle cx="{_MIDDLE}" cy="{y}" r="{_RADIUS}" fill="{FILL}" stroke="{INK}"/>')
        parts.append(_text(_MIDDLE, y + 4, str(node), 11, TEXT, "middle"))
    return svg(parts, 2 * _TOP + step * (len(nodes) - 1), f"cell of {len(nodes)} nodes")


def _lanes(spans: list[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """The x of each edge: neighbors are joined straight, others in lanes beside them, short ones inside."""
    taken: dict[int, list[tuple[int, int]]] = {}  # side * (1 + index of the lane) to its edges
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
    spans: Mapping[tuple[int, int], str], lanes: Mapping[tuple[int, int], float], step: int
) -> dict[tuple[int, int], _Chip] | None:
    """Where labels stand so that none covers another; None if nodes this far apart leave no room."""
    chips: dict[tuple[int, int], _Chip] = {}
    for (a, b), op in sorted(spans.items(), key=lambda item: item[0][1] - item[0][0]):
        width = _SMALL * min(len(op), _LONGEST) + 8
        x = min(max(lanes[a, b], width / 2 + 1), WIDTH - width / 2 - 1)
        heights = _heights(_TOP + a * step, _TOP + b * step)
        places = (_Chip(x, y, width) for y in heights)
        found = next((c for c in places if not any(c.touches(other) for other in chips.values())), None)
        if found is None:
            return None
        chips[a, b] = found
    return chips


def _heights(start: float, end: float) -> Iterator[float]:
    """From the middle outward, clear of the nodes."""
    middle = (start + end) / 2
    reach = int((end - start) / 2 - _RADIUS - _CHIP / 2 - 2)
    yield middle
    for away in range(3, reach + 1, 3):
        yield middle - away
        yield middle + away


def _edge(span: tuple[int, int], x: float, step: int, dashed: bool) -> str:
    top, bottom = (_TOP + i * step for i in span)
    side = (x > _MIDDLE) - (x < _MIDDLE)
    if side:
        end = _MIDDLE + side * _RADIUS
        bend = step / 2
        path = f"M{_MIDDLE},{top} C{x:g},{top} {x:g},{top} {x:g},{top + bend:g} V{bottom - bend:g} "
        path += f"C{x:g},{bottom} {x:g},{bottom} {end},{bottom}"
        head = f"M{end + 5 * side},{bottom - 3} L{end},{bottom} L{end + 5 * side},{bottom + 3}"
    else:
        end = bottom - _RADIUS
        path = f"M{_MIDDLE},{top} V{end}"
        head = f"M{_MIDDLE - 3},{end - 5} L{_MIDDLE},{end} L{_MIDDLE + 3},{end - 5}"
    look = 'stroke-dasharray="2 3"' if dashed else 'stroke-width="1.5"'
    return (
        f'<path d="{path}" fill="none" stroke="{INK}" {look}/><path d="{head}" fill="none" stroke="{INK}"/>'
    )


def _label(chip: _Chip, op: str) -> list[str]:
    fill, color = (FILL_PLAIN, QUIET) if op == _NOTHING else (FILL, TEXT)
    return [
        f'<rect x="{chip.x - chip.width / 2:g}" y="{chip.y - _CHIP / 2:g}" width="{chip.width:g}" '
        f'height="{_CHIP}" rx="4" fill="{fill}" stroke="{INK}"><title>{escape(op)}</title></rect>',
        _text(chip.x, chip.y + 3.5, _cut(op, _LONGEST), 10, color, "middle"),
    ]
