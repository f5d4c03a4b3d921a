"""A report from the shell: with the study file the best network is drawn, without it the rest is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
from typer.testing import Result

URL = "sqlite:///nas.db"
Cli = Callable[..., Result]


def section(file: str, name: str) -> str:
    return Path(file).read_text().split(f'<section id="{name}">')[1].split("</section>")[0]


def test_with_and_without_the_study_file(toy: Path, optnas_cli: Cli) -> None:
    assert "optnas report toy.py" in optnas_cli("run", toy).stdout
    done = optnas_cli("report", toy)
    assert done.exit_code == 0, done.output
    assert "The report is in report.html." in done.stdout
    best = optuna.load_study(study_name="toy", storage=URL).best_trial
    assert f"{best.user_attrs['n_params']} parameters</text>" in section("report.html", "best-architecture")

    done = optnas_cli("report", "--output", "other.html")
    assert done.exit_code == 0, done.output
    assert f"of trial {best.number}." in section("other.html", "summary")
    assert "<svg" not in section("other.html", "best-architecture")


def test_text_and_the_choice_among_several_studies(toy: Path, optnas_cli: Cli) -> None:
    optnas_cli("run", toy, "--trials", 1)
    optuna.create_study(study_name="another", storage=URL)
    unclear = optnas_cli("report", "--format", "md")
    assert unclear.exit_code == 2
    assert "toy" in unclear.stderr
    assert "another" in unclear.stderr
    assert "--study-name" in unclear.stderr
    done = optnas_cli("report", "--format", "md", "--study-name", "toy")
    assert done.exit_code == 0, done.output
    assert Path("report.md").read_text().startswith("# Search toy\n")
