"""Put finished trials into another study, under new numbers, with their files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from optnas import private, record
from optnas.errors import ParamsMismatchError
from optnas.estimation import remote
from optnas.estimation.folders import MARKER, OWNER, cannot_write, claim, folder_of, own_folder
from optnas.training.checkpoints import PASSING

_KEPT = ("constraints", record.PARENT.name, record.CHANGED.name, record.BORN.name)
"""Attributes of samplers and searches that still hold in another space; the others are left behind."""


def renumbered(trial: FrozenTrial, numbers: Mapping[int, int], about: Mapping[str, Any]) -> FrozenTrial:
    """The trial for another study: references to other trials get the new numbers, or are left out.

    Args:
        numbers: maps the old numbers to the new ones, for the trials that the other study has.
        about: the value of `record.CARRIED`.
    """
    user, system = dict(trial.user_attrs), {}
    for name, value in trial.system_attrs.items():
        if name.startswith(_KEPT):
            system[name] = value
    for attrs, key in ((user, record.TWIN_OF), (user, record.AUDIT_OF), (system, record.PARENT)):
        if (number := attrs.pop(key.name, None)) in numbers:
            attrs[key.name] = numbers[number]
    weights = record.WEIGHTS.of(trial)
    if weights is not None and isinstance(number := weights.get("from"), int):
        source = {"from": numbers[number]} if number in numbers else {"from": "study", "trial": number}
        user[record.WEIGHTS.name] = {**weights, **source}
        if number not in numbers:
            user[record.WEIGHTS.name]["study"] = about["study"]
    user[record.CARRIED.name] = dict(about)
    return altered(trial, number=numbers[trial.number], user_attrs=user, system_attrs=system)


def altered(trial: FrozenTrial, **changed: Any) -> FrozenTrial:
    """A finished trial for another study; attributes that are not named stay as they are."""
    unchanged = {
        name: getattr(trial, name)
        for name in (
            *("number", "state", "values", "datetime_start", "datetime_complete", "params"),
            *("distributions", "user_attrs", "system_attrs", "intermediate_values"),
        )
    }
    return FrozenTrial(**{"trial_id": -1, "value": None, **unchanged, **changed})


def add(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Add trials to a study that is empty, or that has the first few of them from an interrupted call.

    Returns them as the study has them.

    Raises:
        ParamsMismatchError: the study has other trials.
    """
    there = study.get_trials(deepcopy=False)
    for trial, known in zip(trials, there, strict=False):
        if _came_from(known) != _came_from(trial):
            break
    else:
        if len(there) <= len(trials):
            for trial in trials[len(there) :]:
                study.add_trial(trial)
            return study.get_trials(deepcopy=False)
    raise ParamsMismatchError(
        f"Study {study.study_name!r} has trials of its own, or was left half-made by an earlier try from "
        "other trials. Choose another name, or delete it: "
        f"optuna.delete_study(study_name={study.study_name!r}, storage=...)."
    )


def _came_from(trial: FrozenTrial) -> tuple[Any, Any]:
    carried = record.CARRIED.of(trial) or {}
    return carried.get("study"), carried.get("number")


def copy_files(study: optuna.Study, trial: FrozenTrial, folder: Path, copied: FrozenTrial) -> None:
    """Copy the files in a finished trial's folder to the folder of a trial of another study.

    Files that are there already stay. Each file and folder appears complete or not at all. Weights that the
    study deletes meanwhile are not copied.

    Raises:
        CheckpointError: a file cannot be written.
    """
    own = own_folder(study)
    source = None if own is None else folder_of(own, trial)
    if source is None:
        return
    if remote.is_remote(source) or remote.is_remote(folder):
        _copy_remote(source, claim(folder, copied))
        return
    if not source.is_dir():
        return
    for path in [path for path in source.iterdir() if path.name != OWNER]:
        _copy(path, claim(folder, copied) / path.name)


def copy_rest(source: Path, target: Path) -> None:
    """Copy the files in a study's folder that belong to no trial's folder, such as drawings.

    Raises:
        CheckpointError: a file cannot be written.
    """
    if remote.is_remote(source) or remote.is_remote(target):
        _copy_remote(source, target, but=(MARKER, "trial-*"))
        return
    for path in [path for path in source.iterdir() if path.name != MARKER]:
        if not path.name.startswith("trial-"):
            _copy(path, target / path.name)


def _copy(path: Path, target: Path) -> None:
    """Copy a file or a folder. It appears complete; if it was deleted meanwhile, it does not appear."""
    if target.exists():
        return
    aside = target.with_name(f".{path.name}.part")
    if aside.is_dir():  # left by an interrupted call
        shutil.rmtree(aside, ignore_errors=True)
    try:
        if path.is_dir():
            shutil.copytree(path, aside, ignore=shutil.ignore_patterns(*PASSING))
        else:
            shutil.copy2(path, aside)
        if aside.is_file() or any(aside.iterdir()):
            aside.replace(target)
        else:
            aside.rmdir()
    except OSError as error:
        with suppress(OSError):
            shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
        if path.exists() and not _is_gone(error):
            raise cannot_write(target, error) from error


def _copy_remote(source: Path, target: Path, but: Sequence[str] = (OWNER,)) -> None:
    """All files, except those at the top whose names match `but`, and states of trainings."""
    for name in remote.names(source, "**/*"):
        at_top, last = Path(name).parts[0], Path(name).name
        kept = not any(fnmatch(at_top, one) for one in but) and not any(fnmatch(last, p) for p in PASSING)
        if kept and remote.is_file(source / name) and not remote.exists(target / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copy2(remote.fetch(source / name), target / name)
                remote.upload(target / name)
            except FileNotFoundError:  # deleted meanwhile
                continue
            except OSError as error:
                raise cannot_write(target / name, error) from error


def _is_gone(error: OSError) -> bool:
    """Whether what was to be copied was deleted meanwhile."""
    if isinstance(error, shutil.Error):
        return all("No such file" in str(words) for _, _, words in error.args[0])
    return isinstance(error, FileNotFoundError)


def deleted(study: optuna.Study, numbers: Mapping[int, int]) -> list[int]:
    """The trials of `record.DELETED`, under their new numbers."""
    return sorted(numbers[number] for number in record.DELETED.of(study) or [] if number in numbers)


def retrained(study: optuna.Study, numbers: Mapping[int, int]) -> list[dict[str, Any]]:
    """What was trained anew, under new numbers."""
    found = []
    for kept in record.all_retrained(study):
        who = kept["who"]
        if not isinstance(who, int):
            found.append(kept)
        elif who in numbers:
            found.append({**kept, "who": numbers[who]})
    return found


def half_made(study: optuna.Study) -> str:
    """The study from which this one is being made, also if that was interrupted; "" for any other study."""
    coming = record.COMING.of(study) or {}
    return str(coming.get("from", ""))


def place_of(study: optuna.Study) -> str:
    """What distinguishes a study from others with its name."""
    return record.IDENTITY.of(study) or f"{private.study_id(study)}"
