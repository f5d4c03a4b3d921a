"""Trials that the pruner pauses: they go on in place, are put aside at the end, and are taken up again."""

import statistics

import optuna
import pytest
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.estimation.estimator import Estimator
from optnas.objective import Objective
from optnas.record import Why
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.search.turns import KEPT
from optnas.storage.base import is_held
from optnas.strategy.halving import HalvingPruner
from optnas.tasks.classification import Classification

STEPS = 8


class Curve(Estimator):
    """A curve that the width decides; goes on at the report after the last."""

    values = {"loss": "minimize"}  # noqa: RUF012  # read only
    resumes = True
    max_reports = STEPS

    def __init__(self, fails=()):
        self.fails, self.told, self.n_reports = set(fails), [], 0

    def __call__(self, model, run):
        width = model.out_features
        done = run.study.get_trials(deepcopy=False)[run.number].intermediate_values
        for step in range(len(done), STEPS):
            if (run.number, step) in self.fails:
                self.fails.discard((run.number, step))
                raise KeyboardInterrupt
            run.report(abs(width - 37) + 50.0 / (step + 1), step)
            self.n_reports += 1
            if step + 1 < STEPS and run.should_prune():
                run.pause()
        return {"loss": abs(width - 37) + 50.0 / STEPS}

    def finish(self, study, trial):
        self.told.append(trial.number)


def linear(trial):
    return nn.Linear(4, trial.suggest_int("width", 1, 200))


def objective_of(**options):
    return Objective(linear, Curve(**options), example=(2, 4))


def study_of(objective, tmp_path, shared, **options):
    storage = f"sqlite:///{tmp_path}/s.db" if shared else None
    sampler = lambda seed: optuna.samplers.RandomSampler(seed=seed)  # noqa: E731
    return create_study(objective, storage=storage, sampler=sampler, seed=0, **options)


def ends(study):
    return [(t.state, len(t.intermediate_values)) for t in study.trials]


@pytest.mark.parametrize("shared", [False, True])
def test_paused_trials_go_on_in_place_and_the_rest_is_pruned_with_a_reason(tmp_path, shared):
    objective = objective_of()
    study = study_of(objective, tmp_path, shared)
    assert isinstance(study.pruner, HalvingPruner)
    optimize(study, objective, n_trials=30)
    trials = study.trials
    assert len(trials) == record.n_counted(trials) == 30
    assert {t.state for t in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert any(a.get("how") == "paused" for t in trials for a in record.attempts(t))
    assert study.best_value == min(abs(t.params["width"] - 37) for t in trials) + 50 / STEPS
    assert objective.estimator.n_reports == sum(len(t.intermediate_values) for t in trials) < 0.6 * 30 * STEPS
    for trial in trials:
        assert list(trial.intermediate_values) == list(range(len(trial.intermediate_values)))
        if trial.state == TrialState.PRUNED:
            reason = record.Reason.of(trial)
            assert reason.kind is Why.PAUSED
            assert f"paused at step {len(trial.intermediate_values) - 1}" in reason.words
    held = [t.number for t in trials if is_held(t)]
    assert len(held) == KEPT
    assert sorted(objective.estimator.told) == [n for n in range(30) if n not in held]


@pytest.mark.parametrize("shared", [False, True])
def test_more_budget_takes_up_the_most_promising_first(tmp_path, shared):
    objective = objective_of()
    pruner = HalvingPruner(n_startup_trials=6)
    study = study_of(objective, tmp_path, shared, pruner=pruner)
    optimize(study, objective, n_trials=12)
    before = ends(study)
    held = [t.number for t in study.trials if is_held(t)]
    assert held
    optimize(study, objective, n_trials=12)  # is no more budget
    assert ends(study) == before
    if shared:
        study = study_of(objective, tmp_path, shared, pruner=pruner)
    optimize(study, objective, n_trials=40)
    assert len(study.trials) == record.n_counted(study.trials) == 40
    after = ends(study)[:12]
    went = [n for n in range(12) if after[n] != before[n]]
    assert went
    assert set(went) <= set(held)
    losses = {t.number: abs(t.params["width"] - 37) for t in study.trials}
    stayed = set(held) - set(went)
    assert max(losses[n] for n in went) < statistics.median(losses[n] for n in stayed)
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert all(len(t.intermediate_values) == STEPS and record.Reason.of(t) is None for t in complete)


def test_another_process_sees_a_trial_that_was_opened_again(tmp_path):
    objective = objective_of()
    study, watcher = (study_of(objective, tmp_path, shared=True) for _ in range(2))
    optimize(study, objective, n_trials=12)
    assert ends(watcher) == ends(study)
    optimize(study, objective, n_trials=30)
    assert ends(watcher) == ends(study)


@pytest.mark.parametrize("shared", [False, True])
def test_an_interruption_leaves_paused_trials_for_the_next_search(tmp_path, shared):
    objective = objective_of(fails=[(15, 0)])
    study = study_of(objective, tmp_path, shared)
    with pytest.raises(KeyboardInterrupt):
        optimize(study, objective, n_trials=30)
    waiting = [t for t in study.trials if t.state == TrialState.WAITING]
    assert sum(map(is_held, waiting)) == len(waiting) - 1 > 5
    optimize(study, objective, n_trials=30)
    whole = study_of(objective_of(), tmp_path / "other", shared=False)
    optimize(whole, objective_of(), n_trials=30)
    assert ends(study) == ends(whole)


def test_a_deadline_ends_what_is_paused(tmp_path):
    objective = objective_of()
    study = study_of(objective, tmp_path, shared=False)
    optimize(study, objective, timeout=0.7)
    assert {t.state for t in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert any(record.Reason.of(t).kind is Why.PAUSED for t in study.trials if t.state == TrialState.PRUNED)


def test_under_plain_optuna_it_prunes(tmp_path):
    objective = objective_of()
    study = study_of(objective, tmp_path, shared=False)
    study.optimize(objective, n_trials=15)
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert len(pruned) > 5
    assert {record.Reason.of(t).kind for t in pruned} == {Why.PRUNED}


def test_a_small_space_is_finished_before_the_search_ends(tmp_path, caplog):
    def small(trial):
        return nn.Linear(4, trial.suggest_int("width", 30, 49))

    objective = Objective(small, Curve(), example=(2, 4))
    study = study_of(objective, tmp_path, shared=False)
    optimize(study, objective, n_trials=100)
    assert len(study.trials) == 20
    assert sum(t.state == TrialState.COMPLETE for t in study.trials) >= 6
    assert study.best_params == {"width": 37}
    assert "All 20 distinct architectures" in caplog.text


def test_a_training_that_was_paused_ends_as_if_it_had_not_been(tmp_path, training):
    def space(trial):
        return nn.Sequential(nn.Linear(2, trial.suggest_int("width", 2, 60)), nn.ReLU(), nn.LazyLinear(2))

    def search(folder, pruner):
        objective = Objective(space, training(folder, Classification(2, lr=(1e-4, 1e-1)), max_epochs=4))
        study = study_of(objective, folder, shared=False, pruner=pruner)
        optimize(study, objective, n_trials=6)
        return study.trials

    paused = search(tmp_path / "a", HalvingPruner(n_startup_trials=4, finish=0.9))
    whole = search(tmp_path / "b", optuna.pruners.NopPruner())
    n_pauses = [sum(a.get("how") == "paused" for a in record.attempts(t)) for t in paused]
    went_on = [n for n, t in enumerate(paused) if t.state == TrialState.COMPLETE and n_pauses[n]]
    assert len(went_on) > 1
    for one, other in zip(paused, whole, strict=True):
        assert one.params == other.params
        n_reports = len(one.intermediate_values)
        assert list(one.intermediate_values.items()) == list(other.intermediate_values.items())[:n_reports]
        if one.state == TrialState.COMPLETE:
            assert (one.value, record.metrics(one)) == (other.value, record.metrics(other))


# ---- budgets ----


def test_a_budget_in_trainings_counts_epochs_and_goes_on_with_more(tmp_path):
    objective = objective_of()
    study = study_of(objective, tmp_path, shared=False)
    optimize(study, objective, n_trainings=4)
    n_reports = objective.estimator.n_reports
    assert 4 * STEPS <= n_reports < 5 * STEPS
    assert all(t.state.is_finished() for t in study.trials)
    assert len(study.trials) > 8
    optimize(study, objective, n_trainings=4)
    assert objective.estimator.n_reports == n_reports
    optimize(study, objective, n_trainings=6)
    assert 6 * STEPS <= objective.estimator.n_reports < 7 * STEPS


def test_a_budget_in_trainings_needs_an_estimator_that_says_how_long_one_is():
    def plain(model, run):
        return {"loss": 0.0}

    objective = Objective(linear, plain, values={"loss": "minimize"}, example=(2, 4))
    study = create_study(objective, seed=0)
    with pytest.raises(ValueError, match=r"n_trainings=3: .*\(max_reports\)"):
        optimize(study, objective, n_trainings=3)
    with pytest.raises(ValueError, match="n_trainings=0 must be above 0"):
        optimize(study, objective, n_trainings=0)


def test_the_defaults_together(tmp_path):
    """Default sampler, default pruner, twins and workers: the search learns from what is paused."""
    objective = Objective(linear, Curve(), example=(2, 4))
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/s.db", seed=1)
    optimize(study, objective, n_trials=40, n_workers=2)
    trials = study.trials
    assert len(trials) == record.n_counted(trials) == 40
    assert all(t.state.is_finished() for t in trials)
    for trial in trials:
        assert list(trial.intermediate_values) == list(range(len(trial.intermediate_values)))
    n_reports = sum(len(t.intermediate_values) for t in trials)
    assert n_reports < 0.6 * 40 * STEPS
    apart = [abs(trial.params["width"] - 37) for trial in trials]
    assert min(apart[:22]) <= 1  # by chance in 28 of 100 searches
    assert sum(distance <= 20 for distance in apart[10:22]) > 5  # by chance 2.4


@pytest.mark.parametrize("shared", [False, True])
def test_of_many_paused_trials_the_least_promising_are_pruned_for_good(tmp_path, shared):
    objective = objective_of()
    study = study_of(objective, tmp_path, shared, pruner=HalvingPruner(most_paused=5))
    n_paused = []

    def note(study, trial):
        n_paused.append(sum(t.state == TrialState.WAITING and is_held(t) for t in study.trials))

    optimize(study, objective, n_trials=30, callbacks=[note])
    assert max(n_paused) <= 5
    assert len(study.trials) == record.n_counted(study.trials) == 30
    assert study.best_value == min(abs(t.params["width"] - 37) for t in study.trials) + 50 / STEPS
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED and not is_held(t)]
    assert {record.Reason.of(t).kind for t in pruned} == {Why.PRUNED}
    assert all("5 paused trials are more promising" in record.why(t) for t in pruned)
    assert sorted(objective.estimator.told) == [t.number for t in study.trials if not is_held(t)]
