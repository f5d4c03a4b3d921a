"""Every public name has an example in its docstring, and the examples do what they show."""

from __future__ import annotations

import doctest
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import griffe
import pytest
from fixtures.pages import ROOT, blocks
from fixtures.public import found_at, public

NAMES = sorted(public().values())
_PARSER = doctest.DocTestParser()


@cache
def _source() -> griffe.Object | griffe.Alias:
    return griffe.load("optnas", search_paths=[str(ROOT)])


def docstring(name: str) -> str:
    """Of a module, class or function its own; of another value, which has none, what stands below it."""
    value = found_at(name)
    if inspect.ismodule(value) or inspect.isclass(value) or inspect.isfunction(value):
        return inspect.getdoc(value) or ""
    written = _source()[name.removeprefix("optnas.")].docstring
    return written.value if written else ""


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What the reference says that the examples use: made once, and anew for each."""
    once, each = (block.code for block in blocks("docs/reference/index.md", "python"))
    made: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("examples"))
        exec(compile(once, "docs/reference/index.md", "exec"), made)
    return made, each


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name_runs(
    name: str, names: tuple[dict[str, Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = _PARSER.get_doctest(docstring(name), dict(names[0]), name, None, None)
    assert example.examples, f"{name} has no example (Examples: and lines that begin with >>>)"
    monkeypatch.chdir(tmp_path)
    exec(names[1], example.globs)
    told: list[str] = []
    assert doctest.DocTestRunner().run(example, out=told.append).failed == 0, "".join(told)
