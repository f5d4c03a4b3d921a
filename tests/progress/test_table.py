"""The table says who runs what and how much is done, in eighty columns."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from optnas import record
from optnas.progress.table import best, best_words, duration, ending, progress_table
from optnas.storage.base import HELD


def shown(study: optuna.Study, n_trials: int | None, width: int = 80, **told: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=100)
    console.print(progress_table(study, n_trials, **told))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]  # a StringIO


NOW = datetime(2026, 5, 1, 12)


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running trials have run for as long as others when they are shown."""
    monkeypatch.setattr("optnas.progress.table.datetime", SimpleNamespace(now=lambda: NOW))


def add(study: optuna.Study, state: TrialState, **attributes: Any) -> FrozenTrial:
    """A trial that took 65 seconds; what it recorded, by the names of `record`."""
    known: dict[str, Any] = {"system_attrs": {}, "params": {}, "distributions": {}}
    trial = optuna.trial.FrozenTrial(
        number=0,
        state=state,
        value=attributes.pop("value", None),
        datetime_start=NOW - timedelta(seconds=65),
        datetime_complete=NOW if state.is_finished() else None,
        intermediate_values=attributes.pop("reports", {}),
        user_attrs={getattr(record, name).name: value for name, value in attributes.items()},
        trial_id=0,
        **known,
    )
    study.add_trial(trial)
    return study.trials[-1]


def because(kind: str, words: str) -> dict[str, str]:
    return {"kind": kind, "words": words, "cause": ""}


@pytest.fixture
def study() -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    add(study, TrialState.COMPLETE, value=0.5, reports={0: 0.1, 7: 0.5})
    add(study, TrialState.COMPLETE, value=0.5, TWIN_OF=0, COUNTS=False)
    add(study, TrialState.PRUNED, reports={3: 0.25}, REASON=because("pruned", "below the median"))
    add(study, TrialState.PRUNED, REASON=because("limit", "out of memory"), COUNTS=False)
    failed = because("error", "RuntimeError: " + "long " * 30)
    add(study, TrialState.FAIL, reports={1: 0.9}, REASON=failed)
    add(
        study,
        TrialState.RUNNING,
        reports={2: 0.75},
        ATTEMPTS=[{"host": "a", "pid": 1, "started": 0.0}, {"host": "b", "pid": 2, "started": 1.0}],
    )
    return study


def test_every_trial_has_its_line(study: optuna.Study) -> None:
    lines = shown(study, 10)
    assert [line.split()[:5] for line in lines[2:-1]] == [
        ["0", "complete", "7", "0.5", "1:05"],
        ["1", "twin", "0.5", "1:05", "same"],
        ["2", "pruned", "3", "0.25", "1:05"],
        ["3", "infeasible", "1:05", "out", "of"],
        ["4", "failed", "1", "1:05", "RuntimeError:"],
        ["5", "running", "2", "0.75", "1:05"],
    ]
    assert lines[-2].endswith("b, process 2")
    assert lines[-1] == "1 complete, 1 pruned, 1 failed, 1 twin, 1 infeasible; best 0.5 (trial 0)"
    for width in (50, 80, 200):
        assert max(map(len, shown(study, 10, width))) <= min(width, 80)


def test_paused_trials_have_begun_and_are_told(study: optuna.Study) -> None:
    waiting = optuna.trial.create_trial(
        state=TrialState.WAITING, system_attrs={HELD: True}, intermediate_values={0: 0.5}
    )
    study.add_trial(waiting)
    study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING))
    lines = shown(study, 10)
    assert " 3/10 " in lines[0]
    assert "1 infeasible, 1 paused; best 0.5" in " ".join(map(str.strip, lines[-2:]))


def test_workers_of_one_machine_are_told_apart_however_long_its_name_is() -> None:
    study = optuna.create_study()
    for pid in (1234567, 1234568):
        add(
            study,
            TrialState.RUNNING,
            ATTEMPTS=[{"host": "a-runner-of-the-project", "pid": pid, "started": 0.0}],
        )
    lines = shown(study, None)
    assert [line.split("  ")[-1] for line in lines[2:4]] == [
        "a-runner-of-the-p…, process 1234567",
        "a-runner-of-the-p…, process 1234568",
    ]


def test_the_rate_is_that_of_this_run(study: optuna.Study) -> None:
    n_counted = 2  # complete and pruned
    assert " 2/10 in 1:00, 1 a minute, 8:00 left" in shown(study, 10, n_before=n_counted - 1, seconds=60.0)[0]
    assert shown(study, 10, n_before=n_counted, seconds=60.0)[0].endswith(" 2/10 in 1:00")
    assert shown(study, None, n_before=0, seconds=60.0)[0] == "2 trials in 1:00, 2 a minute"
    assert "left" not in shown(study, 2, n_before=0, seconds=60.0)[0]


def test_who_trained_a_twin_all_the_same_and_what_is_known_of_a_network_is_noted() -> None:
    study = optuna.create_study()
    record.write_fact_kinds(study, {"energy": record.FactKind("energy", "energy", "mJ")})
    add(study, TrialState.COMPLETE, value=0.5, FACTS={"energy": 12.5})
    add(study, TrialState.COMPLETE, value=0.5, AUDIT_OF=0)
    lines = shown(study, None)
    assert lines[2].endswith("  energy 12.5 mJ")
    assert lines[3].endswith("  trial 0's network, trained to check")


def test_what_others_wrote_commands_no_terminal_and_is_no_markup(study: optuna.Study) -> None:
    evil = "[/red] \x1b]0;OWNED\x07\u202e[link=http://x]"
    add(study, TrialState.FAIL, REASON=because("error", evil))
    add(study, TrialState.RUNNING, ATTEMPTS=[{"host": evil, "pid": evil, "started": 0.0}])
    text = "\n".join(shown(study, None, width=200))
    assert "[/red] \\x1b]0;OWNED" in text
    assert text.replace("\n", "").isprintable()


def test_many_workers_are_counted() -> None:
    study = optuna.create_study()
    for _ in range(40):
        add(study, TrialState.RUNNING)
    lines = shown(study, None)
    assert len(lines) == 2 + 12 + 1 + 1
    assert lines[-2].split() == ["28", "more", "running"]


def test_the_earlier_of_two_equals_is_the_best(study: optuna.Study) -> None:
    found = best(study, study.trials)
    assert found is not None
    assert found.number == 0
    assert best(optuna.create_study(), []) is None
    several = optuna.create_study(directions=["maximize", "minimize"])
    several.add_trial(optuna.create_trial(values=[1.0, 2.0]))
    assert best(several, several.trials) is None
    assert best_words(several, several.trials) == "1 on the front"


def test_endings(study: optuna.Study) -> None:
    expected = ["complete", "twin", "pruned", "infeasible", "failed", "running"]
    assert [ending(trial) for trial in study.trials] == expected


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0:00"), (62.4, "1:02"), (3605, "1:00:05"), (2 * 86400 + 3600, "2 d 1:00:00"), (-1, "0:00")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
