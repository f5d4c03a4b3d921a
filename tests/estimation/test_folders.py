import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest

from optnas import record
from optnas.errors import CheckpointError
from optnas.estimation.folders import claim, own_folder, settle, study_folder, trial_folder
from optnas.estimation.run import Run
from optnas.storage.open import open_storage


def begin(file, name="s"):
    storage = open_storage(f"sqlite:///{file}")
    return optuna.create_study(study_name=name, storage=storage, load_if_exists=True)


def test_a_study_has_its_folder_beside_its_database_wherever_one_works(tmp_path, monkeypatch):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        assert settle(begin(tmp_path / "nas.db")) == tmp_path / "runs" / "s"
    study = optuna.create_study(study_name="s")
    assert settle(study) == tmp_path / "b" / "runs" / "s"
    monkeypatch.chdir(tmp_path)
    assert settle(study) == study_folder(study) == tmp_path / "b" / "runs" / "s"


@pytest.mark.parametrize("given", [None, Path("here")])
def test_studies_of_one_name_have_folders_of_their_own(tmp_path, given):
    studies = [begin(tmp_path / f"{i}.db") for i in range(3)]
    wanted = tmp_path / (given or "runs/s")
    for _ in range(2):
        found = [settle(study, given, tmp_path) for study in studies]
        assert found == [wanted, wanted.with_name(f"{wanted.name}-2"), wanted.with_name(f"{wanted.name}-3")]


def test_a_copy_settles_anew_and_says_so_once(tmp_path, caplog):
    study = begin(tmp_path / "nas.db")
    folder = settle(study)
    study._storage.close()
    shutil.copy(tmp_path / "nas.db", tmp_path / "copy.db")
    optuna.copy_study(
        from_study_name="s",
        from_storage=f"sqlite:///{tmp_path}/nas.db",
        to_storage=f"sqlite:///{tmp_path}/nas.db",
        to_study_name="t",
    )
    caplog.set_level(logging.WARNING)
    for file, name, number in (("copy.db", "s", 2), ("nas.db", "t", 0)):
        copy = begin(tmp_path / file, name)
        assert own_folder(copy) is None
        caplog.clear()
        settled = settle(copy)
        assert settled == (tmp_path / "runs" / (f"s-{number}" if number else "t"))
        assert settle(copy) == own_folder(copy) == settled
        assert caplog.text.count("was copied") == 1
    assert settle(begin(tmp_path / "nas.db")) == folder


def test_a_database_moved_with_its_folder_or_renamed_keeps_it(tmp_path):
    (tmp_path / "a").mkdir()
    study = begin(tmp_path / "a" / "nas.db")
    settle(study)
    study._storage.close()
    shutil.move(tmp_path / "a", tmp_path / "b")
    study = begin(tmp_path / "b" / "nas.db")
    assert own_folder(study) == settle(study) == tmp_path / "b" / "runs" / "s"
    study._storage.close()
    shutil.move(tmp_path / "b" / "nas.db", tmp_path / "b" / "other.db")
    study = begin(tmp_path / "b" / "other.db")
    assert own_folder(study) == settle(study) == tmp_path / "b" / "runs" / "s"


def test_a_project_that_is_copied_whole_finds_its_own_files(tmp_path):
    (tmp_path / "a").mkdir()
    study = begin(tmp_path / "a" / "nas.db")
    settle(study)
    study._storage.close()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for place in "ab":
        assert settle(begin(tmp_path / place / "nas.db")) == tmp_path / place / "runs" / "s"


def test_a_folder_that_is_gone_is_made_anew_and_said(tmp_path, caplog):
    study = begin(tmp_path / "nas.db")
    shutil.rmtree(settle(study))
    assert settle(study).is_dir()
    assert "was not found on this machine" in caplog.text


def test_a_user_may_choose_another_folder(tmp_path):
    study = begin(tmp_path / "nas.db")
    settle(study)
    assert settle(study, tmp_path / "there") == study_folder(study) == tmp_path / "there"
    assert settle(study, tmp_path / "there") == tmp_path / "there"


def test_a_folder_in_which_trials_are_is_another_studys(tmp_path):
    (tmp_path / "runs" / "trial-0000").mkdir(parents=True)
    assert settle(optuna.create_study(), tmp_path / "runs") == tmp_path / "runs-2"


@pytest.mark.parametrize(
    "name", ["..", ".", "../../x", "/etc/x", "a\nb", "n" * 300, "é" * 200, "<b>", "", "  ", "a\0b", "~"]
)
def test_no_name_of_a_study_leads_elsewhere(tmp_path, name):
    study = optuna.create_study(study_name=name)
    folder = settle(study, base=tmp_path)
    assert folder.parent == tmp_path / "runs"
    assert len(os.listdir(tmp_path / "runs")) == 1
    assert folder.resolve() == folder


def test_a_study_in_memory_run_again_takes_the_folder_of_the_one_that_is_gone(tmp_path):
    code = (
        "import optuna; from pathlib import Path; from optnas.estimation.folders import settle;"
        f"folder = settle(optuna.create_study(study_name='s'), base=Path({str(tmp_path)!r}));"
        "(folder / 'trial-0000').mkdir()"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], check=True)
    study = optuna.create_study(study_name="s")
    assert settle(study, base=tmp_path) == tmp_path / "runs" / "s"
    assert not (tmp_path / "runs" / "s" / "trial-0000").exists()
    beside = optuna.create_study(study_name="s")
    assert settle(beside, base=tmp_path) == tmp_path / "runs" / "s-2"
    del study
    assert settle(optuna.create_study(study_name="s"), base=tmp_path) == tmp_path / "runs" / "s"


def test_trials_that_got_one_number_have_folders_of_their_own(tmp_path):
    study = begin(tmp_path / "nas.db")
    trials = [study.ask() for _ in range(2)]
    first = claim(settle(study), trials[1])
    study._storage.close()
    with sqlite3.connect(tmp_path / "nas.db") as connection:
        connection.execute("UPDATE trials SET number = 1 WHERE number = 0")
    study = begin(tmp_path / "nas.db")
    other, same = sorted(study.get_trials(deepcopy=False), key=lambda trial: trial._trial_id)
    assert claim(settle(study), same) == first
    assert claim(settle(study), other) != first


def test_workers_that_begin_a_study_at_one_moment_share_a_folder(tmp_path):
    begin(tmp_path / "nas.db")
    with ThreadPoolExecutor(8) as pool:
        studies = [begin(tmp_path / "nas.db") for _ in range(8)]
        assert set(pool.map(settle, studies)) == {tmp_path / "runs" / "s"}
    assert os.listdir(tmp_path / "runs") == ["s"]


def test_a_run_has_the_folder_of_its_trial(tmp_path):
    study = begin(tmp_path / "nas.db")
    run = Run.of(study.ask())
    assert run.folder == trial_folder(study, 0) == tmp_path / "runs" / "s" / "trial-0000"
    assert run.folder.is_dir()
    assert Run.of(optuna.trial.FixedTrial({})).folder is None


def test_what_cannot_be_written_is_said_with_the_way_out(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"Cannot write .*file.*Training\(folder="):
        settle(optuna.create_study(), tmp_path / "file")
    assert record.FOLDER.of(optuna.create_study()) is None
