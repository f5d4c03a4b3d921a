"""A learning curve shows every finite report, in its place, within the image."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from optnas.drawing.curve import draw_curve

NS = "{http://www.w3.org/2000/svg}"


def reported(number: int, values: dict[int, float]) -> FrozenTrial:
    trial = optuna.create_trial(state=TrialState.PRUNED, intermediate_values=values)
    trial.number = number
    return trial


def spots(svg: str) -> list[tuple[float, float]]:
    circles = ElementTree.fromstring(svg).iter(f"{NS}circle")
    return [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in circles]


def test_reports_stand_in_proportion() -> None:
    svg = draw_curve(reported(3, {4: 2.0, 0: 1.0, 2: float("nan"), 3: 1.5}), name="val_acc")
    (x0, y0), (x1, y1), (x2, y2) = spots(svg)
    assert (x1 - x0) / (x2 - x0) == pytest.approx(3 / 4, abs=0.01)
    assert (y1 - y0) / (y2 - y0) == pytest.approx(1 / 2, abs=0.01)
    assert y2 < y0  # up is more
    words = [node.text for node in ElementTree.fromstring(svg).iter(f"{NS}text")]
    assert words == ["val_acc", "2", "1", "4", "0"]


def test_the_best_trial_is_dashed_beside_and_both_fit() -> None:
    svg = draw_curve(reported(3, {0: 1.0, 1: 0.5}), reported(1, {0: 9.0, 30: -1.0}))
    assert svg.count('stroke-dasharray="4 3"') == 1
    assert "trial 3, and dashed the best, trial 1" in svg
    xs, ys = zip(*[map(float, pair) for pair in re.findall(r"[ML](\d[\d.]*),(\d[\d.]*)", svg)], strict=True)
    assert 0 <= min(xs) < max(xs) <= 400
    assert 0 <= min(ys) < max(ys) <= float(ElementTree.fromstring(svg).attrib["height"])
    assert "dashed" not in draw_curve(reported(3, {0: 1.0}), reported(3, {0: 1.0}))


@pytest.mark.parametrize("values", [{}, {0: float("inf")}])
def test_without_reports_it_says_so(values: dict[int, float]) -> None:
    assert "Nothing has been reported yet." in draw_curve(reported(0, values))


def test_one_report_is_a_point() -> None:
    assert len(spots(draw_curve(reported(0, {5: 0.1})))) == 1


def test_what_is_at_one_place_is_said_once() -> None:
    words = [
        node.text for node in ElementTree.fromstring(draw_curve(reported(0, {5: 0.1}))).iter(f"{NS}text")
    ]
    assert words == ["reported", "0.1", "5"]


def test_no_value_is_too_large() -> None:
    (_, y0), (_, y1), (_, y2) = spots(draw_curve(reported(0, {0: -1.7e308, 1: 0.0, 2: 1.7e308})))
    assert (y1 - y0) / (y2 - y0) == pytest.approx(1 / 2, abs=0.01)
