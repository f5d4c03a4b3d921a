"""Oracle: spaces whose conditions are known, replayed."""

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial

from optnas.analysis.conditions import Conditions
from optnas.space import sample
from optnas.trial import Trial, replay


def space(trial: Trial) -> float:
    """Two levels of conditions, a repetition, and a decision that brings nothing."""
    value = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    if trial.suggest_categorical("family", ["a", "b", "c"]) == "a" and trial.suggest_categorical(
        "a.deep", [True, False]
    ):
        value += trial.suggest_int("a.deep.width", 1, 3)
    for i in range(trial.suggest_int("depth", 1, 3)):
        if trial.suggest_categorical(f"block.{i}.op", ["conv", "skip"]) == "conv":
            value += trial.suggest_categorical(f"block.{i}.op.conv.kernel", [3, 5])
    return value


@pytest.fixture(scope="module")
def trials() -> list[FrozenTrial]:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(space, n_trials=120)
    return sorted(study.trials, key=lambda t: -(t.value or 0.0))


def test_dependence_is_the_space_s(trials: list[FrozenTrial]) -> None:
    conditions = Conditions(trials)
    assert conditions.dependent("lr") == set()
    assert conditions.dependent("family") == {"a.deep", "a.deep.width"}
    assert conditions.dependent("block.0.op") == {"block.0.op.conv.kernel"}
    blocks = {f"block.{i}.op{rest}" for i in (1, 2) for rest in ("", ".conv.kernel")}
    assert conditions.dependent("depth") == blocks
    assert conditions.brings("family", "a")
    assert not conditions.brings("family", "b")


def test_changed_params_are_answers_to_the_space(trials: list[FrozenTrial]) -> None:
    conditions = Conditions(trials)
    rng = np.random.default_rng(0)
    for _ in range(50):
        params = sample(space, rng)
        for name, value in sample(space, rng).items():
            if name in params and name != "lr":
                changed = conditions.change(params, name, value)
                answers = replay(changed)
                space(answers)
                assert answers.params == changed  # nothing missing, nothing left over
                assert changed[name] == value
                kept = changed.keys() & params.keys() - {name}
                assert all(changed[k] == params[k] for k in kept)


def test_what_an_answer_brings_is_answered_as_in_the_best_trial(trials: list[FrozenTrial]) -> None:
    params: dict[str, Any] = {"lr": 0.01, "family": "b", "depth": 1, "block.0.op": "skip"}
    best_a = next(t for t in trials if t.params["family"] == "a")
    changed = Conditions(trials).change(params, "family", "a")
    assert changed["a.deep"] == best_a.params["a.deep"]


def test_an_answer_never_tried_changes_nothing_else(trials: list[FrozenTrial]) -> None:
    params: dict[str, Any] = {"lr": 0.01, "family": "b", "depth": 1, "block.0.op": "skip"}
    assert Conditions(trials).change(params, "depth", 7) == {**params, "depth": 7}
