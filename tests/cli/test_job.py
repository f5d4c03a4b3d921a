"""What a study file says, what the command line says, and who wins."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import cloudpickle
import optuna
import pytest
import typer

from optnas.cli.job import load_job, load_only_study, open_existing, open_storage


def test_a_file_without_options_is_named_after_itself(toy: Path) -> None:
    job = load_job(toy, None, None)
    assert (job.study_name, job.storage, job.n_trials) == ("toy", "sqlite:///nas.db", 4)
    assert (job.sampler, job.pruner, job.baseline, job.n_retrain) == (None, None, None, 0)
    assert job.command("best", "--retrain", "5") == "optnas best toy.py --retrain 5"


def test_everything_optional_is_taken_from_the_file(toy: Path) -> None:
    toy.write_text(
        toy.read_text()
        + "import optuna\nstudy_name, storage = 'named', 'sqlite:///named.db'\n"
        + "sampler, pruner = optuna.samplers.RandomSampler, optuna.pruners.NopPruner()\nbaseline = space\n"
    )
    job = load_job(toy, None, None)
    assert (job.study_name, job.storage) == ("named", "sqlite:///named.db")
    assert job.sampler is optuna.samplers.RandomSampler
    assert isinstance(job.pruner, optuna.pruners.NopPruner)
    assert job.baseline is job.objective.space
    assert load_job(toy, "sqlite:///x.db", "y").command("ls") == (
        "optnas ls toy.py --storage sqlite:///x.db --study-name y"
    )


def test_a_study_file_imports_its_neighbors_and_can_be_inspected(toy: Path) -> None:
    Path("neighbor.py").write_text(toy.read_text())
    toy.write_text("from neighbor import objective\ndef local(): pass\n")
    job = load_job(toy, None, None)
    assert job.objective is sys.modules["neighbor"].objective
    assert sys.modules["toy"].local.__module__ == "toy"


@pytest.mark.parametrize("name", ["study.v2.py", "a.b.c.py"])
def test_a_file_with_a_dot_in_its_name_is_a_study_file_for_workers_too(name: str, toy: Path) -> None:
    toy.rename(name)
    job = load_job(Path(name), None, None)
    assert job.study_name == name.removesuffix(".py")
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).__name__)"
    sent = cloudpickle.dumps(job.objective.space)
    done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True)
    assert done.stdout == b"space\n"


@pytest.mark.parametrize("url", ["sqlite:///none.db", "none.db", "sqlite:///no/folder/none.db", "~/none.db"])
def test_looking_at_a_storage_never_makes_one(
    url: str, toy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    with pytest.raises(typer.Exit):
        open_existing(url)
    assert "none.db' does not exist" in capsys.readouterr().err
    assert not Path("none.db").exists()


@pytest.mark.parametrize("url", ["sqlite:///nas.db", "nas.db", "~/nas.db"])
def test_a_storage_is_looked_at_where_a_search_made_it(
    url: str, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    optuna.create_study(study_name="there", storage=open_storage(url))
    assert optuna.get_all_study_names(open_existing(url)) == ["there"]


def test_to_look_at_a_database_of_plain_optuna_changes_nothing_in_it(toy: Path) -> None:
    optuna.create_study(study_name="there", storage="sqlite:///plain.db")
    before = {path.name: path.read_bytes() for path in Path.cwd().iterdir() if path.is_file()}
    assert optuna.get_all_study_names(open_existing("sqlite:///plain.db", read_only=True)) == ["there"]
    assert load_only_study("sqlite:///plain.db", None, read_only=True).trials == []
    assert {path.name: path.read_bytes() for path in Path.cwd().iterdir() if path.is_file()} == before


def test_an_unreadable_url_gets_a_message_without_its_password(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        open_existing("postgresql://me:tUlip@host:no-port/nas")
    told = capsys.readouterr().err
    assert "storage is not a URL that can be read" in told
    assert "tUlip" not in told


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("postgresql://me:p@ss:/w@host:5432/nas", "postgresql://***@host:5432/nas"),
        ("nas.db", "nas.db"),
    ],
)
def test_no_password_is_in_what_to_type_next(url: str, printed: str, toy: Path) -> None:
    assert (
        load_job(toy, url, None).command("resume") == f"optnas resume toy.py --storage {shlex.quote(printed)}"
    )
