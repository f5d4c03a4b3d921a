"""The site: what its pages tell people to run is run, and its reference names what is public."""

from __future__ import annotations

import importlib
import inspect
import linecache
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import typer
from fixtures.pages import ROOT, Block, blocks, commands, shortened
from fixtures.public import WHOLE, found_at, public
from typer.testing import CliRunner

from optnas.cli.commands import app

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))

# Not run: what installs, what serves until it is stopped, what another machine runs.
_ELSEWHERE = {"pip", "make", "git", "ssh", "sbatch", "kubectl", "docker", "export"}
_SERVES = {"dashboard", "worker"}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of its own; what was imported from there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    verbosity = optuna.logging.get_verbosity()
    yield tmp_path
    optuna.logging.set_verbosity(verbosity)
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def run_python(block: Block, names: dict[str, object]) -> None:
    """Run a block as if it were cells of one session; errors and sources name the page and the line."""
    code = shortened(block.code)
    if block.title:
        Path(block.title).write_text(code)
    place = f"{ROOT}/{block.page}:{block.line}"
    linecache.cache[place] = (len(code), None, code.splitlines(keepends=True), place)
    exec(compile(code, place, "exec"), names)


def run_command(line: str) -> None:
    program, *words = shlex.split(line)
    if program == "python":
        runpy.run_path(words[0], run_name="__main__")
    elif program == "optnas" and words[0] in _SERVES:
        typer.main.get_command(app).commands[words[0]].make_context(words[0], words[1:])
    elif program == "optnas":
        done = CliRunner().invoke(app, shlex.split(shortened(" ".join(words))), catch_exceptions=False)
        assert done.exit_code == 0, done.output
    else:
        assert program in _ELSEWHERE, f"no test knows {line!r}"


# What other libraries warn of when they are imported or trained is theirs to mend.
_OTHERS = {f"docs/guides/{name}.md" for name in ("hugging-face", "monai", "pytorch-geometric")}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python", "sh")])
def test_what_a_page_says_is_run(page: str, elsewhere: Path) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of what a page says to take
    if page in _OTHERS:
        warnings.simplefilter("ignore")  # pytest keeps either to this test
    for block in blocks(page):
        if block.language == "python":
            run_python(block, names)
        elif block.language == "sh":
            for line in commands(block):
                run_command(line)
        else:
            assert block.language in {"text", "json", "mermaid"}, f"{page}:{block.line}: which language?"


def listed() -> list[str]:
    """What the reference shows, in full; a whole room by each of its names."""
    pages = [path.read_text() for path in sorted((ROOT / "docs" / "reference").glob("*.md"))]
    names = [name for page in pages for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)]
    for room in set(WHOLE) & set(names):
        names.remove(room)
        own = vars(importlib.import_module(room)).items()
        names += [f"{room}.{name}" for name, value in own if getattr(value, "__module__", "") == room]
    return names


def test_the_reference_lists_every_public_name_once_and_nothing_else() -> None:
    names = public()
    shown = [
        name
        for name in listed()
        if id(found_at(name)) in names or not name.startswith(tuple(f"{room}." for room in WHOLE))
    ]
    identities = [id(found_at(name)) for name in shown]
    assert sorted(name for identity, name in names.items() if identity not in identities) == []
    assert sorted(name for name in shown if id(found_at(name)) not in names) == []
    assert sorted({name for name in shown if identities.count(id(found_at(name))) > 1}) == []


def test_every_public_name_says_what_it_is() -> None:
    objects = {name: found_at(name) for name in public().values()}
    callable_ = {
        name: value for name, value in objects.items() if inspect.isclass(value) or inspect.isfunction(value)
    }
    assert [name for name, value in callable_.items() if not inspect.getdoc(value)] == []
