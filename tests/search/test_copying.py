"""A copy is whole, and neither it nor the original needs the other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.pruners import NopPruner
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.data import TensorData
from optnas.errors import ParamsMismatchError
from optnas.estimation.folders import own_folder
from optnas.estimation.remote import shown
from optnas.objective import Objective
from optnas.search import carry
from optnas.search.best import best
from optnas.search.copying import copy_study
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.storage.base import HELD
from optnas.tasks import Classification
from optnas.training import Training
from optnas.training.checkpoints import weights_path
from optnas.trial import Trial


def mlp(trial: Trial) -> nn.Module:
    width = trial.suggest_int("width", 4, 32)
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Objective]:
    x = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    data = TensorData((x, (x[:, 0] > x[:, 1]).long()), batch_size=50)
    task = Classification(2, lr=(1e-3, 1e-1))
    training = Training(task, data, monitor="val_acc", mode="max", max_epochs=2, keep=2)
    folder, objective = tmp_path_factory.mktemp("original"), Objective(mlp, training)
    study = create_study(objective, study_name="s", storage=url(folder), pruner=NopPruner(), seed=1)
    optimize(study, objective, n_trials=4)
    best(study, objective).retrain(1)
    study.enqueue_trial({"width": 7})
    return folder, objective


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/s.db"


def load(folder: Path, name: str = "s") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=url(folder), pruner=NopPruner())


def comparable(study: optuna.Study) -> Any:
    mine = (record.IDENTITY.name, record.FOLDER.name, record.COMING.name, record.BUDGET.name)
    attrs = {k: v for k, v in study.user_attrs.items() if k not in mine}
    trials = [
        (
            t.number,
            t.state,
            t.values,
            t.params,
            t.distributions,
            t.intermediate_values,
            {k: v for k, v in t.user_attrs.items() if k != record.CARRIED.name},
            t.system_attrs,
            t.datetime_start,
            t.datetime_complete,
        )
        for t in study.trials
    ]
    return attrs, study.directions, study.metric_names, trials


def test_a_copy_needs_nothing_of_the_original_and_both_go_on(
    searched: tuple[Path, Objective], tmp_path: Path
) -> None:
    folder, objective = searched
    moved = tmp_path / "original"
    shutil.copytree(folder, moved)
    original = load(moved)
    before, x = best(original, objective), torch.rand(4, 3)
    expected = before.test(), before.model()(x), before.retrain(1)
    copied = copy_study(original, url(tmp_path), folder=tmp_path / "files")
    assert comparable(copied) == comparable(original)
    assert own_folder(copied) == tmp_path / "files"
    drawings = [p.name for p in (moved / "runs" / "s" / "artifacts").iterdir()]
    assert drawings
    assert sorted(drawings) == sorted(p.name for p in (tmp_path / "files" / "artifacts").iterdir())
    shutil.rmtree(moved)

    copied = load(tmp_path)
    after = best(copied, objective)
    assert after.test() == expected[0]
    assert torch.equal(after.model()(x), expected[1])
    assert after.retrain(1) == expected[2]
    optimize(create_study(objective, study_name="s", storage=url(tmp_path)), objective, n_trials=6)
    assert record.n_counted(load(tmp_path).trials) == 6
    assert load(tmp_path).trials[4].params["width"] == 7


def test_in_the_same_storage_under_another_name(searched: tuple[Path, Objective], tmp_path: Path) -> None:
    folder, objective = searched
    shutil.copytree(folder, tmp_path / "it")
    study = load(tmp_path / "it")
    with pytest.raises(ParamsMismatchError, match="there is a study of that name"):
        copy_study(study, url(tmp_path / "it"))
    copied = copy_study(study, url(tmp_path / "it"), study_name="t")
    assert comparable(copied) == comparable(study)
    assert own_folder(copied) != own_folder(study)
    optuna.delete_study(study_name="s", storage=url(tmp_path / "it"))
    assert best(load(tmp_path / "it", "t"), objective).test()


def test_what_has_not_finished_begins_anew_there(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="s", storage=url(tmp_path))
    running = study.ask()
    running.suggest_int("width", 4, 32)
    running.report(1.0, 0)
    record.SEED.write(running, 17)
    paused = study.ask()
    paused.report(2.0, 0)
    for trial, state in ((paused, TrialState.PRUNED),):
        study._storage.set_trial_system_attr(trial._trial_id, HELD, True)
        study.tell(trial, state=state)
    copied = copy_study(study, None)  # type: ignore[arg-type]  # in memory
    one, two = copied.trials
    assert (one.state, one.params, one.intermediate_values) == (TrialState.WAITING, {}, {})
    assert one.system_attrs["fixed_params"] == running.params
    assert record.SEED.of(one) == 17
    assert two.state == TrialState.PRUNED
    assert HELD not in two.system_attrs
    assert study.trials[0].state == TrialState.RUNNING


KILLS: list[tuple[Any, str, int]] = [
    (optuna.Study, "add_trial", 1),
    (optuna.Study, "add_trial", 3),
    (optuna.Study, "set_user_attr", 2),
    (optuna.Study, "set_user_attr", 6),
    (carry, "copy_files", 2),
    (carry, "copy_rest", 1),
    (shutil, "copytree", 1),
    (shutil, "copyfile", 3),
    (Path, "replace", 2),
]


@pytest.mark.parametrize(("where", "what", "call"), KILLS, ids=lambda value: str(value))
def test_a_copy_whose_process_is_killed_is_finished_by_the_next(
    searched: tuple[Path, Objective], tmp_path: Path, where: Any, what: str, call: int
) -> None:
    folder, objective = searched
    source = load(folder)
    pid = os.fork()
    if pid == 0:
        _die_at(where, what, call)
        copy_study(load(folder), url(tmp_path))
        os._exit(0)  # it was never called so often
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    half = load(tmp_path) if "s" in optuna.get_all_study_names(url(tmp_path)) else None
    if half is not None and half.trials:
        with pytest.raises(ParamsMismatchError, match=r"copy_study, called again"):
            best(half, objective)
    copied = copy_study(source, url(tmp_path))
    assert comparable(copied) == comparable(source)
    assert best(copied, objective).test() == best(source, objective).test()
    left = [p for p in (tmp_path / "runs").rglob("*") if p.name.endswith(".part")]
    assert left == []


def _die_at(where: Any, what: str, call: int) -> None:
    """End this process, as kill -9 would, at the n-th call of a function, before it does anything."""
    known: Callable[..., Any] = getattr(where, what)
    calls = 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os._exit(9)
        return known(*args, **kwargs)

    setattr(where, what, dying)


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_files_go_behind_a_url_and_come_back(
    scheme: str, searched: tuple[Path, Objective], tmp_path: Path
) -> None:
    folder, objective = searched
    shutil.copytree(folder, tmp_path / "original")
    original, there = load(tmp_path / "original"), f"{scheme}://{tmp_path}/far/s"
    weights = torch.load(weights_path(original, best(original, objective).trial.number))
    away = copy_study(original, url(tmp_path), study_name="away", folder=there)
    assert shown(own_folder(away)) == there
    back = copy_study(away, url(tmp_path), study_name="back", folder=tmp_path / "back")
    shutil.rmtree(tmp_path / "original")
    for study in (away, back):
        kept = torch.load(weights_path(study, best(study, objective).trial.number))
        assert all(torch.equal(kept[name], weights[name]) for name in weights)
    assert [p.name for p in (tmp_path / "back" / "artifacts").iterdir()]
