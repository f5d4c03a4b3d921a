"""The words and tables of a report, of studies whose every number is known."""

from __future__ import annotations

import math
import statistics
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from torch import nn

from optnas import record
from optnas.analysis.leaderboard import leaderboard
from optnas.objective import Objective
from optnas.reports import summary
from optnas.reports.page import Code, Drawing, Sentences, Table
from optnas.search import counts, create_study, optimize
from optnas.trial import Trial


def space(trial: Trial) -> nn.Module:
    return nn.Linear(4, trial.suggest_int("width", 1, 500))


def estimate(model: Any, trial: Trial) -> dict[str, float]:
    return {"score": float(model.out_features)}


@pytest.fixture
def objective() -> Objective:
    return Objective(space, estimate, values={"score": "maximize"}, example=(1, 4))


def words(parts: Any) -> str:
    """All sentences."""
    return " ".join(s for part in parts if isinstance(part, Sentences) for s in part.sentences)


def of_one(study: optuna.Study) -> str:
    return words(summary.of_one(study, leaderboard(study)))


def test_every_trial_is_counted_once_by_how_it_ended(study: optuna.Study) -> None:
    said = of_one(study)
    assert (
        "8 trials: 4 complete, 1 with a known network (not scored again), 1 pruned, "
        "1 infeasible, 1 failed." in said
    )
    assert "1 failed: ValueError: no" in said
    assert "the best of 4 measurements is partly luck" in said


def test_the_best_and_its_runner_up_follow_the_direction(study: optuna.Study) -> None:
    assert "The largest value is 0.9, of trial 3. The runner-up, trial 1, has 0.7." in of_one(study)
    smaller = optuna.create_study()
    smaller.add_trials(study.trials)
    assert "The smallest value is 0.5, of trial 0. The runner-up, trial 7, has 0.6." in of_one(smaller)


def test_a_study_without_trials_or_values() -> None:
    study = optuna.create_study()
    assert of_one(study) == "The study has 0 trials. No trial has a value yet."
    study.ask()
    assert of_one(study) == "The study has 1 trial: 1 not finished. No trial has a value yet."
    two = optuna.create_study(directions=["maximize", "minimize"])
    assert "No trial has a value yet." in words(summary.of_several(two, []))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(119.0, "119.0 s"), (120.0, "2.0 minutes"), (5400.0, "90.0 minutes"), (9000.0, "2.5 hours")],
)
def test_the_time_of_all_estimates_is_said_in_a_unit_to_read(seconds: float, said: str) -> None:
    study = optuna.create_study()
    half = create_trial(value=0.0, user_attrs={record.DURATION.name: seconds / 2})
    study.add_trials([half, half])
    assert f"took {said} of one worker's time" in of_one(study)


def test_the_reasons_of_failures_are_named_the_most_frequent_first() -> None:
    study = optuna.create_study()
    for reason, n in (("rare", 1), ("one", 2), ("often", 4), ("two", 3)):
        failed = create_trial(
            state=TrialState.FAIL, user_attrs={record.REASON.name: {"kind": "error", "words": reason}}
        )
        study.add_trials([failed] * n)
    [*_, listed] = summary.of_one(study, [])
    assert isinstance(listed, Sentences)
    assert list(listed.sentences) == ["4 failed: often", "3 failed: two", "2 failed: one"]


def test_trainings_from_other_seeds_are_summed_up_by_their_statistics(study: optuna.Study) -> None:
    assert summary.retrained(study) is None
    anew = [{"value": x, "test_loss": 1.0} for x in (0.6, 0.7, 0.85)]
    by_hand = [{"value": 0.5}]
    record.write_retrained(study, 3, None, anew)
    record.write_retrained(study, 3, 20, by_hand)
    record.write_retrained(study, "0123456789abcdef", None, by_hand)
    record.write_retrained(study, 99, None, by_hand)  # a trial that was deleted
    mean, deviation = statistics.mean([0.6, 0.7, 0.85]), statistics.stdev([0.6, 0.7, 0.85])
    expected = f"{mean:.4f} ± {deviation:.4f}"
    assert f"{expected} (as searched, 3 seeds) and 0.5000 (20 epochs, 1 seed)" in of_one(study)
    table = summary.retrained(study)
    assert table is not None
    columns = dict(zip(table.head, zip(*table.rows, strict=True), strict=True))
    assert columns["metric"] == ("val_acc", "test_loss", "value")
    assert columns["trial 3, in the search"] == ("0.5000", "1.5000", "")
    assert columns["trial 3, anew, as searched, 3 seeds"] == ("", "1.0000 ± 0.0000", expected)
    assert columns["by hand, as searched, 1 seed"] == ("", "", "0.5000")


def test_a_front_is_shown_in_the_order_of_its_first_objective() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for x in (3, 1, *range(4, 25), 2):
        study.add_trial(create_trial(values=(float(x), float(x))))
    table, more = summary.front_table(study, study.best_trials)
    assert isinstance(table, Table)
    first = [float(row[1]) for row in table.rows]
    assert first == sorted(first, reverse=True)
    assert first[0] == 24
    assert words([more]) == f"And {24 - len(first)} more."
    assert "24 trials on the front" in words(summary.of_several(study, study.best_trials))
    assert "value 0 (larger is better) and value 1 (smaller is better)" in words(
        summary.of_several(study, [])
    )


def test_leaders_have_a_row_each(study: optuna.Study) -> None:
    rows = leaderboard(study)
    table = summary.leaders(rows, "val_acc")
    assert table.head == ("trial", "val_acc", "parameters", "FLOPs per sample")
    assert [row[0] for row in table.rows] == ["3", "1", "7", "0"]
    assert table.rows[0] == ("3", "0.9", "400", "1,000")
    assert list(table.below) == [row.params for row in rows]


def drawings(trial: FrozenTrial, objective: Objective | None) -> list[str]:
    parts = summary.architecture(optuna.create_study(), trial, objective)
    return [part.caption for part in parts if isinstance(part, Drawing)]


def test_an_architecture_is_drawn_where_it_can_be_built(objective: Objective) -> None:
    study = optuna.create_study()
    trial = study.ask()
    space(trial)
    record.write_facts(trial, {"n_params": 12_345, "energy": 12.5})
    study.tell(trial, 0.0)
    [trial] = study.trials
    assert drawings(trial, None) == []
    assert drawings(trial, objective) == ["The network"]
    assert "Trial 0, 12,345 parameters, energy 12.5." in words(summary.architecture(study, trial, objective))
    [decisions] = [part for part in summary.architecture(study, trial, None) if isinstance(part, Table)]
    assert list(decisions.rows) == [("width", str(trial.params["width"]))]

    def changed(trial: Trial) -> nn.Module:
        return nn.Linear(4, trial.suggest_int("height", 1, 500))

    another = Objective(changed, estimate, values={"score": "maximize"}, example=(1, 4))
    assert drawings(trial, another) == []
    assert "It could not be drawn: " in words(summary.architecture(study, trial, another))


def test_what_to_type_gives_the_search_and_its_best_network_again(objective: Objective) -> None:
    study = create_study(objective, study_name="wide", seed=7)
    optimize(study, objective, n_trials=4)
    study.add_trial(create_trial(state=TrialState.FAIL))  # which the budget does not count
    parts = summary.reproduce(study, study.best_trial)
    commands, again, model = [part.text for part in parts if isinstance(part, Code)]
    assert commands.splitlines()[0] == "optnas resume STUDY.py --study-name wide"
    found: dict[str, Any] = {"objective": objective, "space": space}
    exec(again, found)
    assert [t.params for t in found["study"].trials] == [t.params for t in study.trials[:4]]
    assert sum(map(counts, found["study"].trials)) == 4
    exec(model, found)
    assert found["model"].out_features == study.best_trial.params["width"]
    facts = dict(parts[0].rows) if isinstance(parts[0], Table) else {}
    assert (facts["study"], facts["seed"]) == ("wide", "7")
    assert facts[f"seed of trial {study.best_trial.number}"] == str(record.SEED.of(study.best_trial))
    assert facts["torch"]


def test_a_plain_study_has_less_to_reproduce(study: optuna.Study) -> None:
    [commands] = [part.text for part in summary.reproduce(study, None) if isinstance(part, Code)]
    assert commands.endswith("optnas best STUDY.py --study-name eight --retrain 5")


def test_values_that_nobody_may_use_are_no_result() -> None:
    for trial in (
        create_trial(value=math.inf),
        create_trial(value=1.0, user_attrs={record.REASON.name: {"kind": "limit", "words": "too large"}}),
    ):
        study = optuna.create_study()
        study.add_trial(trial)
        assert of_one(study).endswith("No feasible trial has a finite value.")


def test_a_study_of_optuna_alone_has_nothing_that_a_study_file_goes_on_with() -> None:
    study = optuna.create_study()
    study.add_trials([create_trial(value=1.0), create_trial(value=math.inf)])
    assert "the best of 1 measurement is partly luck. Train it from other seeds" in of_one(study)
    assert not any(isinstance(part, Code) for part in summary.reproduce(study, study.trials[0]))


def test_attributes_of_other_kinds_than_ours_are_left_out() -> None:
    study = optuna.create_study(study_name="own")
    for name, value in {"seed": "abc", "provenance": [1], "baseline": 0.9, "retrained": True}.items():
        study.set_user_attr(name, value)
    own = {
        "duration": "long",
        "n_params": "many",
        "flops": None,
        "reason": None,
        "seed": [],
        "metrics": "abc",
    }
    study.add_trial(create_trial(value=1.0, user_attrs=own))
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=own))
    assert of_one(study).endswith("1 failed: not recorded why")
    assert summary.retrained(study) is None
    assert words(summary.architecture(study, study.trials[0], None)) == "Trial 0."
    table = summary.reproduce(study, study.trials[0])[0]
    assert isinstance(table, Table)
    assert table.rows == [("study", "own")]


def test_trained_twins_and_their_verdict_are_told(study: optuna.Study) -> None:
    assert "trained all the same" not in of_one(study)
    study.add_trial(create_trial(value=0.7, user_attrs={record.AUDIT_OF.name: 1, record.COUNTS.name: False}))
    record.TWINS_DIFFER.write(study, "Trial 8 builds the same network as trial 1, and got 0.7.")
    assert "1 trial (8) trained all the same" in of_one(study)
    assert "Trial 8 builds the same network as trial 1, and got 0.7." in of_one(study)


def test_failures_of_one_cause_are_one_reason() -> None:
    study = optuna.create_study()
    for number in range(3):
        reason = record.Reason(record.Why.ERROR, f"ValueError at x.py:3: {number}", "ValueError at x.py:3")
        trial = study.ask()
        reason.write(trial)
        study.tell(trial, state=TrialState.FAIL)
    assert of_one(study).endswith("3 failed: ValueError at x.py:3: 0")


def test_a_training_that_diverged_is_counted_apart(study: optuna.Study) -> None:
    record.write_retrained(study, 3, None, [{"acc": 0.5}, {"acc": math.nan}, {"acc": 0.7}])
    table = summary.retrained(study)
    assert table is not None
    assert table.rows[-1][-1] == "0.6000 ± 0.1414 (1 of 3 not finite)"


def test_limits_are_told_with_what_broke_them(study: optuna.Study) -> None:
    study.set_user_attr(record.LIMITS.name, {"flops": [None, 2e6]})
    assert "Its limits: flops <= 2,000,000. No trial broke one." in of_one(study)
    for violation in (0.5, 0.1):
        study.add_trial(
            create_trial(state=TrialState.PRUNED, constraints={"flops": violation, "memory": 0.0})
        )
    assert "2 trials broke that of flops." in of_one(study)
