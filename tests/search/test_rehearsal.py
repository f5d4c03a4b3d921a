import random
import signal
import time

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import nn

from optnas.errors import SearchFailedError
from optnas.estimation.estimator import Estimator
from optnas.objective import Objective
from optnas.search.optimize import optimize
from optnas.search.study import create_study


def linear(trial):
    return nn.Linear(4, trial.suggest_int("width", 1, 50))


class Rehearsing(Estimator):
    """Asks for a learning rate, and notes what it rehearsed with."""

    values = {"score": "maximize"}  # noqa: RUF012  # read only

    def __init__(self, error=None):
        self.error, self.rehearsed, self.estimated = error, [], 0

    def ask(self, model, trial):
        trial.suggest_float("lr", 0.0, 1.0)

    def rehearse(self, model, run):
        lr = run.suggest_float("lr", 0.0, 1.0)
        self.rehearsed.append((model.out_features, lr, run.lone))
        random.random()
        np.random.random()  # noqa: NPY002  # as user code does
        torch.rand(1)
        if self.error is not None:
            raise self.error

    def __call__(self, model, run):
        self.estimated += 1
        return {"score": run.suggest_float("lr", 0.0, 1.0)}


def search_of(estimator, space=linear, **options):
    objective = Objective(space, estimator, example=(2, 4))
    return create_study(objective, seed=0, **options), objective


def test_a_mistake_in_the_settings_costs_no_trial():
    estimator = Rehearsing(ValueError("no such metric: val_acc"))
    study, objective = search_of(estimator)
    with pytest.raises(SearchFailedError, match=r"test_rehearsal.py:\d+ in rehearse: no such metric") as told:
        optimize(study, objective, n_trials=3)
    assert told.value.__cause__ is estimator.error
    assert "run the same search again" in str(told.value)
    assert study.trials == []
    assert estimator.estimated == 0


def test_it_happens_once_before_the_first_trial_with_all_answers():
    estimator = Rehearsing()
    study, objective = search_of(estimator)
    optimize(study, objective, n_trials=2)
    optimize(study, objective, n_trials=3)
    [(width, lr, lone)] = estimator.rehearsed
    assert 1 <= width <= 50
    assert 0.0 <= lr <= 1.0
    assert lone
    assert len(study.trials) == estimator.estimated == 3


def test_it_takes_the_first_enqueued_trial():
    estimator = Rehearsing()
    study, objective = search_of(estimator)
    study.enqueue_trial({"width": 17, "lr": 0.25})
    study.enqueue_trial({"width": 18})
    optimize(study, objective, n_trials=1)
    assert estimator.rehearsed == [(17, 0.25, True)]


def test_it_leaves_random_numbers_and_the_sampler_as_they_were():
    class Drawing(Rehearsing):
        def __call__(self, model, run):
            return {"score": run.suggest_float("lr", 0.0, 1.0)}

    class Silent(Drawing):
        def rehearse(self, model, run):
            pass

    found = []
    for estimator in (Drawing(), Silent()):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002  # as user code does
        torch.manual_seed(1)
        study, objective = search_of(estimator, sampler=optuna.samplers.RandomSampler(seed=3))
        drawn = []
        begin = study.sampler.before_trial

        def before_trial(*arguments, begin=begin, drawn=drawn):
            drawn.append((random.random(), np.random.random(), torch.rand(1).item()))  # noqa: NPY002
            begin(*arguments)

        study.sampler.before_trial = before_trial
        optimize(study, objective, n_trials=1)
        found.append((drawn, study.trials[0].params))
    assert found[0] == found[1]


@pytest.mark.parametrize("refusing", [optuna.TrialPruned("too large"), RuntimeError("this one does not run")])
def test_a_network_that_is_refused_or_does_not_run_is_none_to_rehearse_with(refusing):
    def some(trial):
        model = linear(trial)
        if model.out_features == 17:
            raise refusing
        return model

    estimator = Rehearsing()
    study, objective = search_of(estimator, some)
    study.enqueue_trial({"width": 17})
    optimize(study, objective, n_trials=1)
    [(width, _, _)] = estimator.rehearsed
    assert width != 17
    assert study.trials[0].state in (TrialState.PRUNED, TrialState.FAIL)  # it is the search that learns of it


def test_a_space_of_which_nothing_runs_costs_no_trial_either():
    def broken(trial):
        return nn.Linear(5, trial.suggest_int("width", 1, 50))  # the inputs have 4

    study, objective = search_of(Rehearsing(), broken)
    with pytest.raises(SearchFailedError, match="The search does not begin"):
        optimize(study, objective, n_trials=3)
    assert study.trials == []


def test_a_space_that_draws_without_asking_is_told_before_the_first_trial():
    def drawing(trial):
        width = trial.suggest_int("width", 1, 50)
        return nn.Sequential(nn.Linear(4, width + random.randrange(10**6) % 997), nn.LazyLinear(1))

    study, objective = search_of(Rehearsing(), drawing)
    with pytest.raises(SearchFailedError, match=r"another network from the same answers.*'0.weight' has the"):
        optimize(study, objective, n_trials=3)
    assert study.trials == []


@pytest.mark.parametrize(("names", "begins"), [({"score"}, False), ({"score", "size"}, True), (None, True)])
def test_a_limit_on_what_nobody_measures_is_told_where_the_metrics_are_known(names, begins):
    class Naming(Rehearsing):
        def rehearse(self, model, run):
            return names

        def __call__(self, model, run):
            return {**super().__call__(model, run), "size": 1.0}

    objective = Objective(linear, Naming(), example=(2, 4), limits={"size": 2.0})
    study = create_study(objective, seed=0)
    if begins:
        optimize(study, objective, n_trials=1)
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]
    else:
        with pytest.raises(SearchFailedError, match=r"limits names 'size'.*there are flops, n_params, score"):
            optimize(study, objective, n_trials=1)
        assert study.trials == []


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_that_python_would_ignore_ends_a_rehearsal_too(number, error):
    class Dying:
        def __del__(self):
            signal.raise_signal(number)
            list(range(3))  # where the handler raises: within what ignores exceptions

    class Waiting(Rehearsing):
        def rehearse(self, model, run):
            Dying()
            time.sleep(5)

    study, objective = search_of(Waiting())
    with pytest.raises(error):
        optimize(study, objective, n_trials=1)
    assert study.trials == []


def test_a_metric_named_like_a_fact_is_told_where_the_metrics_are_known():
    class Naming(Rehearsing):
        def rehearse(self, model, run):
            return {"score", "n_params"}

    study, objective = search_of(Naming())
    with pytest.raises(SearchFailedError, match="both have 'n_params'"):
        optimize(study, objective, n_trials=1)
    assert study.trials == []
