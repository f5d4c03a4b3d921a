"""What nobody needs goes; nothing else does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from optnas import record
from optnas.estimation import remote
from optnas.estimation.folders import MARKER, claim, own_folder, settle
from optnas.search.leftovers import delete, leftovers
from optnas.storage.base import HELD
from optnas.training.checkpoints import weights_path


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/s.db"


def with_files(url: str, name: str, place: str | None = None) -> tuple[optuna.Study, dict[str, Path]]:
    """A study with four trials, each with weights and the state of a training."""
    study, paths = optuna.create_study(study_name=name, storage=url), {}
    for kind in ("complete", "running", "paused", "pruned"):
        trial = study.ask()
        attempt = claim(settle(study, place), trial) / "attempt-0"
        attempt.mkdir(parents=True)
        for file, n_bytes in (("epoch-00001.ckpt", 1000), ("weights.pt", 10)):
            (attempt / file).write_bytes(bytes(n_bytes))
            remote.upload(attempt / file)
        paths[kind] = attempt
        if kind == "paused":
            study._storage.set_trial_system_attr(trial._trial_id, HELD, True)
        if kind == "complete":
            study.tell(trial, 1.0)
        elif kind != "running":
            trial.report(1.0, 0)
            study.tell(trial, state=TrialState.PRUNED)
    return study, paths


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_states_of_trials_that_have_ended_go_and_weights_stay(url: str) -> None:
    study, paths = with_files(url, "s")
    known = leftovers(url)
    assert known.n_bytes == 2000
    assert {leftover.why for leftover in known.found} == {
        "trial 0 of study 's' has ended",
        "trial 3 of study 's' has ended",
    }
    assert len(delete(url, known.found)) == 2
    for kind in ("complete", "pruned"):
        assert names(paths[kind]) == ["weights.pt"]
    for kind in ("running", "paused"):
        assert names(paths[kind]) == ["epoch-00001.ckpt", "weights.pt"]
    assert weights_path(study, 0) is not None
    assert leftovers(url).found == []


def test_folders_of_deleted_studies_go_and_those_of_others_stay(url: str, tmp_path: Path) -> None:
    study, _ = with_files(url, "gone")
    folder = own_folder(study)
    with_files(url, "kept")
    with_files(f"sqlite:///{tmp_path}/other.db", "other")  # of another database, in the same place
    with_files(f"sqlite:///{tmp_path}/lost.db", "lost")
    memory = optuna.create_study(study_name="memory")
    settle(memory)
    (tmp_path / "runs" / "mine").mkdir()  # nobody's that we know
    (tmp_path / "lost.db").rename(tmp_path / "elsewhere.db")
    optuna.delete_study(study_name="gone", storage=url)
    optuna.delete_study(study_name="other", storage=f"sqlite:///{tmp_path}/other.db")

    known = leftovers(url)
    gone = [leftover for leftover in known.found if not leftover.of_trial]
    assert [(leftover.path, leftover.why) for leftover in gone] == [(folder, "its study was deleted")]
    assert gone[0].n_bytes > 4000
    assert known.spared == {
        tmp_path / "runs" / "lost": "this machine cannot tell whether its study was deleted"
    }
    delete(url, known.found)
    assert names(tmp_path / "runs") == ["kept", "lost", "memory", "mine", "other"]
    assert memory.study_name == "memory"  # which lives until here


def test_a_study_that_comes_back_before_the_deletion_keeps_its_folder(url: str) -> None:
    study, _ = with_files(url, "s")
    identity, folder = record.IDENTITY.of(study), own_folder(study)
    assert identity is not None
    assert folder is not None
    optuna.delete_study(study_name="s", storage=url)
    known = leftovers(url)
    again = optuna.create_study(study_name="s", storage=url)
    record.IDENTITY.write(again, identity)  # as where a database is put back
    assert delete(url, known.found) == []
    assert folder.is_dir()


def test_links_and_folders_of_other_users_are_left_alone(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = with_files(url, "s")
    folder = own_folder(study)
    assert folder is not None
    optuna.delete_study(study_name="s", storage=url)
    real = tmp_path / "real"
    folder.rename(real)
    folder.symlink_to(real)
    assert leftovers(url).found == []
    folder.unlink()
    real.rename(folder)
    import os

    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    known = leftovers(url)
    assert known.found == []
    assert known.spared == {folder: "its study was deleted, but it belongs to another user"}


def test_a_copied_database_says_nothing_of_the_folders_of_the_original(url: str, tmp_path: Path) -> None:
    with_files(url, "s")
    shutil.copy(tmp_path / "s.db", tmp_path / "copy.db")
    optuna.delete_study(study_name="s", storage=f"sqlite:///{tmp_path}/copy.db")
    assert leftovers(f"sqlite:///{tmp_path}/copy.db").found == []


def test_a_marker_that_cannot_be_read_is_somebody_elses(url: str, tmp_path: Path) -> None:
    optuna.create_study(study_name="s", storage=url)
    for name, text in (("a", "{"), ("b", json.dumps(["study"])), ("c", json.dumps({"study": "x"}))):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / MARKER).write_text(text)
    assert leftovers(url).found == []


def test_what_nobody_needs_behind_a_url_goes_too(url: str, tmp_path: Path) -> None:
    place = f"memory://{tmp_path}/far"
    study, paths = with_files(url, "s", f"{place}/s")
    with_files(url, "gone", f"{place}/gone")
    with_files(f"sqlite:///{tmp_path}/other.db", "other", f"{place}/other")
    optuna.delete_study(study_name="gone", storage=url)
    known = leftovers(url)
    assert sorted((remote.shown(one.path), one.why) for one in known.found if not one.of_trial) == [
        (f"{place}/gone", "its study was deleted")
    ]
    assert known.n_bytes > 2000 + 4 * 1010
    delete(url, known.found)
    assert leftovers(url).found == []
    assert remote.names(paths["complete"], "*") == ["weights.pt"]
    assert sorted(remote.names(paths["running"], "*")) == ["epoch-00001.ckpt", "weights.pt"]
    assert weights_path(study, 0) is not None
    other = f"sqlite:///{tmp_path}/other.db"
    optuna.delete_study(study_name="other", storage=other)
    [last] = leftovers(other, [place]).found
    assert remote.shown(last.path) == f"{place}/other"
