"""A study file, the storage it names, and what can be wrong with either."""

from __future__ import annotations

import difflib
import importlib.util
import shlex
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from optnas.cli.messages import fail
from optnas.passwords import without_password, without_secrets

if TYPE_CHECKING:
    import optuna
    from torch import nn

    from optnas.objective import Objective
    from optnas.trial import Space

DEFAULT_STORAGE = "sqlite:///nas.db"


@dataclass(frozen=True)
class Job:
    """A study file with the options of the command line applied.

    Attributes:
        objective: the one name that a study file must define.
        baseline: a network of the user's own, a space that asks nothing, to compare the winner with.
        n_retrain: from how many seeds `run` trains the winner and the baseline anew at its end.
        options: the options given on the command line that say which study is meant.
        misread: names in the file that nothing reads, and what they look like.
    """

    file: Path
    objective: Objective
    study_name: str
    storage: str
    sampler: Any = None
    pruner: Any = None
    seed: int | None = None
    n_trials: int | None = None
    baseline: Space[nn.Module] | None = None
    n_retrain: int = 0
    options: tuple[str, ...] = ()
    misread: Mapping[str, str] = field(default_factory=dict)

    def command(self, name: str, *more: str) -> str:
        """What to type for another command on the same study."""
        return shlex.join(["optnas", name, str(self.file), *more, *map(without_password, self.options)])

    def carry_code(self) -> None:
        """Send what the file defines to workers with the objective: other machines may not have the file."""
        import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[_module_name(self.file)])

    def create_study(self) -> optuna.Study:
        """Create the study, or go on with it."""
        from optnas.search.study import create_study

        return create_study(
            self.objective,
            study_name=self.study_name,
            storage=open_storage(self.storage),
            sampler=self.sampler,
            pruner=self.pruner,
            seed=self.seed,
        )

    def load_study(self, *, read_only: bool = False) -> optuna.Study:
        """The study, which must exist."""
        import optuna

        storage = open_existing(self.storage, read_only=read_only)
        names = optuna.get_all_study_names(storage)
        if self.study_name not in names:
            fail(
                f"There is no study {self.study_name!r} in {without_password(self.storage)}, which has "
                f"{', '.join(names) or 'none at all'}. Say which with --study-name, or begin it with: "
                f"{self.command('run')}"
            )
        return optuna.load_study(study_name=self.study_name, storage=storage)


def load_job(file: Path, storage: str | None, study_name: str | None) -> Job:
    """Run a study file and take from it what the command line does not say."""
    if not file.is_file():
        fail(f"There is no study file {str(file)!r}; a study file is a Python file that defines `objective`.")
    defined = vars(_import(file))
    from optnas.objective import Objective

    objective = defined.get("objective")
    if not isinstance(objective, Objective):
        found = (
            "has no `objective`" if objective is None else f"has a {type(objective).__name__} as `objective`"
        )
        fail(f"{file} {found}; define objective = optnas.Objective(space, estimator).")
    given = {"--storage": storage, "--study-name": study_name}
    return Job(
        file=file,
        objective=objective,
        study_name=study_name or str(defined.get("study_name", file.stem)),
        storage=storage or str(defined.get("storage", DEFAULT_STORAGE)),
        options=tuple(part for name, value in given.items() if value for part in (name, value)),
        misread=_misread(defined),
        **{name: defined[name] for name in _HANDED_ON if name in defined},
    )


_HANDED_ON = ("sampler", "pruner", "seed", "n_trials", "baseline", "n_retrain")


def _misread(defined: Mapping[str, Any]) -> dict[str, str]:
    """Names that look like a missing name that would be read."""
    read = [name for name in ("study_name", "storage", *_HANDED_ON) if name not in defined]
    values = [name for name, value in defined.items() if not isinstance(value, ModuleType | type)]
    close = {name: difflib.get_close_matches(name, read, n=1, cutoff=0.85) for name in values}
    return {name: alike[0] for name, alike in close.items() if alike}


def load_only_study(storage: str, study_name: str | None, *, read_only: bool = False) -> optuna.Study:
    """A study without its file: the one of that name, or the only one of the storage."""
    import optuna

    opened = open_existing(storage, read_only=read_only)
    names = optuna.get_all_study_names(opened)
    if study_name is None and len(names) == 1:
        study_name = names[0]
    if study_name not in names:
        wanted = (
            "It is not clear which study is meant"
            if study_name is None
            else f"There is no study {study_name!r}"
        )
        fail(
            f"{wanted}; {without_password(storage)} has {', '.join(names) or 'none at all'}. "
            "Say which with --study-name."
        )
    return optuna.load_study(study_name=study_name, storage=opened)


def open_storage(url: str, *, read_only: bool = False) -> optuna.storages.BaseStorage:
    """Open a storage, or say in one line why not."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    from optnas.storage.open import open_storage

    try:
        return open_storage(url, read_only=read_only)
    except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError, ValueError) as error:
        reason = without_secrets(next(iter(str(error).strip().splitlines()), "no reason given."), url)
        fail(
            f"Cannot open the storage {without_password(url)!r}: {reason} "
            f"(A storage is a URL such as {DEFAULT_STORAGE}.)"
        )


def open_existing(url: str, *, read_only: bool = False) -> optuna.storages.BaseStorage:
    """Open a storage that must exist: a SQLite file that is not there is an error, not a new file.

    `read_only`: to look at it, and change nothing in it.
    """
    from optnas.storage.location import parse_url

    try:
        parsed = parse_url(url)
    except ValueError:
        return open_storage(url, read_only=read_only)  # says why not
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        file = without_secrets(str(parsed.database), url)
        fail(f"There is no storage {without_password(url)!r}: the file {file!r} does not exist.")
    return open_storage(url, read_only=read_only)


def _import(file: Path) -> ModuleType:
    """Import a file under its own name, with its folder on the path, as `python FILE` has it."""
    sys.path.insert(0, str(file.resolve().parent))
    name = _module_name(file)
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        fail(f"{file} is not a Python file; the name of a study file ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where inspect and pickle look for what the file defines
    if name != file.stem:
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)  # workers could not import a file of that name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != spec.origin:
            trace = trace.tb_next  # leave out our own lines above the user's code
        fail("".join(traceback.format_exception(error.with_traceback(trace))).rstrip(), code=1)
    return module


def _module_name(file: Path) -> str:
    return file.stem.replace(".", "_")  # a dot would mean a package
