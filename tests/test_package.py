"""The package as a house: which room may open which door, and what its public names are."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import optnas

PACKAGE = Path(optnas.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
HEAVY = {"torch", "pytorch_lightning", "optuna"}

_LOW = {"trial", "facts", "space", "surrogate", "failures", "reproducibility"}
_MIDDLE = {"strategy", "estimation", "objective", "analysis"}
# room -> the rooms it may import; DESIGN: doors open one way.
DOORS = {
    "trial": set(),
    "facts": {"trial"},
    "space": {"trial"},
    "failures": set(),
    "reproducibility": set(),
    "gaussian_process": set(),
    "surrogate": {"trial", "gaussian_process"},
    "tasks": {"trial"},
    "data": {"trial"},
    "strategy": _LOW,
    "estimation": _LOW | {"tasks", "data"},
    "objective": _LOW,
    "analysis": _LOW | {"objective"},
    "export": {"facts"},
    "search": _LOW | {"objective", "strategy", "estimation", "export"},
    "cli": _LOW | _MIDDLE | {"search", "export"},
    "testing": _LOW | _MIDDLE | {"search", "tasks", "data", "export"},
}
LIGHTNING = {"estimation", "tasks", "data", "search"}
OPTUNA_DISTRIBUTIONS_ONLY = {"trial", "space"}
NO_OPTUNA = {"facts", "tasks", "data", "export"}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Every module a file imports, anywhere in it: `optnas.trial` for `from optnas.trial import scope`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; say where it comes from"
            assert node.module is not None
            if node.module == "optnas":
                yield from (f"optnas.{alias.name}" for alias in node.names)
            else:
                yield node.module


def violations(path: Path, modules: Iterator[str]) -> list[str]:
    here = room(path)
    found = []
    for module in modules:
        top, *rest = module.split(".")
        there = rest[0] if rest else ""
        if (
            (top == "optnas" and there != here and there not in DOORS[here])
            or top == "lightning"  # the other package of the same framework: never beside pytorch_lightning
            or (top == "pytorch_lightning" and here not in LIGHTNING)
            or (top == "optuna" and here in NO_OPTUNA)
            or (top == "optuna" and here in OPTUNA_DISTRIBUTIONS_ONLY and there != "distributions")
        ):
            found.append(f"{here} imports {module}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_doors_open_one_way(path: Path) -> None:
    assert room(path) in DOORS, f"{room(path)} is a new room: say in DOORS what it may import"
    assert violations(path, imported(path)) == []


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("strategy/evolution.py", "optnas.estimation.training"),
        ("estimation/training.py", "optnas.strategy"),
        ("space/nodes.py", "optnas.facts"),
        ("space/nodes.py", "optuna"),
        ("facts/cost.py", "optuna.trial"),
        ("objective.py", "pytorch_lightning"),
        ("search/optimize.py", "lightning.pytorch"),
        ("search/optimize.py", "optnas.cli"),
        ("trial.py", "optnas"),
    ],
)
def test_a_back_door_is_found(file: str, module: str) -> None:
    assert violations(PACKAGE / file, iter([module])) != []


def test_every_public_name_resolves_and_is_listed_once() -> None:
    assert len(set(optnas.__all__)) == len(optnas.__all__)
    assert dir(optnas) == optnas.__all__
    for name in optnas.__all__:
        assert getattr(optnas, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'mutator'"):
        optnas.mutator  # noqa: B018  (the access is the test)


def test_type_checkers_see_the_names_that_are_loaded() -> None:
    """The imports under TYPE_CHECKING say the same as the lazy table."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        seen |= {alias.asname: (node.module, alias.name) for alias in node.names}
    modules = {name: tuple(home.rsplit(".", 1)) for name, home in optnas._SUBMODULES.items()}
    assert seen == {name: (home, name) for name, home in optnas._HOMES.items()} | modules


def test_public_names_are_public_in_their_own_rooms_too() -> None:
    for name, home in optnas._HOMES.items():
        top, place, *inside = home.split(".")
        exported = getattr(importlib.import_module(f"{top}.{place}"), "__all__", [name])
        assert name in exported, f"optnas.{place}.__all__ lacks {name}"
        if inside and exported != [name]:
            assert getattr(importlib.import_module(f"optnas.{place}"), name) is getattr(optnas, name)


@pytest.mark.parametrize(
    "package", sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py") if p.stat().st_size)
)
def test_rooms_export_what_they_say(package: str) -> None:
    module = importlib.import_module(f"optnas.{package}")
    assert module.__doc__, f"optnas.{package} does not say what it is for"
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name)


def test_no_public_name_shadows_a_module() -> None:
    """Importing `optnas.x` sets the attribute `x`: a function of that name would come and go."""
    files = {room(path) for path in FILES}
    assert files & set(optnas._HOMES) == set()


def newly_imported(before: str, statement: str) -> set[str]:
    """The top-level packages that `statement` adds to a fresh interpreter that ran `before`."""
    code = (
        f"import sys\n{before}\nbefore = set(sys.modules)\n{statement}\nimport json\n"
        "print(json.dumps([name for name in sys.modules if name not in before]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize("statement", ["import optnas", "import optnas.cli"])
def test_nothing_heavy_is_imported_before_a_name_needs_it(statement: str) -> None:
    assert newly_imported("", statement).isdisjoint(HEAVY | {"numpy", "sklearn", "plotly", "sqlalchemy"})


def test_importing_optnas_costs_no_third_party_import() -> None:
    """Under 0.3 s on top of the three big ones, without a stopwatch: it imports only itself and stdlib."""
    extra = newly_imported("import torch, pytorch_lightning, optuna", "import optnas")
    assert extra <= {"optnas", "typing", "importlib", "json"}
