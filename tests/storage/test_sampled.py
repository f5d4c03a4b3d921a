"""Large studies: what is given of them, and that it can be told from rows alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from optnas import pareto, record
from optnas.analysis.objectives import FRONT, as_one
from optnas.analysis.sample import n_counted, sampled, sampled_study, what_is_shown
from optnas.private import trial_id
from optnas.storage.base import Outline, complete
from optnas.storage.open import storage_of
from optnas.storage.sampled import SampledStorage

N = 60


@pytest.fixture
def study(new_study: Any, new_url: Callable[[], str]) -> optuna.Study:
    made, _ = new_study(new_url())
    made.add_trials([_trial(i) for i in range(N)])
    return made


def _trial(i: int) -> optuna.trial.FrozenTrial:
    """The two best values break a limit, every tenth does not count."""
    infeasible = {"constraints": [1.0]} if i in (17, 18) else {}
    return create_trial(
        state=TrialState.PRUNED if i % 10 == 3 else TrialState.COMPLETE,
        value=None if i % 10 == 3 else abs(i - 18.5),
        params={"x": i},
        distributions={"x": IntDistribution(0, 1000)},
        user_attrs={record.COUNTS.name: False} if i % 10 == 0 else {},
        system_attrs=infeasible,
    )


def leaders(study: optuna.Study, rows: list[Outline], n: int) -> list[optuna.trial.FrozenTrial]:
    return pareto.leaders(study, complete(rows), partial(storage_of(study).trials_of, study._study_id), n)


def test_rows_say_what_whole_trials_say(study: optuna.Study) -> None:
    storage, place = storage_of(study), study._study_id
    rows = storage.outlines(place, record.COUNTS.name)
    trials = study.get_trials(deepcopy=False)
    assert [(r.trial_id, r.number, r.state) for r in rows] == [
        (trial_id(t), t.number, t.state) for t in trials
    ]
    assert [r.values for r in rows] == [None if t.values is None else tuple(t.values) for t in trials]
    assert [r.counts for r in rows] == [record.counts(t) for t in trials]
    assert storage.last_start(place) == max(t.datetime_start for t in trials if t.datetime_start)
    assert storage.trials_of(place, [trial_id(trials[5]), trial_id(trials[2])]) == [trials[2], trials[5]]
    assert storage.get_n_trials(place) == N
    assert storage.get_n_trials(place, (TrialState.PRUNED, TrialState.FAIL)) == N / 10


def test_leaders_are_sound_and_the_best(study: optuna.Study) -> None:
    rows = storage_of(study).outlines(study._study_id, record.COUNTS.name)
    assert [t.number for t in leaders(study, rows, 3)] == [19, 20, 16]


def test_front_from_rows_is_that_of_whole_trials() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    for i in range(30):
        limits = {"constraints": [1.0]} if i in (2, 12) else {}
        values = [float(i * 7 % 11), float(i * 5 % 13)]
        study.add_trial(create_trial(values=values, system_attrs=limits))
    rows = storage_of(study).outlines(study._study_id, record.COUNTS.name)
    front = {t.number for t in pareto.front_trials(study)}
    assert {t.number for t in leaders(study, rows, 1)} == front
    assert len(front) > 1


def test_small_study_is_given_whole(study: optuna.Study) -> None:
    some = sampled_study(study, most=N)
    assert some.get_trials() == study.get_trials()
    assert what_is_shown(some) == ""


def test_large_study_is_given_in_part(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optnas.analysis.sample._BEST", 4)
    some = sampled_study(study, most=10)
    numbers = [t.number for t in some.get_trials(deepcopy=False)]
    assert {19, 20, 16, 21} <= set(numbers)
    assert numbers == sorted(numbers)
    assert 4 <= len(numbers) < N / 2
    assert some.best_trial.number in numbers
    assert n_counted(some) == record.n_counted(study.get_trials())
    assert what_is_shown(some).startswith("The study has 60 trials: 54 complete, 6 pruned. What is shown")
    study.add_trial(_trial(N))
    assert [t.number for t in some.get_trials(deepcopy=False)] == numbers, "one page shows one state"


def test_what_is_given_follows_the_study(study: optuna.Study) -> None:
    storage = sampled(storage_of(study), most=10)
    assert isinstance(storage, SampledStorage)
    place, running = study._study_id, study.ask()
    before = {t.number: t.state for t in storage.get_all_trials(place)}
    assert before[running.number] == TrialState.RUNNING
    running.report(0.5, 0)
    assert storage.get_all_trials(place)[-1].intermediate_values == {0: 0.5}
    study.tell(running, -1.0)
    after = {t.number: t for t in storage.get_all_trials(place)}
    assert after[running.number].value == -1.0
    assert after.keys() >= before.keys()


def test_trials_that_change_places_are_seen(study: optuna.Study) -> None:
    """One is put back as another goes on: as many run, and as many wait, as before."""
    behind, place = storage_of(study), study._study_id
    storage = sampled(behind, most=10)
    runs = study.ask()
    study.enqueue_trial({"x": 1})
    waits = study.trials[-1]
    before = {t.number: t.state for t in storage.get_all_trials(place)}
    assert before[runs.number] == TrialState.RUNNING
    behind.set_trial_state_values(trial_id(runs), TrialState.WAITING)
    behind.set_trial_state_values(trial_id(waits), TrialState.RUNNING)
    after = {t.number: t.state for t in storage.get_all_trials(place)}
    assert after[waits.number] == TrialState.RUNNING
    assert after.get(runs.number, TrialState.WAITING) == TrialState.WAITING


def test_numbers_stay_where_one_objective_is_seen_alone() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.add_trials([create_trial(values=[30, 30])] * 20)
    for i in range(20):
        study.add_trial(create_trial(values=[i, 20 - i]))
    some = optuna.load_study(study_name=study.study_name, storage=sampled(storage_of(study), most=4))
    numbers = [t.number for t in some.get_trials(deepcopy=False)]
    assert numbers[-1] != len(numbers) - 1
    for of in ("value 0", FRONT):
        assert [t.number for t in as_one(some, of).get_trials()] == numbers
