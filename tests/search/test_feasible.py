"""A device of the tests has so much memory and no more; what does not fit ends as a training would."""

from __future__ import annotations

import logging

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from torch import nn

from optnas import Objective, create_study, optimize, record
from optnas.facts.memory import memory_of_device
from optnas.record import Reason, Why
from optnas.search.feasible import NAME, LearnedMemory
from optnas.space import sample
from optnas.training.memory import out_of_memory_prunes
from optnas.trial import replay, scope

BATCH = 64
DEVICE = 6_000_000  # bytes


def space(trial) -> nn.Module:
    layers: list[nn.Module] = []
    width = 32
    for i in range(trial.suggest_int("depth", 1, 5)):
        out = scope(trial, "layer", i).suggest_int("width", 16, 4096, log=True)
        layers += [nn.Linear(width, out), nn.ReLU()]
        width = out
    return nn.Sequential(*layers, nn.Linear(width, 10))


def needed(model: nn.Module) -> int:
    """What a training takes, by hand: SGD with momentum, and the batch's outputs with their gradients."""
    n_params = sum(p.numel() for p in model.parameters())
    widths = [layer.out_features for layer in model if isinstance(layer, nn.Linear)]
    return 4 * (3 * n_params + BATCH * 3 * sum(widths))


def train(model: nn.Module, run) -> dict[str, float]:
    with out_of_memory_prunes(run):
        if needed(model) > DEVICE:
            raise MemoryError("the device of this test is full")
    return {"score": float(sum(p.numel() for p in model.parameters()))}  # larger is better, as it mostly is


def objective() -> Objective:
    return Objective(space, train, values={"score": "maximize"}, example=(2, 32))


def out_of_memory(study: optuna.Study, n: int) -> int:
    return sum((Reason.of(t) or Reason(Why.PRUNED, "")).cause == "memory" for t in study.trials[:n])


@pytest.mark.parametrize("by_default", [False, True])
def test_it_runs_out_of_memory_a_third_as_often_as_random_search_and_gives_little_away(by_default) -> None:
    """The bound follows what does fit: of thirty networks the largest is near the device's end.

    The default sampler looks for larger networks, which is what the score asks for.
    """
    learned, plain, largest = 0, 0, []
    for seed in range(2):
        searched = objective()
        sampler = None if by_default else optuna.samplers.RandomSampler(seed=seed)
        study = create_study(searched, seed=seed, sampler=sampler)
        optimize(study, searched, n_trials=30)
        learned += out_of_memory(study, 30)
        fitting = [space(replay(trial.params)) for trial in study.trials if trial.values]
        largest.append(max(map(needed, fitting)) / DEVICE)
        rng = np.random.default_rng(seed)
        drawn = [space(replay(sample(space, rng))) for _ in range(30)]
        plain += sum(needed(network) > DEVICE for network in drawn)
    assert plain >= 15  # a quarter of the space does not fit, or more
    assert learned * 3 <= plain
    assert sum(largest) / 2 > 0.6


def past(params, **attrs) -> optuna.trial.FrozenTrial:
    """A trial of two layers that has ended; `attrs` by the names of `record`, beside `state` and `value`."""
    rest = {name: attrs.pop(name) for name in ("state", "value") if name in attrs}
    kept = {getattr(record, name).name: value for name, value in attrs.items()}
    return create_trial(
        params=params, distributions={n: IntDistribution(1, 8192) for n in params}, user_attrs=kept, **rest
    )


def of_width(width: int) -> dict[str, int]:
    return {"depth": 1, "layer.0.width": width}


REFUSED = {"kind": "limit", "words": "out of memory: full", "cause": "memory"}
GAVE_UP = {"kind": "gave up", "words": "gave up", "cause": "gave up"}


def learned(*trials: optuna.trial.FrozenTrial) -> LearnedMemory:
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return LearnedMemory(study, objective())


def test_nothing_is_learned_before_something_does_not_fit() -> None:
    memory = learned(past(of_width(100), value=1.0))
    assert not memory.learn()
    assert memory.within(None)(of_width(4096))


def test_the_bound_lies_between_what_fits_and_what_does_not() -> None:
    memory = learned(
        past(of_width(100), value=1.0),
        past(of_width(1000), state=optuna.trial.TrialState.PRUNED, REASON=REFUSED),
    )
    assert memory.learn()
    within = memory.within(None)
    assert [within(of_width(width)) for width in (50, 100, 150, 500, 1000, 4000)] == [True] * 3 + [False] * 3
    assert NAME in str(within)


def test_processes_that_died_count_only_of_the_largest_networks() -> None:
    fits = past(of_width(500), value=1.0)
    for width, counts in ((200, False), (2000, True)):
        died = past(of_width(width), state=optuna.trial.TrialState.FAIL, REASON=GAVE_UP)
        assert learned(fits, died).learn() == counts


def test_a_larger_device_fits_more() -> None:
    """What did not fit into ten megabytes says less of this machine than what did not fit here."""
    allowed = []
    for memory in (memory_of_device(), 10_000_000):
        failed = past(
            of_width(1000),
            state=optuna.trial.TrialState.PRUNED,
            REASON=REFUSED,
            ATTEMPTS=[{"host": "a", "pid": 1, "started": 1.0, "memory": memory}],
        )
        known = learned(past(of_width(100), value=1.0), failed)
        assert known.learn()
        allowed.append(known.within(None)(of_width(400)))
    assert allowed == [False, True]


def test_limits_of_the_objective_are_kept_beside_it() -> None:
    searched = Objective(
        space, train, values={"score": "maximize"}, example=(2, 32), limits={"n_params": (1000, None)}
    )
    study = create_study(searched, seed=0)
    study.add_trial(past(of_width(1000), state=optuna.trial.TrialState.PRUNED, REASON=REFUSED))
    memory = LearnedMemory(study, searched)
    assert memory.learn()
    within = memory.within(searched.within)
    assert [limit.name for limit in within.limits] == ["n_params", NAME]
    assert not within(of_width(16))
    assert not within(of_width(2000))
    assert within(of_width(100))


def test_what_cannot_be_estimated_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    memory = learned(past(of_width(1000), state=optuna.trial.TrialState.PRUNED, REASON=REFUSED))
    assert memory.learn()
    with caplog.at_level(logging.DEBUG):
        assert memory.within(None)({"depth": 1})
    assert [r.levelname for r in caplog.records if "cannot be built" in r.message] == ["DEBUG"]


def test_a_fault_of_ours_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise KeyError("activations")

    monkeypatch.setattr("optnas.search.feasible.estimate_memory", broken)
    memory = learned(past(of_width(1000), state=optuna.trial.TrialState.PRUNED, REASON=REFUSED))
    memory.learn()
    within = memory.within(None)
    assert within(of_width(16))
    assert within(of_width(32))
    (told,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert "memory of a network cannot be estimated" in told
    assert "KeyError" in told
