"""Searches of curves that cross: the dear networks learn slowly and end ahead."""

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.estimation.estimator import Estimator
from optnas.objective import Objective
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.storage.base import is_held
from optnas.strategy.pausing import PausingFrontPruner

VALUES = {"score": "maximize", "n_params": "minimize"}
STEPS = 16


def space(trial):
    return nn.Linear(1, trial.suggest_int("width", 1, 400))


def curve(width, level, step):
    """It rises to its end, `level` and something for the width, the more slowly the wider it is."""
    return (level + 0.1 * np.log(width)) * (1 - np.exp(-(step + 1) / (1 + width / 100)))


class Curve(Estimator):
    """Goes on at the report after the last."""

    values = VALUES
    resumes = True
    max_reports = STEPS

    def __call__(self, model, run):
        level = run.suggest_float("level", 0, 1)
        known = record.REPORTS.of(run.study.get_trials(deepcopy=False)[run.number]) or {}
        for step in range(len(known), STEPS):
            run.report(step, {"score": curve(model.out_features, level, step)})
            if step + 1 < STEPS and run.should_prune():
                run.pause()
        return {"score": curve(model.out_features, level, STEPS - 1)}


def searched(n, seed=0, storage=None, **options):
    objective = Objective(space, Curve(), example=(2, 1))
    study = create_study(
        objective,
        pruner=PausingFrontPruner(**options),
        storage=storage,
        seed=seed,
        sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed),
    )
    optimize(study, objective, n_trials=n)
    return study


def reports(study):
    return [len(record.REPORTS.of(trial) or {}) for trial in study.trials]


def lost(study):
    """By how much each trial that completing all had put on the front is better than what costs no more."""
    final = {t.number: curve(t.params["width"], t.params["level"], STEPS - 1) for t in study.trials}
    width = {t.number: t.params["width"] for t in study.trials}
    complete = [t.number for t in study.trials if t.state == TrialState.COMPLETE]
    return [final[n] - max((final[m] for m in complete if width[m] <= width[n]), default=0.0) for n in final]


@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_and_much_is_saved(seed):
    study = searched(40, seed, chance=0.05)
    assert len(study.trials) == record.n_counted(study.trials) == 40
    assert max(lost(study)) < 0.02
    assert sum(reports(study)) < 0.8 * 40 * STEPS
    for trial, n in zip(study.trials, reports(study), strict=True):
        assert list(record.REPORTS.of(trial)) == [str(step) for step in range(n)]
        assert (trial.state == TrialState.COMPLETE) == (n == STEPS)
        if trial.state == TrialState.PRUNED:
            assert record.why(trial).startswith(f"paused at step {n - 1} with score ")


def test_what_is_ahead_at_its_cost_never_pauses():
    study = searched(40)
    for trial in study.trials:
        if any(attempt.get("how") == "paused" for attempt in record.attempts(trial)):
            cheaper = [t for t in study.trials if t.params["width"] <= trial.params["width"]]
            assert len(cheaper) > 1


def test_the_smaller_the_chance_the_more_goes_on_and_the_less_is_lost():
    few, many = searched(40, chance=0.5), searched(40, chance=0.01)
    assert sum(reports(few)) < sum(reports(many))
    assert max(lost(many)) <= max(lost(few))


def test_more_budget_takes_up_what_paused(tmp_path):
    storage = f"sqlite:///{tmp_path}/s.db"
    study = searched(15, storage=storage, chance=0.3)
    held = [t.number for t in study.trials if is_held(t)]
    assert held
    study = searched(30, storage=storage, chance=0.01)
    assert len(study.trials) == 30
    assert any(study.trials[n].state == TrialState.COMPLETE for n in held)


def test_no_more_are_kept_than_asked_for():
    study = searched(40, most_paused=3)
    words = [record.why(t) or "" for t in study.trials]
    assert any("3 paused trials are more promising" in why for why in words)


@pytest.mark.parametrize("wrong", [{"first": 0}, {"spacing": 1}, {"chance": 0}, {"most_paused": 0}])
def test_arguments_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PausingFrontPruner(**wrong)
