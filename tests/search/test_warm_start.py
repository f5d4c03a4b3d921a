from __future__ import annotations

import pytest
import torch
from torch import nn

from optnas import Objective, create_study, optimize, warm_start
from optnas.facts import N_PARAMS, Fact


def space(trial) -> nn.Module:
    width = trial.suggest_int("width", 1, 40)
    if width == 13:
        raise RuntimeError("unlucky")
    torch.rand(1)
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))


def task(model: nn.Module, trial) -> dict[str, float]:
    return {"score": trial.suggest_float("lr", 0.1, 1.0)}


@pytest.fixture
def objective() -> Objective:
    return Objective(space, task, values={"score": "maximize"}, example=(2, 3))


def test_the_most_promising_are_trained_first(objective) -> None:
    study = create_study(objective, seed=0)
    before = torch.get_rng_state()
    found = warm_start(study, objective, n_trials=3, n_samples=15, facts=[N_PARAMS])
    assert torch.equal(torch.get_rng_state(), before)
    widths = [candidate.params["width"] for candidate in found]
    assert len(set(widths)) == 15
    assert widths == sorted(widths, reverse=True)
    assert found[0].score == 0
    assert found[0].facts == {"n_params": 4 * widths[0] + 2 * widths[0] + 2}
    optimize(study, objective, n_trials=5)
    assert [t.params["width"] for t in study.trials[:3]] == widths[:3]
    assert all("lr" in t.params for t in study.trials)


def test_it_is_the_same_again_and_leaves_out_what_the_study_has(objective) -> None:
    first, second = (warm_start(create_study(objective, seed=5), objective, n_samples=10) for _ in range(2))
    assert first == second
    assert set(first[0].facts) == {"jacob_cov", "n_params"}
    study = create_study(objective, seed=0)
    study.enqueue_trial({"width": 7})
    found = warm_start(study, objective, n_trials=1, n_samples=500, facts=[N_PARAMS])
    widths = {candidate.params["width"] for candidate in found}
    assert widths == set(range(1, 41)) - {13}  # no more than the space has, and not what does not run


def test_what_was_trained_is_known_again_although_the_task_answered_too(objective) -> None:
    study = create_study(objective, seed=0)
    for width in (40, 39):
        study.enqueue_trial({"width": width})
    optimize(study, objective, n_trials=2)
    found = warm_start(study, objective, n_trials=1, n_samples=500, facts=[N_PARAMS])
    assert {candidate.params["width"] for candidate in found} == set(range(1, 39)) - {13}


def test_what_cannot_be_measured_ranks_last(objective) -> None:
    odd = Fact("odd", lambda model, example: 1 / (model[0].out_features % 2))
    found = warm_start(create_study(objective, seed=0), objective, n_samples=10, facts=[odd, N_PARAMS])
    assert "odd" in found[0].facts
    assert any("odd" not in candidate.facts for candidate in found)
    broken, other = Fact("broken", lambda model, example: 1 / 0), create_study(objective, study_name="b")
    with pytest.raises(ValueError, match="of no architecture could broken be measured"):
        warm_start(other, objective, n_samples=3, n_trials=1, facts=[broken])
    with pytest.raises(ValueError, match="n_trials=0"):
        warm_start(other, objective, n_trials=0)
