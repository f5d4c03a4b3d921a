"""The package as a house: which room may open which door, and what its public names are."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.public import public

import optnas

PACKAGE = Path(optnas.__file__).parent
TEMPLATES = PACKAGE / "cli" / "templates"  # users' files, as yet
FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py" and path.parent != TEMPLATES
)
HEAVY = {"torch", "pytorch_lightning", "optuna"}

_WORDS = {
    "_lazy",
    "private",
    "passwords",
    "trial",
    "errors",
    "seeds",
    "answers",
    "limits",
    "record",
    "pareto",
}
_WORDS |= {"printable", "locks"}
_PARTS = _WORDS | {"space", "facts", "drawing", "storage", "surrogate"}
_WAYS = {"estimation", "training", "tasks", "data", "strategy", "benchmarks", "hub", "supernet"}
# room -> the rooms it may import; doors open one way.
DOORS = {
    "_lazy": set(),
    "trial": {"answers", "errors"},
    "errors": set(),
    "private": set(),
    "passwords": set(),
    "seeds": set(),
    "printable": set(),
    "locks": set(),
    "limits": set(),
    "answers": {"errors"},
    "record": {"limits", "answers", "trial", "errors", "private"},
    "pareto": {"private", "record"},
    "space": _WORDS,
    "facts": _WORDS,
    "drawing": _WORDS | {"facts"},
    "storage": {"errors", "private", "passwords"},
    "surrogate": _WORDS,
    "launch": {"_lazy", "storage"},
    "estimation": _PARTS,
    "tasks": _PARTS,
    "data": _PARTS | {"estimation"},
    "training": _PARTS | {"estimation", "tasks", "data"},
    "strategy": _PARTS,
    "supernet": _PARTS | {"estimation", "training", "tasks", "data"},
    "benchmarks": _PARTS | {"estimation"},
    "hub": _PARTS | {"benchmarks", "data", "tasks", "training"},
    "twins": _PARTS | {"estimation"},
    "objective": _PARTS | {"estimation", "twins"},
    "analysis": _PARTS | {"estimation", "objective"},
    "progress": _PARTS | {"estimation", "objective"},
    "export": {"facts", "errors"},
    "devices": _PARTS | {"objective", "analysis", "export"},
    "search": _PARTS | _WAYS | {"objective", "progress", "export", "launch"},
    "plots": _PARTS | {"objective", "analysis"},
    "reports": _PARTS | {"objective", "analysis", "plots"},
    "dashboard": _PARTS | _WAYS | {"objective", "analysis", "search", "plots", "reports"},
    "cli": _PARTS
    | _WAYS
    | {"objective", "analysis", "progress", "launch", "search", "plots", "reports", "dashboard", "export"}
    | {"testing"},
    "testing": _PARTS | _WAYS | {"objective", "analysis", "search", "export"},
    "sklearn": _PARTS | _WAYS | {"objective", "search"},
}
LIGHTNING = {"training", "tasks", "data", "supernet", "search"}
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
        ("strategy/evolution.py", "optnas.training.training"),
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


def test_every_package_with_public_names_is_there_without_an_import_of_its_own() -> None:
    homes = {name.split(".")[1] for name in public().values() if name.count(".") > 1}
    assert homes - set(optnas.__all__) == set()


LAZY = [
    "optnas",
    *(
        f"optnas.{room}"
        for room in ("strategy", "training", "benchmarks", "data", "tasks", "supernet", "launch")
    ),
]


@pytest.mark.parametrize("package", LAZY)
def test_names_that_are_loaded_lazily_are_those_that_type_checkers_see(package: str) -> None:
    room = importlib.import_module(package)
    [block] = [
        node for node in ast.parse(Path(str(room.__file__)).read_text()).body if isinstance(node, ast.If)
    ]
    for line in block.body:
        assert isinstance(line, ast.ImportFrom)
        for alias in line.names:
            assert alias.asname == alias.name, "or type checkers take it for private"
            home = importlib.import_module(str(line.module))
            submodule = f"{line.module}.{alias.name}"
            found = getattr(home, alias.name, None) or importlib.import_module(submodule)
            assert getattr(room, alias.name) is found
            assert alias.name in room.__all__


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
    rooms = {room(path) for path in FILES}
    assert {
        name for name in rooms & set(optnas.__all__) if not inspect.ismodule(getattr(optnas, name))
    } == set()


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
