"""Searches within limits, through `optimize` and through Optuna's own loop."""

import logging
from itertools import pairwise

import optuna
import pytest
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.errors import ParamsMismatchError, SearchFailedError
from optnas.facts.fact import Fact
from optnas.objective import Objective
from optnas.record import End
from optnas.search.best import best
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.strategy.evolution import RegularizedEvolutionSampler
from optnas.strategy.local_search import LocalSearchSampler

UNITS = (1, 2, 4, 8, 16, 32)
HIGH = 60  # one in ten


def space(trial):
    """Three hidden layers; wider is better and costs more."""
    sizes = [4, *(trial.suggest_categorical(f"units.{i}", UNITS) for i in range(3)), 2]
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))


class Score:
    """Each layer counts for less than the one before."""

    values = {"score": "maximize"}  # noqa: RUF012  # read only

    def __init__(self):
        self.flops = []

    def example(self, trial):
        return (2, 4)

    def __call__(self, model, run):
        self.flops.append(record.facts(run)["flops"])
        return {"score": sum(layer.out_features**0.5 / 2**i for i, layer in enumerate(model[:3]))}


def flops(units):
    sizes = [4, *units, 2]
    return 2 * sum(a * b for a, b in pairwise(sizes))


ALL = [(a, b, c) for a in UNITS for b in UNITS for c in UNITS]
BEST = max(sum(u**0.5 / 2**i for i, u in enumerate(units)) for units in ALL if flops(units) <= HIGH)

SAMPLERS = {
    "predictor": None,
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    "evolution": lambda seed: RegularizedEvolutionSampler(10, 3, seed=seed),
    "local-search": lambda seed: LocalSearchSampler(5, seed=seed),
}


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("reuse_twins", [True, False])
def test_no_trial_is_spent_on_what_is_over_a_limit(make, reuse_twins):
    score = Score()
    objective = Objective(space, score, limits={"flops": HIGH}, reuse_twins=reuse_twins)
    assert sum(flops(units) <= HIGH for units in ALL) / len(ALL) < 0.1
    study = create_study(objective, seed=0, sampler=make)
    optimize(study, objective, n_trials=12)
    assert [record.end(trial) for trial in study.trials] == [End.COMPLETE] * 12
    assert max(score.flops) <= HIGH


def test_under_optunas_own_loop_neither():
    objective = Objective(space, Score(), limits={"flops": HIGH})
    study = create_study(objective, seed=0, sampler=lambda seed: TPESampler(seed=seed))
    study.optimize(objective, n_trials=15)
    assert {record.end(trial) for trial in study.trials} <= {End.COMPLETE, End.TWIN}


def test_the_best_within_the_limit_is_found():
    objective = Objective(space, Score(), limits={"flops": HIGH})
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=15)
    assert best(study, objective).value == pytest.approx(BEST)


def test_a_limit_that_nothing_meets_ends_with_its_name_and_the_smallest_value_seen():
    score = Score()
    objective = Objective(space, score, limits={"flops": 10})
    study = create_study(objective, seed=0)
    with pytest.raises(SearchFailedError, match=r"flops <= 10 \(the smallest seen is 16\)"):
        optimize(study, objective, n_trials=5)
    assert score.flops == []


def test_so_does_one_that_is_known_only_when_a_trial_runs(monkeypatch):
    monkeypatch.setattr("optnas.search.loop.MAX_IDLE_TRIALS", 10)
    width = Fact("width", lambda model, example: model[0].out_features, needs="batch")
    objective = Objective(space, Score(), facts=[width], limits={"width": 0.5})
    study = create_study(objective, seed=0)
    with pytest.raises(SearchFailedError, match=r"width <= 0\.5 \(the smallest seen is 1\)"):
        optimize(study, objective, n_trials=5)


def test_when_all_within_the_limit_were_tried_the_search_ends_and_says_so(caplog):
    objective = Objective(space, Score(), limits={"flops": 30})
    n = sum(flops(units) <= 30 for units in ALL)
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=n + 5)
    assert len(study.get_trials(states=[TrialState.COMPLETE])) == n
    assert "none within the limits was found: flops <= 30" in caplog.text


def test_what_somebody_enqueued_over_the_limit_is_told(caplog):
    score = Score()
    objective = Objective(space, score, limits={"flops": HIGH})
    study = create_study(objective, seed=0)
    study.enqueue_trial({f"units.{i}": 32 for i in range(3)})
    with caplog.at_level(logging.WARNING):
        optimize(study, objective, n_trials=2)
    assert "Trial 0, which was enqueued, is infeasible: over a limit: flops is 4,480" in caplog.text
    assert record.end(study.trials[0]) is End.INFEASIBLE
    assert len(score.flops) == 2


def test_a_study_keeps_the_limits_that_it_began_with():
    objective = Objective(space, Score(), limits={"flops": HIGH, "score": (1, None)})
    study = create_study(objective, seed=0)
    assert [*map(str, record.limits(study))] == ["flops <= 60", "score >= 1"]
    optimize(study, Objective(space, Score(), limits={"score": (1, None), "flops": HIGH}), n_trials=2)
    other = Objective(space, Score(), limits={"flops": 2 * HIGH})
    with pytest.raises(ParamsMismatchError, match=r"flops <= 60; score >= 1.*has now flops <= 120"):
        optimize(study, other, n_trials=3)
    with pytest.raises(ParamsMismatchError, match="has now no limits"):
        best(study, Objective(space, Score()))


def test_workers_keep_limits_too(tmp_path):
    objective = Objective(space, Score(), limits={"flops": HIGH})
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/a.db", seed=0)
    optimize(study, objective, n_trials=6, n_workers=2)
    assert all(record.facts(trial)["flops"] <= HIGH for trial in study.trials)
    assert record.n_counted(study.trials) == 6


def test_a_study_that_optuna_made_is_searched_within_limits_too():
    objective = Objective(space, Score(), limits={"flops": HIGH})
    study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=0))
    optimize(study, objective, n_trials=5)
    assert all(record.end(trial) is End.COMPLETE for trial in study.trials)
    assert isinstance(study.sampler, TPESampler)
