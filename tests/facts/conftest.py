"""What every drawing must keep to, and a second opinion on what a model computes."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

NS = "{http://www.w3.org/2000/svg}"
Box = tuple[float, float, float, float]


def boxes(root: ElementTree.Element) -> list[Box]:
    """x, y, width and height of each rectangle."""
    edges = [
        [float(rect.attrib[key]) for key in ("x", "y", "width", "height")] for rect in root.iter(f"{NS}rect")
    ]
    return [(x, y, width, height) for x, y, width, height in edges]


@pytest.fixture(scope="session")
def interpreter() -> ModuleType:
    """interpreter.py beside this file."""
    spec = importlib.util.spec_from_file_location("interpreter", Path(__file__).with_name("interpreter.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def words() -> Callable[[str], list[str]]:
    """All texts of a drawing, in the order of the file."""
    return lambda svg: [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{NS}text")]


@pytest.fixture
def check_layout() -> Callable[[str], list[Box]]:
    """Boxes are apart or within each other; words stay in the image and off each other. Returns the boxes."""

    def check(svg: str) -> list[Box]:
        root = ElementTree.fromstring(svg)
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        assert width == 400
        found = boxes(root)
        for i, (x, y, w, h) in enumerate(found):
            assert 0 <= x < x + w <= width
            assert 0 <= y < y + h <= height
            for a, b, c, d in found[i + 1 :]:
                apart = b >= y + h or b + d <= y or a >= x + w or a + c <= x
                inside = x <= a and y <= b and a + c <= x + w and b + d <= y + h
                assert apart or inside
        lines: dict[float, list[tuple[float, float]]] = {}
        for node in root.iter(f"{NS}text"):
            start = float(node.attrib["x"])
            length = 0.605 * float(node.attrib["font-size"]) * len(node.text or "")
            start -= {"end": length, "middle": length / 2}.get(node.attrib.get("text-anchor", ""), 0)
            lines.setdefault(float(node.attrib["y"]), []).append((start, start + length))
        for spans in lines.values():
            ordered = sorted(spans)
            assert ordered[0][0] >= 0
            assert ordered[-1][1] <= width
            assert all(end <= start + 0.5 for (_, end), (start, _) in pairwise(ordered))
        assert max(lines) <= height
        assert not re.search(r"(href|url\(|<script)", svg)  # nothing is loaded or run
        return found

    return check
