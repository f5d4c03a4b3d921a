"""Says in words what a user's object is, so that a changed one can be told from the same one."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any


def describe(thing: Any) -> Any:
    """A JSON-able description, the same in every process: values as they are, code by its name and a hash.

    Of an object it knows no better, the class and the attributes.
    """
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, Path | timedelta):
        return str(thing)
    if isinstance(thing, list | tuple):
        return [describe(part) for part in thing]
    if isinstance(thing, set | frozenset):  # in an order that is the same in every process
        return sorted(map(describe, thing), key=json.dumps)
    if isinstance(thing, Mapping):
        return {str(name): describe(part) for name, part in thing.items()}
    if isinstance(thing, partial):
        return [describe(thing.func), describe(thing.args), describe(thing.keywords)]
    if isinstance(thing, type) or inspect.isroutine(thing):
        return _code(thing)
    kind = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if is_dataclass(thing):
        return {kind: {field.name: describe(getattr(thing, field.name)) for field in fields(thing)}}
    public = {name: part for name, part in sorted(vars(thing).items()) if not name.startswith("_")}
    simple = {name: part for name, part in public.items() if isinstance(part, bool | int | float | str)}
    return {kind: simple}


def _code(thing: Any) -> str:
    name = f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', thing)}"
    try:
        source = inspect.getsource(thing)
    except (OSError, TypeError):  # built in, or typed into an interpreter
        code = getattr(thing, "__code__", None)
        source = "" if code is None else repr((code.co_code, code.co_names))
    return f"{name}:{hashlib.sha256(source.encode()).hexdigest()[:12]}"
