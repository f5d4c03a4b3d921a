"""Drawings are SVG that says what the model has; nothing leaves its box."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import optuna
import pytest
import torch
from torch import Tensor, nn

from optnas import answers
from optnas.drawing.draw import draw
from optnas.facts import materialize
from optnas.hub.nasbench201 import network
from optnas.objective import Objective
from optnas.space import blocks
from optnas.trial import Draw, Trial, scope

Words = Callable[[str], list[str]]


def random_network(seed: int) -> nn.Module:
    rng = np.random.default_rng(seed)
    trial = Draw(lambda name, distribution: answers.draw(distribution, rng))
    with torch.device("meta"):
        if seed % 2:
            return network(trial)
        body = [blocks.residual(scope(trial, "b", i), blocks.mbconv) for i in range(3)]
        return materialize(nn.Sequential(*body, blocks.head(trial, n_classes=10)), (2, 3, 32, 32))


class LongNamed(nn.Module):
    """Names and sizes that do not fit, many frames deep."""

    def __init__(self, depth: int = 7) -> None:
        super().__init__()
        self.a_very_long_name_for_an_attribute = LongNamed(depth - 1) if depth else nn.Linear(7, 100_000)
        self.another_very_long_name_for_an_attribute = nn.Sequential(
            nn.Linear(100_000, 3), nn.GroupNorm(1, 3), nn.Dropout(0.123456), nn.Hardswish(), nn.Linear(3, 7)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.a_very_long_name_for_an_attribute(x)
        return x if x.shape[1] == 7 else self.another_very_long_name_for_an_attribute(x)


def test_layers_shapes_and_parameters_are_shown(words: Words) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10)
    )
    shown = words(draw(model, (2, 3, 8, 8)))
    assert shown[6:10] == ["Conv2d 3×3", "16×8×8", "480", "+ BatchNorm2d, ReLU"]
    assert shown[10:] == ["Flatten", "1024", "", "Linear", "10", "10.2k", "10,730 parameters"]
    assert "3×8×8" in shown[:6]


def test_every_input_is_shown(words: Words) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 2)

        def forward(self, image: Tensor, table: Tensor) -> Tensor:
            return self.head(torch.cat([image.flatten(1), table], 1))

    pair = torch.zeros(1, 1, 1, 3), torch.zeros(1, 5)
    shown = words(draw(Two(), pair))
    assert shown[3:8:3] == ["input 0", "input 1"]
    assert shown[4:9:3] == ["1×1×3", "5"]
    assert "input table" in words(draw(Two(), dict(zip(("image", "table"), pair, strict=True))))


def test_without_an_example_there_are_no_shapes(words: Words) -> None:
    shown = words(draw(nn.Sequential(nn.Linear(3, 4))))
    assert "output" not in shown
    assert "Linear" in shown


def test_names_are_escaped(words: Words) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    Odd.__name__ = "<script>&"
    assert "<script>&" in words(draw(nn.Sequential(Odd(), nn.Linear(2, 2)), (1, 2)))


def test_a_trial_is_drawn_with_its_objective() -> None:
    def space(trial: Trial) -> nn.Module:
        return nn.LazyLinear(trial.suggest_int("width", 1, 9))

    objective = Objective(space, lambda model, trial: {"x": 0.0}, values={"x": "minimize"}, example=(2, 3))
    study = optuna.create_study()
    study.optimize(objective, 1)
    assert draw(study.trials[0], objective) == draw(objective.build(study.trials[0]), (2, 3))
    with pytest.raises(TypeError, match=r"draw\(study.best_trial, objective\)"):
        draw(study.trials[0])


def test_a_trial_that_cannot_be_built_on_meta_is_drawn(words: Words) -> None:
    def space(trial: Trial) -> nn.Module:
        width = int(torch.full((2,), trial.suggest_int("width", 2, 3)).sum())  # looks at values
        return nn.Linear(3, width)

    objective = Objective(space, lambda model, trial: {"x": 0.0}, values={"x": "minimize"}, example=(2, 3))
    trial = optuna.trial.FixedTrial({"width": 3})
    assert words(draw(trial, objective))[-1] == "24 parameters"


@pytest.mark.parametrize("seed", range(6))
def test_nothing_overlaps_and_nothing_is_cut(seed: int, check_layout: Callable[[str], list[object]]) -> None:
    assert len(check_layout(draw(random_network(seed), (2, 3, 32, 32)))) > 5


def test_what_does_not_fit_is_shortened(check_layout: Callable[[str], list[object]], words: Words) -> None:
    with torch.device("meta"):
        svg = draw(LongNamed(), (2, 7))
    check_layout(svg)
    titles = [shown for shown in words(svg) if shown.startswith("…")]
    assert titles
    assert all(title.split()[0].endswith("_attribute") for title in titles)
