"""Some of the trials of a large study, and what is said of that."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from optnas import record
from optnas.analysis.sample import n_counted, sampled_study, what_is_shown


@pytest.fixture
def study() -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.add_trials([create_trial(value=float(i)) for i in range(300)])
    study.add_trials([create_trial(state=TrialState.PRUNED) for _ in range(100)])
    study.add_trial(create_trial(value=0.0, user_attrs={record.COUNTS.name: False}))
    return study


def test_the_hundred_best_are_given_and_all_are_counted(study: optuna.Study) -> None:
    small = sampled_study(study, most=200)
    numbers = {trial.number for trial in small.trials}
    assert set(range(200, 300)) <= numbers
    assert len(numbers) < len(study.trials)
    assert n_counted(small) == n_counted(study) == 400
    assert small.best_value == study.best_value == 299.0


def test_it_is_said_how_many_there_are_and_which_are_shown(study: optuna.Study) -> None:
    small = sampled_study(study, most=200)
    words = what_is_shown(small)
    assert words.startswith("The study has 401 trials: 301 complete, 100 pruned.")
    assert f"is of {len(small.trials)} of them: the best 100, and others drawn at random" in words
    assert what_is_shown(study) == what_is_shown(sampled_study(study, most=1000)) == ""


def test_what_is_given_stays_as_it_was(study: optuna.Study) -> None:
    small = sampled_study(study, most=1000)
    before = len(small.trials)
    study.add_trial(create_trial(value=1000.0))
    assert len(small.trials) == before
    assert len(sampled_study(study, most=1000).trials) == before + 1
