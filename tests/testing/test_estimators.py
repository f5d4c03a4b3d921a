"""The check of estimators: clean ones pass, each planted fault is caught by the check that is for it."""

import itertools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from torch import nn

from optnas.benchmarks.tabular import Table, Tabular
from optnas.data import TensorData
from optnas.errors import ConformanceError
from optnas.estimation.estimator import Estimator
from optnas.tasks import Classification
from optnas.testing import check_estimator
from optnas.training import Training
from optnas.trial import Trial


def linear(trial: Trial) -> nn.Module:
    return nn.Linear(4, trial.suggest_int("width", 2, 3))


class Own(Estimator):
    """A clean estimator: the norm of the weights, by a learning rate that it asks for."""

    @property
    def values(self) -> Mapping[str, Any]:
        return {"score": "maximize"}

    @property
    def has_example(self) -> bool:
        return True

    def example(self, trial: Trial) -> Any:
        return (2, 4)

    def ask(self, model: nn.Module, trial: Trial) -> None:
        trial.suggest_float("lr", 1e-4, 1e-1, log=True)

    def __call__(self, model: nn.Module, run: Any) -> dict[str, float]:
        norm = sum(float(parameter.detach().norm()) for parameter in model.parameters())
        return {"score": run.suggest_float("lr", 1e-4, 1e-1, log=True) + norm + float(torch.rand(()))}


def fault(estimator: Any, space: Any = linear, **options: Any) -> ConformanceError:
    with pytest.raises(ConformanceError) as caught:
        check_estimator(estimator, space, **options)
    assert f"[params: {caught.value.params}]" in str(caught.value)
    return caught.value


def test_a_clean_estimator_passes_and_so_does_a_plain_function() -> None:
    check_estimator(Own(), linear)
    check_estimator(
        lambda model, trial: {"n": float(sum(p.numel() for p in model.parameters()))},
        linear,
        values={"n": "minimize"},
        example=(2, 4),
    )


def test_a_training_passes_and_leaves_nothing_behind(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    data = TensorData((x, (x[:, 0] > 0).long()), batch_size=16)
    training = Training(Classification(2, lr=(1e-3, 1e-1)), data, monitor="val_acc", mode="max", max_epochs=1)
    check_estimator(training, lambda trial: nn.Linear(4, trial.suggest_int("classes", 2, 2)))
    assert list(tmp_path.iterdir()) == []


def test_a_table_passes() -> None:
    table = Table(
        "t", lambda t: (t.suggest_int("n", 0, 1),), [(0,), (1,)], "acc", "maximize", np.ones((2, 1))
    )
    check_estimator(Tabular(table), linear, example=(2, 4))


class Plain:
    """What each faulty estimator changes one thing of."""

    def __init__(self, call: Any, **attributes: Any) -> None:
        self.call = call
        self.values = {"score": "maximize"}
        self.settings: Any = "plain"
        vars(self).update(attributes)

    def example(self, trial: Trial) -> Any:
        return (2, 4)

    def ask(self, model: nn.Module, trial: Trial) -> None:
        pass

    def __call__(self, model: nn.Module, trial: Any) -> Any:
        return self.call(model, trial)


def score(model: nn.Module, trial: Any) -> dict[str, float]:
    return {"score": 1.0}


def grow(model: nn.Module, trial: Any) -> dict[str, float]:
    model.head = nn.Linear(2, 2)
    return {"score": 1.0}


def prune(model: nn.Module, trial: Any) -> dict[str, float]:
    raise optuna.TrialPruned("too slow")


def asks(name: str = "lr", high: float = 1.0) -> Any:
    def call(model: nn.Module, trial: Any) -> dict[str, float]:
        return {"score": trial.suggest_float(name, 0.0, high)}

    return call


COUNT = itertools.count()


@pytest.mark.parametrize(
    ("estimator", "check", "message"),
    [
        (Plain(lambda model, trial: 1.0), "metrics", "returned 1.0; return numbers by name"),
        (Plain(lambda model, trial: {"loss": 1.0}), "metrics", "promises 'score', and it returned 'loss'"),
        (Plain(lambda model, trial: {"score": "good"}), "metrics", "'score' is 'good', which is no number"),
        (Plain(lambda model, trial: {"score": float("nan")}), "metrics", "finite"),
        (Plain(lambda model, trial: {"score": 1.0, "b": float("inf")}), "metrics", "'b' is inf"),
        (Plain(prune), "metrics", r"PRUNED \(too slow\)"),
        (Plain(grow), "model", "and has"),
        (Plain(asks("lr")), "ask", r"the call asked for 'lr', and ask\(model, trial\) did not"),
        (Plain(score, ask=asks("lr")), "ask", r"ask\(model, trial\) asked for 'lr', and the call did not"),
        (Plain(asks("lr"), ask=asks("lr", high=1e-6)), "ask", "'lr' has other choices in ask"),
        (Plain(lambda model, trial: {"score": float(next(COUNT))}), "same again", "score=.* and then"),
        (Plain(lambda model, trial: {"score": time.perf_counter()}), "same again", "deterministic=False"),
        (Plain(score, settings={"task": object()}), "settings", "is not JSON"),
        (
            Plain(score, example=lambda trial: (2, 5)),
            "example",
            "does not take the estimator's inputs.*2x5 and 4x",
        ),
    ],
    ids=itertools.count(),
)
def test_a_fault_is_named(estimator: Any, check: str, message: str) -> None:
    found = fault(estimator)
    assert found.check == check
    with pytest.raises(ConformanceError, match=f"(?s){message}"):
        raise found


class Unordered(Plain):
    """Its settings are in the order of a set, which differs from process to process."""

    @property
    def settings(self) -> Any:
        return list({f"option {i}" for i in range(50)})

    @settings.setter
    def settings(self, value: Any) -> None:
        pass


def test_settings_that_differ_between_processes_are_found() -> None:
    assert "in another process" in str(fault(Unordered(score)))


def test_an_estimate_that_cannot_be_repeated_may_say_so() -> None:
    check_estimator(Plain(lambda model, trial: {"score": time.perf_counter()}), linear, deterministic=False)


def test_what_an_objective_refuses_is_no_conformance() -> None:
    with pytest.raises(ValueError, match="must name a metric"):
        check_estimator(lambda model, trial: {"n": 1.0}, linear)
