"""Studies of studies, from the shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
from typer.testing import Result

URL = "sqlite:///nas.db"
Cli = Callable[..., Result]


def test_extend_says_what_goes_on_and_what_is_left_behind(toy: Path, optnas_cli: Cli) -> None:
    assert optnas_cli("run", toy).exit_code == 0
    n_trials = len(optuna.load_study(study_name="toy", storage=URL).trials)
    text = toy.read_text()
    grown = text.replace('"depth", 1, 3', '"depth", 1, 4').replace(
        "nn.Linear(width, out)",
        'nn.Linear(width, out, bias=trial.suggest_categorical("bias", [True, False]))',
    )
    assert grown != text
    toy.write_text(grown)
    refused = optnas_cli("extend", toy, "wider")
    assert refused.exit_code == 2
    assert "defaults={'bias': ...}" in refused.stderr
    assert "give a name and an answer" in optnas_cli("extend", toy, "wider", "--default", "bias").stderr
    done = optnas_cli("extend", toy, "wider", "--default", "bias=true")
    assert done.exit_code == 0, done.output
    assert f"{n_trials} of {n_trials} trials of study 'toy' go on in study 'wider'." in done.stdout
    assert "optnas run toy.py --study-name wider --trials" in done.stdout
    assert all(t.params["bias"] is True for t in optuna.load_study(study_name="wider", storage=URL).trials)
    more = optnas_cli("run", toy, "--study-name", "wider", "--trials", 6)
    assert more.exit_code == 0, more.output


def test_copy_and_clean_from_the_shell(trained: Path, optnas_cli: Cli) -> None:
    assert optnas_cli("run", trained, "--trials", 2, "--finalists", 0).exit_code == 0
    listed = optnas_cli("ls", URL).stdout
    assert "files" in listed
    assert "kB" in listed
    copied = optnas_cli("copy", "sqlite:///copy.db", "--folder", "kept")
    assert copied.exit_code == 0, copied.output
    assert "Study 'trained' is in sqlite:///copy.db, with 2 trials." in copied.stdout
    assert "there is a study of that name" in optnas_cli("copy", "sqlite:///copy.db").stderr
    optuna.delete_study(study_name="trained", storage=URL)
    best = optnas_cli("best", trained, "--storage", "sqlite:///copy.db")
    assert "as searched" in best.stdout
    assert "test_acc" in best.stdout

    folder = Path("runs/trained")
    asked = optnas_cli("clean", URL)  # nobody answers
    assert f"{folder.absolute()}: its study was deleted" in asked.stdout
    assert folder.is_dir()
    assert "Deleted 1 of 1." in optnas_cli("clean", URL, "--yes").stdout
    assert not folder.exists()
    assert "There is nothing to delete." in optnas_cli("clean", URL).stdout
    assert "There is nothing to delete." in optnas_cli("clean", "sqlite:///copy.db").stdout
    assert Path("kept").is_dir()
