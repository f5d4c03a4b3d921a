"""The pieces that drawings are made of: SVG text of one width, in colors for light and for dark pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

WIDTH = 400
INK = "#7b7b7b"  # contrast at least 4.2 on white and on #111
TEXT, QUIET = "#1a1a1a", "#555555"  # on boxes, which bring their own background
FILL, FILL_PLAIN = "#d3e5f3", "#ececec"  # with and without parameters
SHORTCUT = "#d55e00"
CHAR, SMALL = 6.65, 6.05  # widths of a monospace character at 11 and at 10 pixels


@dataclass(frozen=True)
class Mark:
    """How a drawing of two architectures shows what only one has: told by sign and border, not by color."""

    sign: str
    fill: str
    border: str

    @property
    def look(self) -> str:
        return f'fill="{self.fill}" {self.border}'


REMOVED = Mark("−", "#fbe6d8", 'stroke="#d55e00" stroke-width="1.5" stroke-dasharray="4 3"')
ADDED = Mark("+", FILL, 'stroke="#0072b2" stroke-width="2.5"')


def legend(names: tuple[str, str]) -> list[str]:
    """A line of 20 pixels: which mark stands for which of two architectures."""
    parts = []
    for x, mark, name in ((8, REMOVED, names[0]), (WIDTH // 2, ADDED, names[1])):
        parts.append(box(x, 3, 20, 14, mark.look))
        parts.append(text(x + 10, 14, mark.sign, 11, TEXT, "middle"))
        parts.append(text(x + 27, 14, cut(f"only in {name}", 26), 10, INK))
    return parts


def image(parts: Iterable[str], height: float, title: str) -> str:
    """An image of the usual width; `title` is for those who do not see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace"><title>{escape(title)}</title>'
        + "".join(parts)
        + "</svg>"
    )


def text(x: float, y: float, words: str, size: int, color: str, anchor: str = "start") -> str:
    """`words` on the baseline `y`; `anchor` says which of their ends is at `x`."""
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}"{where}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, look: str, title: str = "") -> str:
    """A rounded box; `look` is its attributes, `title` what it says under the pointer."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" {look}>'
        f"<title>{escape(title)}</title></rect>"
    )


def line(path: str, look: str) -> str:
    return f'<path d="{path}" fill="none" {look}/>'


def cut(words: str, room: int) -> str:
    """The first `room` characters, the last of them an ellipsis where more is left out."""
    return words if len(words) <= room else words[: max(0, room - 1)] + "…"


def count(n: int) -> str:
    """At most six characters: 512, 4.6k, 12.3M; nothing for zero."""
    if not n:
        return ""
    for unit, size in (("", 1), ("k", 10**3), ("M", 10**6), ("G", 10**9)):
        if n < 999.5 * size:
            return f"{n / size:.3g}{unit}"
    return f"{n / 10**12:.3g}T"
