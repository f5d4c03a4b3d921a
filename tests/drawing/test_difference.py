"""A drawing of two architectures says what both have, what only one has, and what changed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optnas import answers
from optnas.drawing.difference import draw_difference
from optnas.facts import materialize
from optnas.hub.nasbench201 import OPS, network
from optnas.objective import Objective
from optnas.space import blocks
from optnas.trial import Draw, Trial, scope

Words = Callable[[str], list[str]]
Layout = Callable[[str], list[object]]
CELLS = st.dictionaries(st.sampled_from(list(combinations(range(5), 2))), st.sampled_from(OPS), min_size=1)


def mobile(trial: Trial) -> nn.Module:
    n_blocks = trial.suggest_int("blocks", 1, 4)
    body = [blocks.residual(scope(trial, "block", i), blocks.mbconv) for i in range(n_blocks)]
    return nn.Sequential(*body, blocks.head(trial, n_classes=10))


def random_network(space: Callable[[Trial], nn.Module], seed: int) -> nn.Module:
    rng = np.random.default_rng(seed)
    with torch.device("meta"):
        model = space(Draw(lambda name, distribution: answers.draw(distribution, rng)))
        return materialize(model, (2, 3, 32, 32))


def marked(shown: list[str], sign: str) -> list[str]:
    return [text[2:].strip() for text in shown if text.startswith(f"{sign} ")]


def test_layers_that_go_come_and_change_are_marked(words: Words) -> None:
    old = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    new = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 3))
    shown = words(draw_difference(old, new, (1, 4)))
    assert marked(shown, "−") == ["Linear", "Flatten", "was"]
    followers = [text.strip() for text in shown if text.startswith("  + ")]
    assert marked(shown, "+") == ["Linear"]
    assert followers == ["+ ReLU", "+ SiLU"]
    assert shown[-1] == "58 → 67 parameters"
    last = shown.index("− was")
    assert shown[last - 3 : last] == ["Linear", "3", "27"]
    assert shown[last + 1 : last + 3] == ["2", "18"]


def test_equal_networks_have_no_difference(words: Words) -> None:
    svg = draw_difference(random_network(network, 1), random_network(network, 1), (2, 3, 32, 32))
    shown = words(svg)
    assert shown[-1].startswith("no difference: ")
    assert not marked(shown[2:], "−")
    assert "ReLU" not in shown  # equal groups are one box


def test_trials_are_told_apart_by_their_numbers(words: Words) -> None:
    def space(trial: Trial) -> nn.Module:
        return nn.Linear(4, trial.suggest_int("width", 1, 9))

    objective = Objective(space, lambda model, trial: {"x": 0.0}, values={"x": "minimize"}, example=(2, 4))
    study = optuna.create_study()
    for width in (3, 5):
        study.enqueue_trial({"width": width})
    study.optimize(objective, 2)
    shown = words(draw_difference(*study.trials, objective))
    assert {"only in trial 0", "only in trial 1", "15 → 25 parameters"} <= set(shown)
    assert "only in mine" in words(draw_difference(*study.trials, objective, names=("mine", "yours")))


@pytest.mark.parametrize("space", [network, mobile])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_overlaps_and_nothing_is_cut(
    space: Callable[[Trial], nn.Module], seed: int, check_layout: Layout
) -> None:
    one, other = random_network(space, seed), random_network(space, seed + 3)
    assert len(check_layout(draw_difference(one, other, (2, 3, 32, 32), names=("x" * 80, "b")))) > 5


def test_only_one_network_has_layers(check_layout: Layout, words: Words) -> None:
    svg = draw_difference(nn.Sequential(), nn.Linear(3, 4))
    check_layout(svg)
    assert "+ Linear" in words(svg)


@settings(deadline=None)
@given(CELLS, CELLS)
def test_of_cells_each_operation_is_named_with_who_has_it(
    old: dict[tuple[int, int], str], new: dict[tuple[int, int], str]
) -> None:
    root = ElementTree.fromstring(draw_difference(old, new))
    shown = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]
    differ = [edge for edge in {*old, *new} if old.get(edge, "none") != new.get(edge, "none")]
    for sign, cell in (("−", old), ("+", new)):
        expected = sorted(cell[edge] for edge in differ if cell.get(edge, "none") != "none")
        assert sorted(op.rstrip("…") for op in marked(shown, sign)) == expected


@settings(deadline=None, max_examples=30)
@given(CELLS, CELLS)
def test_labels_of_cells_do_not_cover_each_other(
    old: dict[tuple[int, int], str], new: dict[tuple[int, int], str]
) -> None:
    root = ElementTree.fromstring(draw_difference(old, new))
    keys = ("x", "y", "width", "height")
    boxes = [tuple(float(r.attrib[k]) for k in keys) for r in root.iter("{http://www.w3.org/2000/svg}rect")]
    for (x, y, w, h), (a, b, c, d) in combinations(boxes, 2):
        assert x + w <= a or a + c <= x or y + h <= b or b + d <= y
    assert max(y + h for _, y, _, h in boxes) <= float(root.attrib["height"])


def test_what_is_no_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="from < to"):
        draw_difference({(0, 1): "conv"}, {(1, 0): "conv"})
    with pytest.raises(TypeError, match="pass the objective"):
        draw_difference({(0, 1): "conv"}, nn.Linear(2, 2))
