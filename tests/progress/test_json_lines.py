"""Programs are told every event, one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from torch import nn

from optnas.errors import SearchFailedError
from optnas.objective import Objective
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.storage.open import open_storage
from optnas.trial import Trial

Capture = pytest.CaptureFixture[str]


def space(trial: Trial) -> nn.Module:
    return nn.Linear(4, trial.suggest_int("width", 1, 9))


def estimate(model: nn.Module, trial: optuna.Trial) -> dict[str, float]:
    width = trial.params["width"]
    if width == 2:
        raise optuna.TrialPruned("not good")
    if width == 3:
        raise KeyboardInterrupt
    if width > 7:
        raise RuntimeError("no luck")
    return {"score": float(width), "other": float("nan")}


def searched(*widths: int, n_trials: int = 100) -> optuna.Study:
    objective = Objective(space, estimate, values={"score": "maximize"}, example=(2, 4))
    study = create_study(objective, study_name="s", seed=0)
    for width in widths:
        study.enqueue_trial({"width": width})
    optimize(study, objective, n_trials, show_progress="json")
    return study


def events(capsys: Capture) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in capsys.readouterr().out.splitlines()]


def test_every_event_is_told(capsys: Capture) -> None:
    searched(4, 2, 4, 6, n_trials=3)
    told = events(capsys)
    assert [event["event"] for event in told] == [
        "start",
        "trial",
        "best",
        "trial",
        "trial",
        "trial",
        "best",
        "end",
    ]
    assert told == sorted(told, key=lambda event: event["time"])
    start, first, best, pruned, twin, *_, end = told
    assert {key: start[key] for key in ("study", "n_trials", "n_counted")} == {
        "study": "s",
        "n_trials": 3,
        "n_counted": 0,
    }
    assert (first["number"], first["state"], first["values"], first["params"]) == (
        0,
        "complete",
        [4],
        {"width": 4},
    )
    assert first["metrics"] == {"score": 4, "other": None}
    assert first["n_params"] == first["facts"]["n_params"] == 4 * 4 + 4
    assert first["flops"] == first["facts"]["flops"]
    assert set(first["worker"]) == {"host", "pid"}
    assert (best["number"], best["value"]) == (0, 4)
    assert (pruned["state"], pruned["reason"]) == ("pruned", "not good")
    assert (twin["state"], twin["twin_of"]) == ("twin", 0)
    counts = {name: end[name] for name in ("complete", "twin", "pruned", "infeasible", "failed")}
    assert counts == {"complete": 2, "twin": 1, "pruned": 1, "infeasible": 0, "failed": 0}
    assert end["status"] == "done"
    assert end["best"] == {"number": 3, "value": 6}


def test_an_interruption_and_a_failure_are_told(capsys: Capture) -> None:
    with pytest.raises(KeyboardInterrupt):
        searched(4, 3)
    assert events(capsys)[-1]["status"] == "interrupted"
    with pytest.raises(SearchFailedError):
        searched(*[8, 9] * 5)
    *_, last, end = events(capsys)
    assert (last["state"], last["values"]) == ("failed", None)
    assert "no luck" in last["reason"]
    assert end["status"] == "failed"
    assert "no luck" in end["reason"]
    assert end["best"] is None


def test_a_storage_that_is_gone_does_not_hide_why_the_search_ends(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "nas.db"

    def interrupted(model: nn.Module, trial: optuna.Trial) -> dict[str, float]:
        file.rename(tmp_path / "away.db")
        raise KeyboardInterrupt

    objective = Objective(space, interrupted, values={"score": "maximize"}, example=(2, 4))
    study = create_study(objective, study_name="s", storage=open_storage(file, patience=0.1))
    with pytest.raises(KeyboardInterrupt):
        optimize(study, objective, 1, show_progress="json")
    end = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (end["event"], end["status"]) == ("end", "interrupted")
    assert "best" not in end


def test_limits_and_what_breaks_them_are_told(capsys: Capture) -> None:
    limits = {"flops": 40, "score": 6.0}
    objective = Objective(space, estimate, values={"score": "maximize"}, example=(2, 4), limits=limits)
    study = create_study(objective, study_name="s", seed=0)
    for width in (4, 9, 7):
        study.enqueue_trial({"width": width})
    optimize(
        study, Objective(space, estimate, values={"score": "maximize"}, example=(2, 4), limits=limits), 1
    )
    optimize(study, objective, 2, show_progress="json")
    start, *trials = [event for event in events(capsys) if event["event"] in ("start", "trial")]
    assert start["limits"] == {"flops": [None, 40], "score": [None, 6.0]}
    assert [(t["state"], t.get("violations")) for t in trials[:2]] == [
        ("infeasible", {"flops": pytest.approx(0.8)}),
        ("infeasible", {"flops": pytest.approx(0.4)}),
    ]
    assert trials[0]["reason"] == "over a limit: flops is 72, and flops <= 40"
