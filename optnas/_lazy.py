"""Public names that are loaded on first use (PEP 562), listed once: where type checkers read them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def lazily(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from what it imports under `if TYPE_CHECKING:`.

    Every line there reads `from module import name as name`; the name is imported when somebody asks for it.
    """
    homes = _imports_for_type_checkers(package)

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = homes[name]
        home = import_module(module)
        # What is no name of the module is one of its submodules.
        value = vars(home).get(attribute) or import_module(f"{module}.{attribute}")
        setattr(sys.modules[package], name, value)
        return value

    names = sorted(homes)
    return load, lambda: names, names


def _imports_for_type_checkers(package: str) -> dict[str, tuple[str, str]]:
    spec = find_spec(package)
    source = spec.loader.get_source(package) if spec and spec.loader else None  # type: ignore[attr-defined]  # of files
    homes: dict[str, tuple[str, str]] = {}
    for block in ast.parse(source or "").body:
        if (
            isinstance(block, ast.If)
            and isinstance(block.test, ast.Name)
            and block.test.id == "TYPE_CHECKING"
        ):
            for line in block.body:
                assert isinstance(line, ast.ImportFrom)
                assert line.module is not None
                homes |= {alias.asname or alias.name: (line.module, alias.name) for alias in line.names}
    return homes
