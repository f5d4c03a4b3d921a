"""Memory is estimated without any, and compared with what torch's profiler sees a real pass allocate."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from optnas import Objective, create_study, record
from optnas.facts import (
    Memory,
    activation_memory,
    bytes_by_dtype,
    count_bytes,
    estimate_memory,
    size,
    training_memory,
)
from optnas.hub import nasbench201, nasbench_macro
from optnas.trial import replay

CELL = ("nor_conv_3x3", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3", "nor_conv_3x3")


def measured(model: nn.Module, x: Tensor, training: bool) -> int:
    """The most that a second pass has allocated at a time and not freed, on the CPU."""
    model = copy.deepcopy(model).train(training)

    def run() -> None:
        if training:
            model(x).sum().backward()
        else:
            with torch.no_grad():
                model(x)

    run()
    model.zero_grad(set_to_none=True)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def cells() -> nn.Module:
    params = {f"edge.{i}-{j}": op for (i, j), op in zip(nasbench201.EDGES, CELL, strict=True)}
    return nasbench201.network(replay(params), cells=1)


def bottlenecks() -> nn.Module:
    blocks = ["mb3_k3", "identity", "mb6_k5"] * 2 + ["mb3_k3"] * 2
    return nasbench_macro.network(replay({f"layer.{i}.block": b for i, b in enumerate(blocks)}), channels=8)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 10))


NETWORKS = {
    "cells": (cells, (8, 3, 32, 32)),
    "bottlenecks": (bottlenecks, (8, 3, 32, 32)),
    "perceptron": (perceptron, (256, 64)),
    "attention": (lambda: nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), (16, 32, 64)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_takes_what_was_estimated(name) -> None:
    make, shape = NETWORKS[name]
    model = make()
    estimated = estimate_memory(model, shape, training=True).activations
    assert estimated == pytest.approx(measured(model, torch.randn(shape), training=True), rel=0.05)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_forward_pass_takes_about_what_was_estimated(name) -> None:
    make, shape = NETWORKS[name]
    model = make()
    estimated = estimate_memory(model, shape).activations
    assert estimated == pytest.approx(measured(model, torch.randn(shape), training=False), rel=0.35)


def test_by_hand_and_at_another_batch_size() -> None:
    model = nn.Sequential(nn.Linear(10, 20), nn.Sigmoid(), nn.Linear(20, 5))
    found = estimate_memory(model, (3, 10), batch_size=7)
    # The first layer's output and the sigmoid's, or the sigmoid's and the last layer's, at a time.
    assert found == Memory(parameters=4 * 325, buffers=0, inputs=4 * 70, activations=4 * 7 * 40, optimizer=0)
    assert found.total == 4 * (325 + 70 + 280)
    trained = estimate_memory(model, torch.zeros(3, 10), batch_size=7, training=True, optimizer_states=2)
    assert trained.optimizer == 2 * 4 * 325
    # The kept sigmoid and all gradients are there at the end, besides what the last steps need.
    assert trained.activations >= 4 * (325 + 7 * 20)


def test_tied_weights_count_once_and_frozen_ones_need_no_gradients() -> None:
    tied = nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 50))
    tied[2].weight = tied[0].weight
    assert estimate_memory(tied, (1, 50)).parameters == 4 * (2500 + 100)
    frozen = copy.deepcopy(tied)
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    frozen.append(nn.Linear(50, 1))
    found = estimate_memory(frozen, (1, 50), training=True, optimizer_states=1)
    assert found.optimizer == 4 * 51
    assert found.activations < 4 * 2500  # no gradient of the frozen square matrix


class Looking(nn.Module):
    """Its code looks at values, which the meta device has not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x)) if float(x.sum()) >= 0 else x


def test_a_model_that_looks_at_values_is_run_on_a_copy() -> None:
    model = Looking().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    looking, other = (estimate_memory(m, (6, 4), training=True) for m in (model, model.layer))
    assert looking.activations > other.activations
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.training
    assert model.layer.weight.grad is None


def test_bytes_by_dtype_and_as_if_stored_in_another() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).half()
    model.append(nn.Linear(2, 2))
    assert bytes_by_dtype(model) == {"float16": 2 * (8 + 8), "float32": 4 * 6, "int64": 8}
    assert count_bytes(model) == 32 + 24 + 8
    assert count_bytes(model, torch.int8) == 16 + 6 + 8


def test_as_facts_of_a_search() -> None:
    facts = [size(), activation_memory(128, training=True), training_memory(32)]
    objective = Objective(
        lambda trial: nn.Linear(4, trial.suggest_int("width", 2, 9)),
        lambda model, trial: {"score": 0.0},
        values={"score": "maximize"},
        example=(2, 4),
        facts=facts,
    )
    study = create_study(objective, seed=0)
    study.enqueue_trial({"width": 3})
    study.optimize(objective, n_trials=1)
    found = record.facts(study.trials[0])
    assert found["n_bytes"] == 4 * 15
    assert found["activation_memory"] > 4 * 128 * 3
    assert found["training_memory"] >= 4 * (15 * 4 + 32 * (4 + 3))
