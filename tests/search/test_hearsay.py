"""A study that was told of others, through `create_study`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import TPESampler
from torch import nn

from optnas import record
from optnas.analysis.front import hypervolumes
from optnas.objective import Objective
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.strategy.predictor import PredictorSampler
from optnas.surrogate.prior import hear
from optnas.trial import Trial

GOAL = {"block.0.width": 12, "block.1.width": 5, "act": "tanh"}


def space(trial: Trial) -> nn.Module:
    act = trial.suggest_categorical("act", ["relu", "tanh", "none"])
    widths = [trial.suggest_int(f"block.{i}.width", 2, 16) for i in range(2)]
    middle: dict[str, nn.Module] = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "none": nn.Identity()}
    return nn.Sequential(nn.Linear(3, widths[0]), middle[act], nn.Linear(widths[0], widths[1]))


def distance(bias: float = 0.0) -> Callable[[nn.Module, Any], dict[str, float]]:
    """How far an architecture is from the best one, on data that differ a little."""

    def estimate(model: nn.Module, trial: Any) -> dict[str, float]:
        off = sum(abs(trial.params[n] - GOAL[n]) for n in GOAL if n != "act")  # type: ignore[operator]
        return {
            "loss": off + 3.0 * (trial.params["act"] != GOAL["act"]) + bias * trial.params["block.1.width"]
        }

    return estimate


def objective(bias: float = 0.0, of: Callable[[Trial], nn.Module] = space, **options: Any) -> Objective:
    return Objective(of, distance(bias), values={"loss": "minimize"}, example=(2, 3), **options)


@pytest.fixture(scope="module")
def old() -> optuna.Study:
    study = create_study(objective(), study_name="old", seed=0)
    optimize(study, objective(), n_trials=30)
    return study


def test_a_search_begins_where_the_other_ended_and_workers_and_a_restart_know_it(
    old: optuna.Study, tmp_path: Path
) -> None:
    own, url = objective(0.01), f"sqlite:///{tmp_path}/s.db"
    study = create_study(own, study_name="new", storage=url, seed=1, learn_from=[old])
    optimize(study, own, n_trials=2)
    alone = create_study(own, study_name="alone", seed=1)
    optimize(alone, own, n_trials=2)
    assert study.best_value < min(2.0, alone.best_value)

    again = create_study(own, study_name="new", storage=url)  # as a worker, or tomorrow: without the others
    assert [heard.study for heard in record.heard(again)] == ["old"]
    optimize(again, own, n_trials=4)
    told = create_study(own, study_name="told twice", seed=1, learn_from=[old])
    optimize(told, own, n_trials=4)
    assert [t.params for t in again.trials] == [t.params for t in told.trials]


def test_what_a_study_was_told_stays(old: optuna.Study) -> None:
    storage = optuna.storages.InMemoryStorage()
    create_study(objective(), study_name="new", storage=storage, learn_from=[old], try_first=2)
    study = create_study(objective(), study_name="new", storage=storage, learn_from=[old, old], try_first=2)
    assert len(record.heard(study)) == 1
    assert len(study.trials) == 2


def test_the_best_are_tried_first_as_far_as_the_space_takes_them(old: optuna.Study) -> None:
    def narrow(trial: Trial) -> nn.Module:
        width = trial.suggest_int("block.0.width", 2, 11)
        return nn.Linear(3, width)

    def size(model: nn.Module, trial: Any) -> dict[str, float]:
        return {"loss": 1.0}

    own = Objective(narrow, size, values={"loss": "minimize"}, example=(2, 3))
    study = create_study(own, learn_from=[old], try_first=3, sampler=TPESampler(seed=0))
    ranked = sorted(old.trials, key=lambda t: t.value if t.value is not None else 1e9)
    wanted = dict.fromkeys(t.params["block.0.width"] for t in ranked if t.params["block.0.width"] <= 11)
    assert [t.system_attrs["fixed_params"] for t in study.trials] == [
        {"block.0.width": width} for width in list(wanted)[:3]
    ]
    optimize(study, own, n_trials=3)


def test_what_cannot_be_learned_from_is_refused_with_a_way_out(old: optuna.Study) -> None:
    with pytest.raises(ValueError, match=r"this sampler cannot learn .* try_first=5"):
        create_study(objective(), study_name="a", learn_from=[old], sampler=TPESampler(seed=0))
    with pytest.raises(ValueError, match="name the studies to take them from"):
        create_study(objective(), study_name="b", try_first=3)
    with pytest.raises(ValueError, match="knows its own trials"):
        create_study(objective(), study_name="old", storage=old._storage, learn_from=[old])
    with pytest.raises(ValueError, match="'empty' has 0 trials"):
        create_study(objective(), study_name="c", learn_from=[optuna.create_study(study_name="empty")])
    other = optuna.create_study(study_name="other")
    other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=6)
    with pytest.raises(ValueError, match="nothing that study 'other' asked is asked here; it asked x"):
        create_study(objective(), study_name="d", learn_from=[other])
    both = Objective(space, distance(), values={"time": "minimize", "flops": "minimize"}, example=(2, 3))
    with pytest.raises(
        ValueError, match=r"has none of the objectives of this one\. It has loss, and this one time"
    ):
        create_study(both, study_name="e", learn_from=[old])


def of_two(bias: float = 0.0) -> Objective:
    """Far from the goal in one way, and in another that pulls away from it."""

    def estimate(model: nn.Module, trial: Any) -> dict[str, float]:
        wide = sum(trial.params[f"block.{i}.width"] for i in range(2))
        return {**distance(bias)(model, trial), "wide": float(wide)}

    return Objective(space, estimate, values={"wide": "minimize", "loss": "minimize"}, example=(2, 3))


def test_each_of_several_objectives_is_learned_from_that_of_its_name(old: optuna.Study) -> None:
    first = create_study(of_two(), study_name="first", seed=0)
    optimize(first, of_two(), n_trials=12)
    study = create_study(of_two(0.01), study_name="second", seed=1, learn_from=[first, old], try_first=2)
    heard = [(one.study, one.objective) for one in record.heard(study)]
    assert heard == [("first", "wide"), ("first", "loss"), ("old", "loss")]
    assert len(study.trials) == 2
    optimize(study, of_two(0.01), n_trials=4)
    one = create_study(objective(), study_name="one", seed=1, learn_from=[first])  # of the other two
    optimize(one, objective(), n_trials=2)
    assert [h.objective for h in record.heard(one)] == ["loss"]


def two_values(trial: Trial) -> tuple[float, float]:
    """Small widths, and widths that are those of the goal."""
    widths = [trial.suggest_int(f"width.{i}", 2, 16) for i in range(4)]
    return float(sum(widths)), float(sum(abs(a - b) for a, b in zip(widths, (12, 5, 9, 3), strict=True)))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_front_is_found_sooner_by_who_was_told_of_one_like_it() -> None:
    def ask(trial: Trial) -> None:
        two_values(trial)

    def search(seed: int, n_trials: int, other: optuna.Study | None = None) -> optuna.Study:
        sampler = PredictorSampler(ask, seed=seed)
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        study.set_metric_names(["size", "loss"])
        if other is not None:
            record.write_heard(study, [hear(other, name) for name in ("size", "loss")])
        study.optimize(two_values, n_trials=n_trials)
        return study

    other = search(0, 30)
    for seed in (1, 2):
        alone, told = (
            hypervolumes(search(seed, 6, heard), {"size": 64.0, "loss": 50.0}).volumes[-1]
            for heard in (None, other)
        )
        assert told > 1.1 * alone


def test_a_sampler_of_ones_own_learns_too(old: optuna.Study) -> None:
    own = objective(0.01)
    sampler = PredictorSampler(space, seed=0)
    study = create_study(own, study_name="own", sampler=sampler, learn_from=[old], seed=0)
    optimize(study, own, n_trials=2)
    assert study.best_value < 2.0
