"""Which decisions of a trial are the edges of a cell, read from their names alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Edges = dict[tuple[int, int], str]

_EDGE = re.compile(r"(?:(.*)\.)?(\d+)-(\d+)")


def cells(params: Mapping[str, Any]) -> dict[str, Edges]:
    """The cells among the answers, by where they are asked: `edge.0-1`, `edge.0-2`, ... are the cell `edge`.

    An edge is a decision whose name ends in `<from>-<to>`, two numbers with from < to, and whose answer is
    the name of an operation. What `optnas.draw_cell` draws.
    """
    found: dict[str, Edges] = {}
    for name, answer in params.items():
        match = _EDGE.fullmatch(name)
        if match and isinstance(answer, str) and int(match[2]) < int(match[3]):
            found.setdefault(match[1] or "cell", {})[int(match[2]), int(match[3])] = answer
    return found
