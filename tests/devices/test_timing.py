from __future__ import annotations

import gc
import math
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from optnas import Objective, create_study, record
from optnas.devices import LATENCY, latency, measure_latency
from optnas.devices.lock import one_at_a_time
from optnas.devices.timing import _interval
from optnas.facts.fact import preferred_device


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))


def settled() -> nn.Module:
    model = convolutions()
    model(torch.zeros(2, 3, 8, 8))
    return model


def test_more_work_takes_longer_and_the_circumstances_are_told() -> None:
    small, large = nn.Linear(8, 8), nn.Sequential(*(nn.Linear(512, 512) for _ in range(4)))
    quick = measure_latency(small, (1, 8), max_seconds=0.5)
    slow = measure_latency(large, (64, 512), max_seconds=0.5, threads=1)
    assert 0 < quick.low <= quick.median <= quick.high
    assert quick.high < slow.low
    assert (slow.batch_size, slow.dtype, slow.mode, slow.threads) == (64, "float32", "eager", 1)
    assert slow.repeats >= 10
    assert f"in {slow.repeats} passes" in slow.words
    assert "eager" in slow.words
    assert "1 thread, batch 64, float32" in slow.words


def test_what_is_as_it_was() -> None:
    model, threads = settled(), torch.get_num_threads()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    measure_latency(model, (2, 3, 8, 8), threads=threads + 1, max_seconds=0.05)
    assert torch.get_num_threads() == threads
    assert gc.isenabled()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_it_ends_when_its_time_is_over() -> None:
    start = time.monotonic()
    found = measure_latency(nn.Linear(2, 2), (1, 2), precision=1e-9, max_seconds=0.2)
    assert time.monotonic() - start < 5  # it warms up, and other work may slow it
    assert not found.narrow
    assert "less precise than was asked" in found.words


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # the compiler's own import
@pytest.mark.parametrize("mode", ["compiled", "onnxruntime"])
def test_other_ways_to_run_a_network(mode) -> None:
    with torch.compiler.set_stance("force_eager"):  # the compiler itself takes a minute
        found = measure_latency(settled(), torch.randn(2, 3, 8, 8), mode=mode, max_seconds=0.2)
    assert found.mode == mode
    assert found.median > 0


def test_a_network_that_cannot_be_exported_says_so() -> None:
    class Looking(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.sum().item() > 0 else x

    with pytest.raises(ValueError, match="cannot be exported"):
        measure_latency(Looking(3, 3), (2, 3), mode="onnxruntime")


@pytest.mark.parametrize(
    "arguments", [{"mode": "fast"}, {"threads": 0}, {"precision": 0}, {"max_seconds": -1}]
)
def test_bad_arguments_are_named(arguments) -> None:
    with pytest.raises(ValueError, match=str(next(iter(arguments)))):
        measure_latency(nn.Linear(2, 2), (1, 2), **arguments)


def test_the_interval_holds_other_measurements_of_a_machine_that_drifts() -> None:
    """Each measurement at a speed of its own, as unlike as blocks are; 1 % either way."""
    rng = np.random.default_rng(0)

    def blocks() -> list[float]:
        return list(np.exp(rng.normal(0, 0.01) + rng.normal(0, 0.01, 12)))

    held = 0
    for _ in range(400):
        low, _, high = _interval(blocks())
        _, other, _ = _interval(blocks())
        held += low <= other <= high
    assert held >= 360
    quiet = [1.0] * 9 + [50.0]  # a single interruption
    assert _interval(quiet) == pytest.approx((1, 1, 1))


def test_one_measures_at_a_time() -> None:
    """A thread stands for another process: each opens the file of the lock for itself."""
    inside, left = threading.Event(), []

    def other() -> None:
        with one_at_a_time("test"):
            inside.set()
            time.sleep(0.3)
            left.append(time.monotonic())

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    with one_at_a_time("test"):
        assert left
    thread.join()


def test_as_a_fact_of_a_search_with_its_circumstances() -> None:
    objective = Objective(
        lambda trial: nn.Linear(4, trial.suggest_int("width", 2, 3)),
        lambda model, trial: {"score": 0.0},
        values={"latency": "minimize"},
        example=(2, 4),
        facts=[LATENCY, latency((64, 4), max_seconds=0.1, name="of_64")],
    )
    study = create_study(objective, seed=0)
    study.optimize(objective, n_trials=1)
    [trial] = study.trials
    details = record.DETAILS.of(trial)
    assert details is not None
    assert math.isclose(trial.value, 1000 * details["latency"]["median"])
    assert (details["latency"]["batch_size"], details["of_64"]["batch_size"]) == (2, 64)
    [words] = [w for w in record.facts_in_words(study, trial) if w.startswith("latency")][:1]
    assert "passes" in words
    assert (LATENCY.needs, LATENCY.kind.unit, LATENCY.kind.better) == ("device", "ms", "lower")
    assert (preferred_device().type == "cpu") == (not torch.accelerator.is_available())
