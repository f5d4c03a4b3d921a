"""The note on a trial says how it ended, what it is, where it comes from and what is kept of it."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest
from optuna.trial import create_trial
from torch import nn

from optnas import record
from optnas.dashboard.notes import CURVES, Notes
from optnas.estimation.artifacts import drawing_id
from optnas.objective import Objective
from optnas.record import CHANGED, PARENT
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.trial import Trial, scope

ENQUEUED: list[dict[str, object]] = [
    {"depth": 1, "block.0.width": 4},
    {"depth": 2, "block.0.width": 4, "block.1.width": 8},
    {"depth": 1, "block.0.width": 4},
    {"depth": 1, "block.0.width": 5},
    {"depth": 1, "block.0.width": 6},
]


def space(trial: Trial) -> nn.Module:
    layers, width = [], 4
    for i in range(trial.suggest_int("depth", 1, 2)):
        out = scope(trial, "block", i).suggest_int("width", 4, 9)
        layers.append(nn.Linear(width, out))
        width = out
    return nn.Sequential(*layers, nn.Linear(width, 2))


def estimate(model: nn.Module, trial: optuna.Trial) -> dict[str, float]:
    trial.report(0.5, 0)
    if trial.number == 1:  # as a sampler that breeds would, before the trial ends
        trial.storage.set_trial_system_attr(trial._trial_id, PARENT.name, 0)
        trial.storage.set_trial_system_attr(trial._trial_id, CHANGED.name, "depth")
    if trial.number == 3:
        raise optuna.TrialPruned("too `slow`")
    if trial.number == 4:
        raise RuntimeError("no luck")
    return {"score": float(trial.params["depth"]), "loss": 0.25}


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    objective = Objective(space, estimate, values={"score": "maximize"}, example=(2, 4))
    study = create_study(objective, study_name="s", storage=f"sqlite:///{tmp_path}/nas.db", seed=0)
    study.set_user_attr(record.FOLDER.name, str(tmp_path / "files"))
    for params in ENQUEUED:
        study.enqueue_trial(params)
    optimize(study, objective, 3, show_progress=False)
    for _ in range(2):  # without sampling others in between
        study.optimize(objective, 1, catch=(RuntimeError,))
    return study


def lines(study: optuna.Study, number: int) -> dict[str, str]:
    found = {}
    for line in Notes(study).of(number).splitlines():
        name, _, words = line.removeprefix("- **").partition("**: ")
        found[name] = words
    return found


def link(study: optuna.Study, number: int) -> str:
    return f"[trial {number}](/dashboard/studies/{study._study_id}/trials?numbers={number})"


def test_outcome_and_facts(study: optuna.Study) -> None:
    best = lines(study, 1)
    assert best["Outcome"] == "complete, score 2: the best so far"
    n_params = sum(
        p.numel() for p in nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 8), nn.Linear(8, 2)).parameters()
    )
    assert best["Facts"].startswith(f"{n_params} parameters, ")
    assert best["Scores"] == "score 2, loss 0.25"
    assert lines(study, 0)["Outcome"] == f"complete, score 1 (the best has 2: {link(study, 1)})"
    pruned, failed = lines(study, 3)["Outcome"], lines(study, 4)["Outcome"]
    assert pruned.startswith("pruned, score 0.5 ")  # Optuna's value of a pruned trial: its last report
    assert pruned.endswith("because of `too 'slow'`")
    assert re.fullmatch(r"fail because of `RuntimeError at test_notes.py:\d+ in estimate: no luck`", failed)


def test_decisions_are_told_by_place(study: optuna.Study) -> None:
    note = Notes(study).of(1)
    assert "  - depth `2`\n  - **block.0**: width `4`\n  - **block.1**: width `8`\n" in note


def test_lineage_names_the_parent_and_what_changed(study: optuna.Study) -> None:
    words = lines(study, 1)["Lineage"]
    assert words.startswith(f"from {link(study, 0)} (1) by ")
    assert "`depth` `1` → `2`" in words
    assert "`block.1.width` not asked → `8`" in words
    assert "Lineage" not in lines(study, 0)


def test_twins_name_each_other(study: optuna.Study) -> None:
    assert link(study, 0) in lines(study, 2)["Twins"]
    assert lines(study, 0)["Twins"].startswith(link(study, 2))
    assert "Twins" not in lines(study, 1)


def test_weights_are_kept_or_deleted(study: optuna.Study, tmp_path: Path) -> None:
    file = tmp_path / "files" / "trial-0001" / "attempt-0" / "weights.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    study.set_user_attr(record.DELETED.name, [1])
    assert lines(study, 1)["Weights"] == f"kept in `{file}`"  # whatever a list says
    assert lines(study, 0)["Weights"].startswith("none on this machine: ")
    file.unlink()
    study.set_user_attr(record.DELETED.name, [0, 1])
    assert lines(study, 0)["Weights"] == "deleted, as others are better"
    assert lines(study, 1)["Weights"].startswith("none on this machine: ")  # none is better
    assert "Weights" not in lines(study, 3)


def test_curve_and_drawing_are_shown(study: optuna.Study) -> None:
    note = Notes(study).of(1)
    assert f"]({CURVES}/{study._study_id}/1.svg)" in note
    trial = study.trials[1]
    assert f"](/artifacts/{study._study_id}/{trial._trial_id}/{drawing_id(trial)})" in note


def test_running_trials_have_notes_too(study: optuna.Study) -> None:
    trial = study.ask()
    trial.suggest_int("depth", 1, 2)
    assert lines(study, trial.number)["Outcome"] == "running"
    with pytest.raises(KeyError):
        Notes(study).of(99)


def test_attributes_of_other_kinds_and_names_with_markup() -> None:
    study = optuna.create_study(study_name="own")
    own: dict[str, object] = {
        record.METRICS.name: {"a_b": 0.5, "c": None},
        record.ATTEMPTS.name: [{"started": 1.0}],
        record.FACTS.name: {"n_params": "many", "flops": None},
        record.MISSING.name: ["a"],
        record.REASON.name: 3,
        record.TWIN_OF.name: "no",
        record.DURATION.name: "long",
    }
    x = optuna.distributions.IntDistribution(0, 9)
    params = {"<b>.x_y": 3}
    study.add_trial(create_trial(value=1.0, user_attrs=own, params=params, distributions={"<b>.x_y": x}))
    study.set_user_attr(record.FOLDER.name, 3)
    study.set_user_attr(record.DELETED.name, "all")
    assert Notes(study).of(0).splitlines() == [
        "- **Outcome**: complete, value 1: the best so far",
        "- **Scores**: a\\_b 0.5",
        "- **Decisions**",
        "  - **\\<b>**: x\\_y `3`",
    ]


def test_none_is_an_answer_in_a_lineage() -> None:
    study = optuna.create_study()
    x = {"x": optuna.distributions.CategoricalDistribution((None, 1))}
    study.add_trial(create_trial(value=1.0, params={"x": 1}, distributions=x))
    study.add_trial(
        create_trial(value=2.0, params={"x": None}, distributions=x, system_attrs={PARENT.name: 0})
    )
    assert lines(study, 1)["Lineage"].endswith("by `x` `1` → `None`")


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_of_several_objectives_all_are_named_and_the_front_is_said() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.set_metric_names(["val_acc", "flops"])
    study.add_trial(create_trial(values=(0.5, 10.0)))
    study.add_trial(create_trial(values=(0.4, 20.0), system_attrs={PARENT.name: 0}))
    of_front, other = (Notes(study).of(number) for number in (0, 1))
    assert "complete, val\\_acc 0.5, flops 10: on the front" in of_front
    assert "complete, val\\_acc 0.4, flops 20\n" in other
    assert "(0.5; 10)" in other  # its parent
