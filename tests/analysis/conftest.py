"""Small studies made of finished trials, whose every number is known."""

import datetime
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "depth": IntDistribution(1, 2),
    "block.0.op": CategoricalDistribution(("conv", "pool")),
    "block.1.op": CategoricalDistribution(("conv", "pool")),
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
}


def make_trial(params: dict[str, Any], value: float | None = None, **rest: Any) -> FrozenTrial:
    """A finished trial; `params` are among DISTRIBUTIONS."""
    return create_trial(
        value=value, params=params, distributions={name: DISTRIBUTIONS[name] for name in params}, **rest
    )


@pytest.fixture
def study() -> optuna.Study:
    """Eight trials, each ended in its own way; to be maximized; the best is trial 3 with 0.9."""
    one = {"depth": 1, "block.0.op": "conv", "lr": 1e-2}
    two = {"depth": 2, "block.0.op": "conv", "block.1.op": "pool", "lr": 1e-3}
    study = optuna.create_study(direction="maximize", study_name="eight")
    attempt = {"host": "a", "pid": 1, "started": 1000.0, "ended": 1010.0}
    again = {"host": "b", "pid": 2, "started": 1020.0, "ended": 1030.0}
    facts = {"n_params": 100, "flops": 1000, "metrics": {"val_acc": 0.5, "test_loss": 1.5}}
    curve = {0: 0.3, 1: 0.5}
    study.add_trials(
        [
            make_trial(one, 0.5, intermediate_values=curve, user_attrs={**facts, "attempts": [attempt]}),
            make_trial({**one, "lr": 1e-3}, 0.7, user_attrs={**facts, "n_params": 200}),
            make_trial({**one, "lr": 1e-3}, 0.7, user_attrs={**facts, "n_params": 200, "twin_of": 1}),
            make_trial(
                two,
                0.9,
                intermediate_values={0: 0.6, 1: 0.9},
                user_attrs={**facts, "n_params": 400, "attempts": [attempt, again]},
            ),
            make_trial(one, state=TrialState.PRUNED, intermediate_values={0: 0.1}),
            make_trial(two, state=TrialState.PRUNED, user_attrs={"infeasible": "out of memory"}),
            make_trial(two, state=TrialState.FAIL, user_attrs={"reason": "ValueError: no"}),
            make_trial({**two, "lr": 1e-4}, 0.6, user_attrs={**facts, "n_params": 300}),
        ]
    )
    assert all(isinstance(t.datetime_start, datetime.datetime) for t in study.trials)
    return study
