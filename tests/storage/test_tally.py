"""A claim looks at few trials, and counts as if it had looked at all."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from optnas import record
from optnas.errors import StudyGoneError
from optnas.private import trial_id
from optnas.storage import ledger, owners
from optnas.storage.base import HELD
from optnas.storage.open import claim, storage_of

COUNTS = record.COUNTS.name


@pytest.fixture
def study(new_study: Any, new_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> optuna.Study:
    monkeypatch.setattr(ledger, "_FAR", 3)
    monkeypatch.setattr(owners, "MOST_OPEN", 4)
    made, _ = new_study(new_url())
    return made


def test_counts_are_those_of_all_trials(study: optuna.Study) -> None:
    rng, storage = random.Random(0), storage_of(study)
    for _ in range(60):
        trials = study.get_trials(deepcopy=False)
        found = claim(study, None, COUNTS)
        waiting = [t for t in trials if t.state == TrialState.WAITING]
        held = [t for t in waiting if t.system_attrs.get(HELD)]
        assert found.counted == sum(map(record.counts, trials))
        assert found.running == sum(t.state == TrialState.RUNNING for t in trials)
        assert found.held == len(held)
        assert found.trial_id is not None
        if free := [t for t in waiting if t not in held]:
            assert found.trial_id in {trial_id(t) for t in free}
        else:
            numbers = [t.number for t in trials]
            assert storage.get_trial(found.trial_id).number == max(numbers, default=-1) + 1
        trial = optuna.Trial(study, found.trial_id)
        match rng.randrange(7):
            case 0:
                trial.set_user_attr(COUNTS, False)
                study.tell(trial, 1.0)
            case 1:
                study.tell(trial, state=TrialState.FAIL)
            case 2:  # paused; it may wait again
                storage.set_trial_system_attr(found.trial_id, HELD, True)
                study.tell(trial, state=TrialState.PRUNED)
            case 3:
                storage.requeue(found.trial_id)
            case 4 if found.running < 3:
                pass  # it runs on
            case _:
                study.tell(trial, 1.0)
        for paused in (t for t in trials if t.state == TrialState.PRUNED and t.system_attrs.get(HELD)):
            if rng.random() < 0.1:
                assert storage.reopen(trial_id(paused))
        if rng.random() < 0.2:
            study.enqueue_trial({"x": rng.random()})


def test_many_that_wait_are_no_obstacle(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "MOST_OPEN", 500)
    study.add_trials([create_trial(state=TrialState.WAITING) for _ in range(520)])
    taken = [claim(study, 600, COUNTS) for _ in range(3)]
    assert [storage_of(study).get_trial(found.trial_id).number for found in taken] == [0, 1, 2]
    storage: Any = storage_of(study)
    _, tally = storage._ledger._tallies[study._study_id]
    assert len(tally.open) == 500


def test_who_waits_for_the_end_is_told_when_there_is_room_again(study: optuna.Study) -> None:
    found = claim(study, 1, COUNTS)
    assert [claim(study, 1, COUNTS).trial_id for _ in range(3)] == [None] * 3
    assert claim(study, 2, COUNTS).trial_id is not None  # a larger budget
    assert claim(study, 2, COUNTS).trial_id is None
    study.tell(optuna.Trial(study, found.trial_id), state=TrialState.FAIL)
    assert claim(study, 2, COUNTS).trial_id is not None


def test_few_rows_are_left(study: optuna.Study) -> None:
    storage: Any = storage_of(study)
    study.add_trials([create_trial(value=float(i)) for i in range(30)])
    for _ in range(8):
        found = claim(study, None, COUNTS)
        study.tell(optuna.Trial(study, found.trial_id), 1.0)
    _, tally = storage._ledger._tallies[study._study_id]
    assert tally.counted >= 34
    assert not tally.open
    with storage._database.engine.connect() as connection:
        left = owners.count_budget(connection, study._study_id, COUNTS, (), tally)
    assert left.ended <= 5
    assert left.counted == 38


def test_a_database_that_was_put_back_is_noticed(study: optuna.Study) -> None:
    study.add_trials([create_trial(value=float(i)) for i in range(6)])
    claim(study, None, COUNTS)
    storage: Any = storage_of(study)
    last = max(trial_id(t) for t in study.trials)
    with storage._database.engine.connect() as connection:
        for table in ("trial_values", "trials"):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE trial_id >= {last - 2}")
        connection.commit()
    with pytest.raises(StudyGoneError):
        claim(study, None, COUNTS)
