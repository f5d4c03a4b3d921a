from collections.abc import Mapping

import optuna
import pytest
from torch import nn

from optnas import Objective, record
from optnas.errors import UntestableError
from optnas.estimation.estimator import Estimator, Function, as_estimator
from optnas.trial import replay


class Least(Estimator):
    """All that must be written."""

    def __call__(self, model, run) -> Mapping[str, float]:
        return {"score": run.suggest_float("lr", 0, 1)}


def test_only_the_call_must_be_written():
    with pytest.raises(TypeError, match="abstract"):
        Estimator()
    estimator = Least()
    objective = Objective(
        lambda trial: nn.Linear(2, 1), estimator, values={"score": "maximize"}, example=(2, 2)
    )
    assert objective.estimator is estimator
    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=2)
    assert record.ASKED.of(study.trials[0]).keys() == {"lr"}
    assert study.best_value == study.best_params["lr"]


def test_what_an_estimator_cannot_do_it_says_by_its_name():
    estimator, model = Least(), nn.Linear(1, 1)
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=1.0))
    assert not estimator.keeps_weights
    with pytest.raises(NotImplementedError, match=r"\(Least\) keeps no weights; Training does"):
        estimator.trained(model, study, study.trials[0])
    with pytest.raises(NotImplementedError, match=r"\(Least\) has no epochs"):
        estimator.with_max_epochs(3)
    with pytest.raises(UntestableError, match=r"\(Least\) has no test"):
        estimator.test(model, study, study.trials[0])


def test_a_plain_function_is_wrapped_and_its_code_is_its_settings():
    def one(model, trial):
        return {"score": 1.0}

    def two(model, trial):
        return {"score": 2.0}

    assert as_estimator(one).settings == as_estimator(one).settings != as_estimator(two).settings
    assert as_estimator(one).name == "one"
    assert as_estimator(one)(nn.Identity(), None) == {"score": 1.0}
    assert not as_estimator(one).has_example


def test_an_object_that_is_called_like_a_function_may_say_more():
    class Fast:
        values = {"score": "maximize"}  # noqa: RUF012  # read only
        settings = "fast"
        max_epochs = 8

        def __call__(self, model, trial):
            return {"score": 0.0}

        def example(self, trial):
            return (2, 4)

        def ask(self, model, trial):
            trial.suggest_int("n", 0, 1)

    estimator = as_estimator(Fast())
    assert isinstance(estimator, Function)
    assert (estimator.values, estimator.settings, estimator.max_reports) == ({"score": "maximize"}, "fast", 8)
    assert estimator.example(None) == (2, 4)
    asked = replay({"n": 1})
    estimator.ask(nn.Identity(), asked)
    assert asked.params == {"n": 1}
    assert estimator.name == "Fast"


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="cannot be called"):
        Objective(lambda trial: nn.Linear(1, 1), 3, values={"a": "maximize"}, example=(1, 1))
