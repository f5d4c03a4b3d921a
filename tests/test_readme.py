"""Everything that the README shows is run as it stands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from fixtures import pages

from optnas.cli.commands import app

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "studies/README.md", "studies/JOURNAL.md")
PAGES = (*PAGES, "studies/benchmarks/README.md", "studies/cluster/README.md")


def blocks(page: str, *languages: str) -> list[str]:
    return [block.code for block in pages.blocks(page) if block.language in languages]


def shell_lines() -> list[tuple[str, str]]:
    """Every line that a page tells people to type, comments removed."""
    lines = []
    for page in PAGES:
        if not (ROOT / page).exists():
            continue
        for block in blocks(page, "", "sh", "bash", "shell", "console"):
            lines += [(page, line.removeprefix("$ ")) for line in block.splitlines() if line.strip()]
        indented = re.findall(r"^    (?=make |optnas )(.*)$", (ROOT / page).read_text(), re.MULTILINE)
        lines += [(page, line) for line in indented]
    return lines


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_the_python_blocks_run_one_after_the_other_and_the_first_is_a_study_file(tmp_path: Path) -> None:
    first, *others = blocks("README.md", "python")
    run(tmp_path, "-c", "\n".join([first, *others]))
    (tmp_path / "nas.py").write_text(first)
    shown = run(tmp_path, "-c", "import optnas.cli; optnas.cli.main()", "best", "nas.py")
    assert "50 trials: " in shown
    assert "test_acc" in shown


def test_a_users_own_search_takes_at_most_25_lines() -> None:
    first = blocks("README.md", "python")[0]
    assert "optimize(" in first
    assert len([line for line in first.splitlines() if line.strip()]) <= 25


@pytest.mark.parametrize(("page", "line"), shell_lines())
def test_what_people_are_told_to_type_exists(page: str, line: str) -> None:
    """Make's targets are there; the options of `optnas` are parsed, without running the command."""
    words = shlex.split(line, comments=True)
    program = Path(words[0]).name
    if program == "make":
        done = subprocess.run(
            ["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    elif program == "optnas":
        commands = typer.main.get_command(app).commands
        assert words[1] in commands
        commands[words[1]].make_context(words[1], words[2:])
    else:
        assert program in {"python", "pytest", "pip", "git", "cd"}, f"{page}: no test knows {line!r}"


@pytest.mark.parametrize("page", [page for page in PAGES if (ROOT / page).exists()])
def test_links_to_files_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / page).read_text())
    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []
