"""What is published is whole, says what it is, and runs the README's example without the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import built as building  # tests/built.py
import pytest
from typer.testing import Result

PROJECT = tomllib.loads((building.ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the sdist, by how their names end."""
    return {path.suffix: path for path in building.build(tmp_path_factory.mktemp("dist"))}


def test_the_wheel_holds_all_of_the_package_and_nothing_else(built: dict[str, Path]) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "optnas"], cwd=building.ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(built[".whl"]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {name for name in tracked.stdout.splitlines() if (building.ROOT / name).exists()}
    assert {"optnas/py.typed", "optnas/cli/templates/images.py"} <= names


def test_its_metadata_are_those_of_the_project(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[".whl"]) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        told = Parser().parsestr(archive.read(name).decode())
    assert told["Version"] == PROJECT["version"]
    assert set(told.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])
    named = [line.rpartition(" ")[2] for line in told.get_all("Classifier", []) if "Python :: 3." in line]
    assert named == ["3.11", "3.12", "3.13", "3.14"]


def test_the_sdist_holds_what_the_wheel_is_built_from(built: dict[str, Path]) -> None:
    with tarfile.open(built[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "optnas/__init__.py"} <= names
    assert not any(name.startswith("tests/") for name in names)


def test_the_example_of_the_readme_runs_from_the_wheel(built: dict[str, Path], tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(tmp_path), str(built[".whl"])], check=True)
    said = building.try_installed({**os.environ, "PYTHONPATH": str(tmp_path)})
    assert said.startswith(str(tmp_path / "optnas"))
    assert f"optnas {PROJECT['version']}" in said
    assert re.search(r"^ nas +[12] ", said, re.MULTILINE), "COMPLETE, or one of the two PRUNED"


def test_the_version_is_said_in_one_place(optnas_cli: Callable[..., Result]) -> None:
    cited = re.search(r"^version: (.*)$", (building.ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == PROJECT["version"]
    elsewhere = [
        p for p in building.ROOT.glob("optnas/**/*.py") if f'"{PROJECT["version"]}"' in p.read_text()
    ]
    assert elsewhere == []
    assert optnas_cli("--version").stdout == f"optnas {PROJECT['version']}\n"


def test_a_tag_is_tried_with_every_python_that_is_promised() -> None:
    workflow = (building.ROOT / ".github" / "workflows" / "release.yml").read_text()
    promised = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert str(promised).replace("'", '"') in workflow
