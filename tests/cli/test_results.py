"""Results in words."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from optnas import record
from optnas.cli.results import best_values, show_trials
from optnas.private import study_id
from optnas.storage.open import storage_of


def study_of(*values: float | None, direction: str) -> optuna.Study:
    study = optuna.create_study(direction=direction)
    for value in values:
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        study.add_trial(create_trial(state=state, value=value))
    return study


def best_of(study: optuna.Study) -> str:
    storage = storage_of(study)
    return best_values(study, storage, storage.outlines(study_id(study), record.COUNTS.name))


def test_the_best_value_follows_the_direction() -> None:
    assert best_of(study_of(0.5, 0.9, None, 0.1, direction="maximize")) == "0.9"
    assert best_of(study_of(0.5, 0.9, None, 0.1, direction="minimize")) == "0.1"
    assert best_of(study_of(None, direction="maximize")) == ""


def test_of_two_objectives_one_of_the_front_is_shown() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values in ((0.5, 2e6), (0.9, 922_880.0)):
        study.add_trial(create_trial(values=values))
    assert best_of(study) == "0.9; 922,880 and 0 more"


def test_trials_are_counted_by_how_they_ended(capsys: pytest.CaptureFixture[str]) -> None:
    study = study_of(0.5, None, None, 0.9, direction="maximize")
    study.add_trial(create_trial(value=0.9, user_attrs={record.TWIN_OF.name: 3, record.COUNTS.name: False}))
    study.add_trial(create_trial(value=0.9, user_attrs={record.AUDIT_OF.name: 3, record.COUNTS.name: False}))
    study.enqueue_trial({})
    assert show_trials(study)
    first, audited, *board = capsys.readouterr().out.strip().splitlines()
    assert first == (
        "7 trials: 3 complete, 2 pruned, 1 with a known network, 1 waiting; 4 count toward --trials"
    )
    assert audited.endswith("trained again to see whether equal networks get equal values: trial 5.")
    assert "0.9" in "".join(board)
    assert not show_trials(study_of(None, direction="maximize"))
