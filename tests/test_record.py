"""Every name that a trial or a study records: what stands there is read back, and nothing else is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from optnas import record
from optnas.record import COUNTS, REASON, TWIN_OF, End, FactKind, Key, Reason, Why

KEYS = {name: key for name, key in vars(record).items() if isinstance(key, Key)}
SAMPLES: dict[type, Any] = {
    int: 7,
    float: 0.5,
    str: "words",
    bool: False,
    dict: {"a": [1, None, {"b": 0.5}]},
    list: [1, "a", {"b": True}],
}
OTHERS: list[Any] = [None, True, False, 0, 1, -1.5, "", "x", "1", [], ["a"], {}, {"a": 1}]


def stored(tmp_path: Path, **attrs: Any) -> tuple[optuna.Study, FrozenTrial]:
    """A study and a trial with these attributes, as another process reads them from a database."""
    url = f"sqlite:///{tmp_path}/nas.db"
    study = optuna.create_study(study_name="s", storage=url)
    trial = study.ask()
    for name, value in attrs.items():
        study.set_user_attr(name, value)
        trial.set_user_attr(name, value)
    study.tell(trial, 1.0)
    again = optuna.load_study(study_name="s", storage=url)
    return again, again.trials[0]


def test_every_key_comes_back_from_a_database_as_it_was(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="k", storage=f"sqlite:///{tmp_path}/nas.db")
    trial = study.ask()
    for key in {key.name: key for key in KEYS.values()}.values():
        for holder in (study, trial):
            assert key.of(holder) is None
            key.write(holder, SAMPLES[key.kind])
    study.tell(trial, 1.0)
    again = optuna.load_study(study_name="k", storage=f"sqlite:///{tmp_path}/nas.db")
    for key in KEYS.values():
        for holder in (again, again.trials[0]):
            value = key.of(holder)
            assert (type(value), value) == (key.kind, SAMPLES[key.kind])


def test_names_are_reserved_and_each_is_used_once() -> None:
    names = [key.name for key in KEYS.values()]
    assert all(name.startswith(record.PREFIX) for name in names)
    # One name may be both a study's and a trial's, where the two say different things.
    assert {name for name in names if names.count(name) > 1} == {record.FACTS.name}


@pytest.mark.parametrize("name", sorted(KEYS))
def test_another_kind_of_value_under_a_name_of_ours_is_as_if_nothing_stood_there(name: str) -> None:
    key = KEYS[name]
    for value in OTHERS:
        found = key.within({key.name: value})
        assert found is (value if type(value) is key.kind else None)


def ends_of(**attrs: Any) -> tuple[Any, ...]:
    """All that is read of a COMPLETE trial and a study with these attributes."""
    trial = create_trial(value=1.0, user_attrs=attrs)
    study = optuna.create_study()
    for name, value in attrs.items():
        study.set_user_attr(name, value)
    return (
        record.end(trial),
        record.counts(trial),
        record.why(trial),
        record.facts(trial),
        record.metrics(trial),
        record.attempts(trial),
        record.fact_kinds(study, [trial]),
        record.all_retrained(study),
        record.facts_in_words(study, trial),
    )


@pytest.mark.parametrize("value", OTHERS, ids=repr)
def test_attributes_of_the_users_own_change_nothing_whatever_their_names(value: Any) -> None:
    own = ("infeasible", "attempts", "seed", "reason", "metrics", "n_params", "flops", "twin_of", "duration")
    own += ("counts", "facts", "fingerprint", "settings", "asked", "missing", "folder", "deleted_checkpoints")
    assert ends_of(**dict.fromkeys(own, value)) == ends_of()


@pytest.mark.parametrize("value", OTHERS, ids=repr)
def test_nor_do_values_of_other_kinds_under_our_names_break_what_reads_them(value: Any) -> None:
    for key in KEYS.values():
        if type(value) is not key.kind:
            assert ends_of(**{key.name: value}) == ends_of()
        else:
            ends_of(**{key.name: value})  # whatever it says, it is read


REASONS = [Reason(kind, f"words of {kind}", "cause") for kind in Why]


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.kind.name)
def test_a_reason_is_read_back_and_told(reason: Reason, tmp_path: Path) -> None:
    study = optuna.create_study(study_name="r", storage=f"sqlite:///{tmp_path}/nas.db")
    trial = study.ask()
    reason.write(trial)
    study.tell(trial, state=TrialState.PRUNED)
    [kept] = optuna.load_study(study_name="r", storage=f"sqlite:///{tmp_path}/nas.db").trials
    assert Reason.of(kept) == reason
    assert record.why(kept) == reason.words
    assert record.end(kept) is (End.INFEASIBLE if reason.kind is Why.LIMIT else End.PRUNED)


@pytest.mark.parametrize(
    "kept", [{}, {"kind": "limit"}, {"kind": "other", "words": "x"}, {"kind": 1, "words": "x"}]
)
def test_half_a_reason_is_none(kept: dict[str, Any]) -> None:
    trial = create_trial(state=TrialState.PRUNED, user_attrs={REASON.name: kept})
    assert Reason.of(trial) is None
    assert (record.why(trial), record.end(trial)) == ("", End.PRUNED)


@pytest.mark.parametrize(
    ("state", "attrs", "violation", "expected", "counted"),
    [
        (TrialState.COMPLETE, {}, None, End.COMPLETE, True),
        (TrialState.COMPLETE, {COUNTS.name: True}, None, End.COMPLETE, True),
        (TrialState.COMPLETE, {COUNTS.name: False, TWIN_OF.name: 0}, None, End.TWIN, False),
        (TrialState.COMPLETE, {COUNTS.name: False, record.AUDIT_OF.name: 0}, None, End.COMPLETE, False),
        (TrialState.COMPLETE, {}, 1.0, End.INFEASIBLE, True),
        (TrialState.COMPLETE, {}, 0.0, End.COMPLETE, True),
        (TrialState.PRUNED, {}, None, End.PRUNED, True),
        (TrialState.PRUNED, {COUNTS.name: False}, 1.0, End.INFEASIBLE, False),
        (TrialState.FAIL, {COUNTS.name: True}, None, End.FAILED, False),
        (TrialState.WAITING, {}, None, End.OPEN, False),
        (TrialState.RUNNING, {COUNTS.name: True}, None, End.OPEN, False),
    ],
)
def test_how_a_trial_ended_and_whether_it_counts(
    state: TrialState, attrs: dict[str, Any], violation: float | None, expected: End, counted: bool
) -> None:
    study = optuna.create_study()
    trial = study.ask()
    for name, value in attrs.items():
        trial.set_user_attr(name, value)
    if violation is not None:
        trial.set_constraint("mine", violation)
    if state.is_finished():
        study.tell(trial, 1.0 if state == TrialState.COMPLETE else None, state)
    kept = study.trials[0]
    kept.state = state
    assert (record.end(kept), record.counts(kept)) == (expected, counted)
    assert record.n_counted([kept, kept]) == 2 * counted


def test_only_finite_numbers_are_numbers() -> None:
    numbers = {"a": 1, "b": 0.5, "c": math.nan, "d": math.inf, "e": True, "f": "1", "g": None}
    trial = create_trial(value=0.0, user_attrs={record.FACTS.name: numbers, record.METRICS.name: numbers})
    assert record.facts(trial) == record.metrics(trial) == {"a": 1, "b": 0.5}


def test_what_people_read_is_written_once_and_never_over_their_own() -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.set_user_attr("flops", "mine")
    trial.set_user_attr("metrics", 3)
    record.write_facts(trial, {"n_params": 5, "flops": 7})
    record.write_metrics(trial, {"acc": 0.5})
    assert (record.facts(trial), record.metrics(trial)) == ({"n_params": 5, "flops": 7}, {"acc": 0.5})
    shown = {name: trial.user_attrs[name] for name in ("n_params", "flops", "metrics")}
    assert shown == {"n_params": 5, "flops": "mine", "metrics": 3}


def test_attempts_without_a_time_are_none() -> None:
    whole = {"host": "a", "pid": 1, "started": 2.0}
    trial = create_trial(value=0.0, user_attrs={record.ATTEMPTS.name: [1, {"started": "now"}, whole]})
    assert record.attempts(trial) == [whole]


def test_trainings_anew_are_kept_by_network_and_length(tmp_path: Path) -> None:
    study, _ = stored(tmp_path)
    record.write_retrained(study, 12, None, [{"acc": 0.5}])
    record.write_retrained(study, "hash", 3, [{"acc": 0.25}])
    record.write_retrained(study, 12, 3, [{"acc": 0.75}])
    record.write_retrained(study, 12, None, [{"acc": 0.5}, {"acc": 0.625}])
    again = optuna.load_study(study_name="s", storage=study._storage)
    assert record.retrained(again, 12, None) == [{"acc": 0.5}, {"acc": 0.625}]
    assert record.retrained(again, 12, 4) == []
    assert [kept["who"] for kept in record.all_retrained(again)] == [12, 12, "hash"]


def test_what_facts_mean_is_kept_in_order_and_said_in_words(tmp_path: Path) -> None:
    study, trial = stored(tmp_path)
    assert list(record.fact_kinds(study)) == ["n_params", "flops"]
    kinds = {
        "latency": FactKind("latency", "latency", "ms", "lower"),
        "flops": FactKind("flops", "FLOPs", "per sample", "lower"),
        "score": FactKind("score", "score", "", "higher"),
    }
    record.write_fact_kinds(study, kinds)
    again = optuna.load_study(study_name="s", storage=study._storage)
    assert list(record.fact_kinds(again).items()) == list(kinds.items())
    assert [kind.label for kind in kinds.values()] == ["latency (ms)", "FLOPs per sample", "score"]
    measured = create_trial(
        value=0.0, user_attrs={record.FACTS.name: {"own": 3.25, "flops": 1000, "latency": 1.5}}
    )
    assert record.facts_in_words(again, measured) == ["latency 1.5 ms", "1,000 FLOPs per sample", "own 3.25"]
    assert record.facts_in_words(again, trial) == []


def test_seeds_come_from_the_seed_or_the_name() -> None:
    study = optuna.create_study(study_name="named")
    study.set_user_attr("seed", 3)
    assert record.origin(study) == "named"
    record.SEED.write(study, 0)
    assert record.origin(study) == 0


def test_what_is_spent_is_the_share_of_what_is_scarcest(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    x = {"x": optuna.distributions.IntDistribution(0, 9)}
    study.add_trial(create_trial(value=1.0, intermediate_values={0: 1.0, 1: 1.0}))
    study.add_trial(create_trial(state=TrialState.WAITING, params={"x": 1}, distributions=x))
    study.add_trial(create_trial(state=TrialState.WAITING))  # enqueued: nothing is spent on it
    study.add_trial(create_trial(state=TrialState.FAIL))
    assert record.spent(study, study.trials) == 0.0
    record.write_budget(study, n_trials=8, n_reports=None, seconds=None)
    assert record.spent(study, study.trials) == 2 / 8
    record.write_budget(study, n_trials=8, n_reports=4, seconds=None)
    assert record.spent(study, study.trials) == 2 / 4
    monkeypatch.setattr(record, "time", lambda: 1000.0)
    record.write_budget(study, n_trials=None, n_reports=None, seconds=100.0)
    monkeypatch.setattr(record, "time", lambda: 1030.0)
    assert record.spent(study, study.trials) == pytest.approx(0.3)
    record.BUDGET.write(study, {"n_trials": "many", "ends": None})
    assert record.spent(study, study.trials) == 0.0
