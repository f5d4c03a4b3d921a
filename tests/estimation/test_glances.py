import logging

import numpy as np
import pytest
import torch
from torch import nn

from optnas import Objective
from optnas.estimation.glances import CHECKED
from optnas.facts.fact import Fact
from optnas.hub import gpt, mobilenetv3, nasbench201
from optnas.space import sample
from optnas.trial import replay

TOKENS = torch.arange(16).reshape(2, 8) % 9


class Width(nn.Module):
    """Layers as wide as asked; one more in train mode, if it is to be."""

    def __init__(self, width, aside=False):
        super().__init__()
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, 1)
        self.aside = nn.Linear(width, 7) if aside else None

    def forward(self, x):
        hidden = self.first(x)
        out = self.last(hidden)
        return out + self.aside(hidden).mean() if self.aside is not None and self.training else out


def counted(space):
    def counting(trial):
        counting.calls += 1
        return space(trial)

    counting.calls = 0
    return counting


def score(model, run):
    return {"score": 0.0}


def plain(trial):
    return Width(trial.suggest_int("width", 1, 99))


def objective(space=plain, example=(2, 3), facts=(), **limits):
    return Objective(space, score, values={"score": "maximize"}, example=example, facts=facts, limits=limits)


@pytest.mark.parametrize(
    ("space", "example"),
    [(mobilenetv3.network, (2, 3, 32, 32)), (nasbench201.network, (1, 3, 32, 32)), (gpt.network, TOKENS)],
    ids=["mobilenetv3", "nasbench201", "gpt"],
)
def test_costs_are_those_of_a_sketch(space, example):
    asked = objective(space, example, flops=1e9, n_params=1e9)
    for i in range(2):
        params = sample(space, np.random.default_rng(i))
        glanced = asked._glances._glance(params)
        assert glanced == asked.foresee(params)
        assert glanced["flops"] > 0


def test_only_what_is_optimized_or_limited_is_computed_and_parameters_take_no_pass():
    class Fails(Width):
        def forward(self, x):
            raise AssertionError("no pass is needed")

    asked = objective(lambda trial: Fails(trial.suggest_int("width", 1, 99)), n_params=10)
    assert [asked.costs({"width": width}) for width in (2, 3, 4, 5, 6)] == [
        {"n_params": 3 * width + width + width + 1} for width in (2, 3, 4, 5, 6)
    ]
    assert objective().costs({"width": 3}) == {}


def test_a_fact_of_the_users_is_a_cost_like_others():
    energy = Fact("energy", lambda model, example: model.first.out_features / 10)
    assert objective(facts=[energy], energy=1.0).costs({"width": 5}) == {"energy": 0.5}


def test_costs_that_are_known_take_no_further_build():
    space = counted(plain)
    asked = objective(space, flops=1e9)
    for width in range(1, CHECKED + 1):
        asked.costs({"width": width})
    asked.seen(replay({"width": 50}))
    before = space.calls
    assert asked.costs({"width": 50, "rate": 0.1}) == {"flops": 2 * 50 * 4}  # the rate is a task's
    assert asked.costs({"width": 1}) == {"flops": 8}
    assert space.calls == before


@pytest.mark.parametrize("in_trial", [False, True])
def test_who_does_more_in_train_mode_is_noticed_and_costs_what_the_trial_records(caplog, in_trial):
    def space(trial):
        width = trial.suggest_int("width", 1, 99)
        return Width(width, aside=width > 50 or not in_trial)

    asked = objective(space, flops=1e9)
    with caplog.at_level(logging.WARNING):
        if in_trial:
            assert [asked.costs({"width": width})["flops"] for width in (1, 2, 3)] == [8, 16, 24]
            assert not caplog.records
            asked._glances.check({"width": 60}, asked.foresee({"width": 60}))
        for width in (60, 70):
            assert asked.costs({"width": width}) == {"flops": 2 * width * 11}
    assert len(caplog.records) == 1
    assert "in eval mode" in caplog.text


def test_what_cannot_be_built_costs_nothing_that_is_known():
    def broken(trial):
        raise TypeError(f"no width {trial.suggest_int('width', 1, 99)}")

    assert objective(broken, flops=1e9).costs({"width": 3}) == {}


def test_a_look_that_fails_where_a_sketch_does_not_is_told_once(monkeypatch, caplog):
    def broken(model, example, facts):
        raise KeyError("convolution")

    monkeypatch.setattr("optnas.estimation.glances.glance", broken)
    asked = objective(flops=1e9)
    for width in (3, 4):
        assert asked.costs({"width": width}) == {"flops": 2 * (3 * width + width)}
    (told,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert "KeyError" in told
