"""Study files in a folder of their own, and the command line called in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner, Result

from optnas.cli.commands import app

# Scored without training, so that what is tested is the command line. The smallest network wins.
TOY = """
from torch import nn
from optnas import Objective, scope

def space(trial):
    layers, width = [], 4
    for i in range(trial.suggest_int("depth", 1, 3)):
        out = scope(trial, "block", i).suggest_int("width", 4, 16, step=4)
        layers += [nn.Linear(width, out), nn.ReLU()]
        width = out
    return nn.Sequential(*layers, nn.Linear(width, 2))

def estimate(model, trial):
    return {"score": -float(sum(p.numel() for p in model.parameters()))}

objective = Objective(space, estimate, values={"score": "maximize"}, example=(1, 4))
n_trials = 4
"""

TRAINED = """
from torch import nn
from optnas import Classification, Digits, Objective, Training

def space(trial):
    width = trial.suggest_int("width", 8, 16, step=8)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

def baseline(trial):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

estimator = Training(Classification(10, lr=0.01), Digits(), monitor="val_acc", mode="max", max_epochs=1)
objective = Objective(space, estimator)
n_trials, n_retrain = 2, 2
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A study file `toy.py` in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    file = Path("toy.py")
    file.write_text(TOY)
    yield file
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def trained(toy: Path) -> Path:
    """A study file whose networks are trained, with a baseline."""
    file = Path("trained.py")
    file.write_text(TRAINED)
    return file


@pytest.fixture
def optnas_cli(toy: Path) -> Callable[..., Result]:
    """Call a command; whatever it raises, other than by exiting, is the test's failure."""

    def call(*arguments: object) -> Result:
        verbosity = optuna.logging.get_verbosity()
        try:
            return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        finally:
            optuna.logging.set_verbosity(verbosity)

    return call
