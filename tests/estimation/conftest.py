"""A small training, and a search with it by plain Optuna, for the tests of its parts."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
import torch
from torch import nn

from optnas.data import TensorData
from optnas.estimation import Training
from optnas.tasks import Classification


class _Scripted:
    """A task whose validation metric follows a script, one list per trial."""

    def __init__(self, *scripts):
        self.scripts = scripts

    def __call__(self, model, trial):
        module = Classification(2)(model, trial)
        script = self.scripts[trial.number]

        def log():
            module.log("score", script[module.current_epoch])

        module.on_validation_epoch_end = log
        return module


@pytest.fixture
def points() -> Any:
    """Makes points in the plane, of two classes."""

    def make():
        torch.manual_seed(0)
        x = torch.randn(120, 2)
        return TensorData((x, (x[:, 0] > 0).long()), batch_size=16)

    return make


@pytest.fixture
def linear() -> Any:
    """A space of one network, for the points."""
    return lambda trial: nn.Linear(2, 2)


@pytest.fixture
def training(points) -> Any:
    """Makes a training, of three epochs on the points unless told otherwise."""

    def make(tmp_path, task=None, data=None, **options):
        settings = {
            "monitor": "val_acc",
            "mode": "max",
            "max_epochs": 3,
            "folder": tmp_path / "runs",
            **options,
        }
        return Training(task or Classification(2, lr=0.05), data or points(), **settings)

    return make


@pytest.fixture
def scripted(training) -> Any:
    """Makes a training whose metric `score` follows a script, one list per trial."""

    def make(tmp_path, *scripts, **options):
        settings = {"monitor": "score", "max_epochs": len(scripts[0]), **options}
        return training(tmp_path, _Scripted(*scripts), **settings)

    return make


@pytest.fixture
def search(linear) -> Any:
    """Runs a search by plain Optuna; gives its study."""

    def run(estimator, n_trials=1, space=linear, study=None, **options):
        study = study or optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())

        def objective(trial):
            torch.manual_seed(trial.number)
            metrics = estimator(space(trial), trial)
            trial.set_user_attr("metrics", metrics)
            return metrics[estimator.monitor]

        study.optimize(objective, n_trials=n_trials, **options)
        return study

    return run
