"""Drawings are SVG that says what the model has; nothing leaves its box."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from optnas.facts import materialize
from optnas.facts.draw import WIDTH, draw
from optnas.space import blocks
from optnas.space.explore import draw_value
from optnas.space.nasbench201 import network
from optnas.trial import Draw, scope

NS = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{NS}text")]


def random_network(seed: int) -> nn.Module:
    rng = np.random.default_rng(seed)
    trial = Draw(lambda name, distribution: draw_value(distribution, rng))
    with torch.device("meta"):
        if seed % 2:
            return network(trial)
        body = [blocks.residual(scope(trial, "b", i), blocks.mbconv) for i in range(3)]
        return materialize(nn.Sequential(*body, blocks.head(trial, n_classes=10)), (2, 3, 32, 32))


def test_layers_shapes_and_parameters_are_shown() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10)
    )
    shown = texts(draw(model, (2, 3, 8, 8)))
    assert shown[6:10] == ["Conv2d 3×3", "16×8×8", "480", "+ BatchNorm2d, ReLU"]
    assert shown[10:] == ["Flatten", "1024", "", "Linear", "10", "10.2k", "10,730 parameters"]
    assert "3×8×8" in shown[:6]


def test_equal_neighbors_are_drawn_once_and_different_ones_are_not() -> None:
    def block(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 8))

    shown = " ".join(texts(draw(nn.Sequential(block(4), block(4), block(4), block(5)), (1, 8))))
    assert "0 Sequential × 3 " in shown
    assert "3 Sequential " in shown
    assert shown.count("Linear") == 4


def test_without_an_example_there_are_no_shapes() -> None:
    shown = texts(draw(nn.Sequential(nn.Linear(3, 4))))
    assert "output" not in shown
    assert "Linear" in shown


def test_names_are_escaped() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    Odd.__name__ = "<script>&"
    assert "<script>&" in texts(draw(nn.Sequential(Odd(), nn.Linear(2, 2)), (1, 2)))


@pytest.mark.parametrize("seed", range(6))
def test_nothing_overlaps_and_nothing_is_cut(seed: int) -> None:
    """Boxes are apart or within each other; words stay in the image and off each other."""
    root = ElementTree.fromstring(draw(random_network(seed), (2, 3, 32, 32)))
    height = float(root.attrib["height"])
    boxes = [tuple(float(r.attrib[k]) for k in ("x", "y", "width", "height")) for r in root.iter(f"{NS}rect")]
    assert len(boxes) > 5
    for i, (x, y, w, h) in enumerate(boxes):
        assert 0 <= x < x + w <= WIDTH
        assert 0 <= y < y + h <= height
        for a, b, c, d in boxes[i + 1 :]:
            apart = b >= y + h or b + d <= y
            inside = x <= a and y <= b and a + c <= x + w and b + d <= y + h
            assert apart or inside
    lines: dict[float, list[tuple[float, float]]] = {}
    for node in root.iter(f"{NS}text"):
        start = float(node.attrib["x"])
        length = 0.605 * float(node.attrib["font-size"]) * len(node.text or "")
        if node.attrib.get("text-anchor") == "end":
            start -= length
        lines.setdefault(float(node.attrib["y"]), []).append((start, start + length))
    for spans in lines.values():
        ordered = sorted(spans)
        assert ordered[0][0] >= 0
        assert ordered[-1][1] <= WIDTH
        assert all(end <= start + 0.5 for (_, end), (start, _) in pairwise(ordered))
    assert max(lines) <= height
    assert not re.search(r"(href|url\(|<script)", ElementTree.tostring(root, encoding="unicode"))
