"""Options that commands share: named alike, explained, within bounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import typer
from typer.testing import Result

from optnas import record
from optnas.cli.commands import app
from optnas.cli.options import DEFAULT_TRIALS, Format

Cli = Callable[..., Result]


def options() -> Iterator[tuple[str, Any]]:
    """Every parameter of every command, with the command's name."""
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]  # it is a group
        for option in command.params:
            yield name, option


def test_every_option_is_explained() -> None:
    for command, option in options():
        assert option.help, (command, option.name)


def test_an_option_means_the_same_in_every_command() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for command, option in options():
        # The study of these may come without a file, so its name has another default.
        if command not in ("report", "copy") and option.param_type_name == "option":
            found[option.name].add(f"{option.opts} {option.help} {option.default}")
    assert len(found) > 8
    assert all(len(meanings) == 1 for meanings in found.values()), found


@pytest.mark.parametrize(
    "arguments",
    [
        ("--trials", "0"),
        ("--workers", "0"),
        ("--workers", "2,CPU=1"),
        ("--workers", "ray:0"),
        ("--workers", "ray:2,GPU"),
        ("--workers", "ray:2,GPU=a"),
        ("--workers", "slurm:,time=1"),
        ("--workers", "moon:2"),
        ("--timeout", "-1"),
        ("--trials", "many"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], toy: Path, optnas_cli: Cli) -> None:
    result = optnas_cli("run", toy, *arguments)
    assert result.exit_code == 2
    assert f"Invalid value for '{arguments[0]}'" in result.stderr
    assert not Path("nas.db").exists()


def test_the_storage_may_come_from_the_environment(
    toy: Path, optnas_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTNAS_STORAGE", "sqlite:///there.db")
    assert optnas_cli("run", toy, "--trials", 1).exit_code == 0
    assert optuna.get_all_study_names("sqlite:///there.db") == ["toy"]
    assert not Path("nas.db").exists()
    assert " toy " in optnas_cli("ls").stdout


def test_a_port_that_cannot_be_is_refused(optnas_cli: Cli) -> None:
    result = optnas_cli("dashboard", "--port", "99999")
    assert result.exit_code == 2
    assert "Invalid value for '--port'" in result.stderr


def test_a_file_that_says_nothing_gets_the_default_number_of_trials(toy: Path, optnas_cli: Cli) -> None:
    toy.write_text(toy.read_text().replace("n_trials = 4", ""))
    assert optnas_cli("run", toy).exit_code == 0
    study = optuna.load_study(study_name="toy", storage="sqlite:///nas.db")
    assert sum(record.TWIN_OF.of(trial) is None for trial in study.trials) == DEFAULT_TRIALS


def test_a_report_is_written_in_the_format_that_was_asked_for(toy: Path, optnas_cli: Cli) -> None:
    assert optnas_cli("run", toy).exit_code == 0
    for format in Format:
        assert optnas_cli("report", "--format", format).exit_code == 0
        assert Path(f"report.{format}").stat().st_size
