"""Cells are drawn with every node, every edge and every operation, and no label covers another."""

from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optnas.drawing.draw_cell import draw_cell
from optnas.hub.nasbench201 import EDGES, OPS

NS = "{http://www.w3.org/2000/svg}"
PAIRS = list(combinations(range(7), 2))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(PAIRS), st.sampled_from([*OPS, "sep_conv_5x5_with_more"]), min_size=1))
def test_labels_are_apart_and_within_the_image(edges: dict[tuple[int, int], str]) -> None:
    root = ElementTree.fromstring(draw_cell(edges))
    boxes = [tuple(float(r.attrib[k]) for k in ("x", "y", "width", "height")) for r in root.iter(f"{NS}rect")]
    assert len(boxes) == len(edges)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert width == 400
    for x, y, w, h in boxes:
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height
    for (x, y, w, h), (a, b, c, d) in combinations(boxes, 2):
        assert x + w <= a or a + c <= x or y + h <= b or b + d <= y
    circles = {float(c.attrib["cy"]) for c in root.iter(f"{NS}circle")}
    assert len(circles) == len({node for edge in edges for node in edge})


def test_nodes_and_operations_are_named() -> None:
    ops = ["nor_conv_3x3", "none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "a<b"]
    svg = draw_cell(dict(zip(EDGES, ops, strict=True)))
    shown = [node.text for node in ElementTree.fromstring(svg).iter(f"{NS}text")]
    assert sorted(shown) == sorted([*ops, "0", "1", "2", "3"])
    assert svg.count("stroke-dasharray") == 1


@pytest.mark.parametrize(("edges", "message"), [({}, "nothing to draw"), ({(2, 1): "conv"}, "from < to")])
def test_what_is_no_cell_is_refused(edges: dict[tuple[int, int], str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_cell(edges)
