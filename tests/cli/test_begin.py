"""The first hour: a file is written, checked and searched as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from optnas import record
from optnas.cli.job import load_job
from optnas.cli.options import Template
from optnas.search.optimize import optimize
from optnas.training.training import Training

Cli = Callable[..., Result]


@pytest.mark.parametrize("kind", Template)
def test_a_new_file_passes_its_check_and_searches(kind: Template, toy: Path, optnas_cli: Cli) -> None:
    file = Path("mine.py")
    written = optnas_cli("new", kind, file)
    assert written.exit_code == 0, written.output
    assert "optnas run mine.py" in written.stdout
    text = file.read_text()
    assert "optnas check mine.py" in text
    assert "NAME" not in text
    assert re.findall(r"# (\d): ", text) == ["1", "2", "3"]

    checked = optnas_cli("check", file)
    assert checked.exit_code == 0, checked.output
    assert not re.search("^(careful|WRONG)", checked.stdout, re.MULTILINE), checked.stdout

    job = load_job(file, None, None)
    assert isinstance(job.objective.estimator, Training)
    job.objective.estimator.max_epochs = 1
    study = job.create_study()
    optimize(study, job.objective, 2)
    assert sum(map(record.counts, study.trials)) == 2
    assert study.best_trial is not None


def test_a_new_file_for_tables_takes_categories_and_numbers_to_predict(toy: Path, optnas_cli: Cli) -> None:
    optnas_cli("new", "table", "mine.py")
    lines = [
        "color,size,price",
        *(f"{'red' if i % 3 else 'blue'},{i % 7},{i / 3 + i % 7}" for i in range(90)),
    ]
    Path("houses.csv").write_text("\n".join(lines))
    text = Path("mine.py").read_text()
    for line, mine in (
        ("table = columns", 'table = "houses.csv"'),
        ('TARGET = "vineyard"', 'TARGET = "price"'),
    ):
        assert line in text
        text = text.replace(line, mine)
    Path("mine.py").write_text(text)
    checked = optnas_cli("check", "mine.py")
    assert checked.exit_code == 0, checked.output


def test_new_files_keep_the_rules_of_ruff(toy: Path, optnas_cli: Cli) -> None:
    toy.unlink()
    for kind in Template:
        optnas_cli("new", kind, f"a_longer_name_{kind}.py")
    for command in (["check", "--select=E,F,B,UP,SIM,RET"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length=110", "."]
        done = subprocess.run(ruff, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("path", "words"),
    [("toy.py", "exists; choose"), ("x.txt", "must end in .py"), ("no/x.py", "No such file")],
)
def test_a_file_is_never_overwritten(path: str, words: str, toy: Path, optnas_cli: Cli) -> None:
    before = toy.read_text()
    result = optnas_cli("new", "table", path)
    assert result.exit_code == 2
    assert words in result.stderr
    assert toy.read_text() == before
