"""Where a study's files are: each study has one folder, and a small file in it says whose it is.

    <folder>/study.json      the study's identity, its name, and where its database is
    <folder>/trial-0007/     the files of trial 7; `owner` in it says which trial, if numbers were given twice

A study in a SQLite file has its folder beside that file, wherever the search was started; any other study has
it where its search began. A folder may be behind a URL (remote.py); then it has a place on this machine, too.
If the folder is beside the database, the study records its relative path, so that both can be moved together.
A copy of a database, or of a study, finds that the folder is the original's, and gets one of its own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import re
import socket
import uuid
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from optnas import private, record
from optnas.errors import CheckpointError
from optnas.estimation import remote
from optnas.storage.base import Place
from optnas.storage.open import storage_of

MARKER = "study.json"
"""The file in a study's folder that says whose it is."""
OWNER = "owner"
"""The file in a trial's folder that says whose it is."""
_LONGEST = 80  # bytes of a folder's name; file systems allow 255, paths often less
_log = logging.getLogger(__name__)

# Studies in the memory of this process that have a folder: identity to storage.
_in_memory: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def study_folder(study: optuna.Study) -> Path:
    """The folder of a study's files: its own, or the one that it would get.

    Examples:
        >>> optnas.training.study_folder(study).name
        'space'
    """
    return own_folder(study) or _usual(study, Path.cwd())


def own_folder(study: optuna.Study) -> Path | None:
    """The folder that the study recorded; None if it has none, or if the folder is another study's.

    It need not exist (on this machine).
    """
    attrs = study.user_attrs
    known = _known(study, attrs)
    if known is None:
        return None
    marker = read_marker(known)
    identity = record.IDENTITY.within(attrs)
    return known if marker is None or _is_ours(study, known, marker, identity) else None


def settle(study: optuna.Study, given: str | Path | None = None, base: Path | None = None) -> Path:
    """The study's folder, chosen and made when it is first needed.

    Args:
        given: where its user wants it, a URL as text; None: `runs/<study name>` beside the database, or in
            `base`.
        base: what a relative `given` is relative to; None: the working directory.

    Raises:
        CheckpointError: it cannot be made.
        ImportError: it is behind a URL for which a package is missing.
    """
    base = base or Path.cwd()
    asked = None if given is None else wanted(str(given), base)
    attrs = study.user_attrs
    known, identity = _known(study, attrs), _identity(study, attrs)
    if (
        known is not None
        and (asked is None or _means(known, Path(given or ""), asked))
        and _enter(study, known, identity, known)
    ):
        return known
    first = asked or _usual(study, base)
    for n in itertools.count(1):
        folder = first if n == 1 else remote.beside(first, f"{first.name}-{n}")
        if _enter(study, folder, identity, known):
            break
    if known is not None:
        _tell(study, known, folder, identity)
    _record(study, folder)
    return folder


def wanted(given: str, base: Path) -> Path:
    """The folder that a user means by a path, relative to `base`, or by a URL.

    Raises:
        ImportError: it is a URL for which a package is missing.
    """
    return remote.place_of(given) if remote.is_url(given) else base / given


def trial_folder(study: optuna.Study, number: int) -> Path:
    """The folder of one trial's files, also the place for those of its logger (of a `Run`: `run.folder`).

    Examples:
        >>> optnas.training.trial_folder(study, 3).name
        'trial-0003'
    """
    trials = [t for t in study.get_trials(deepcopy=False) if t.number == number]
    folder = study_folder(study)
    return folder_of(folder, trials[-1]) if trials else _plain(folder, number)


def folder_of(folder: Path, trial: FrozenTrial | optuna.Trial) -> Path:
    """Where the files of a trial are, or would be, below its study's folder."""
    plain = _plain(folder, trial.number)
    if _owner(plain) in (None, _key(trial)):
        return plain
    return plain.with_name(f"{plain.name}-{_key(trial)}")


def claim(folder: Path, trial: FrozenTrial | optuna.Trial) -> Path:
    """The same folder, made, and marked as this trial's."""
    while True:
        path = folder_of(folder, trial)
        with told(path):
            path.mkdir(parents=True, exist_ok=True)
            try:
                if _create(path / OWNER, _key(trial)) or _owner(path) == _key(trial):
                    return path
            except FileNotFoundError:  # another worker took the empty folder away just now
                if path.is_symlink() or not path.parent.is_dir():
                    raise


def abandon(path: Path) -> None:
    """Delete a trial's folder if nothing is left in it."""
    with suppress(OSError):
        if remote.names(path, "*") == [OWNER]:
            remote.remove(path / OWNER)
        path.rmdir()


def belongs_to(path: Path, trial: FrozenTrial | optuna.Trial) -> bool:
    """Whether the folder of a trial of this number is this trial's."""
    return _owner(path) in (None, _key(trial))


@contextmanager
def told(path: Path) -> Iterator[None]:
    """If a file cannot be written, raise an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> CheckpointError:
    """The error for a file or folder that cannot be written."""
    return CheckpointError(
        f"Cannot write {remote.shown(path)}: {error.strerror or error}. Make room, or choose another place "
        "with Training(folder=...)."
    )


# ---- which folder ----


def _usual(study: optuna.Study, base: Path) -> Path:
    file = storage_of(study).place.file
    return (base if file is None else file.parent) / "runs" / _as_name(study.study_name)


def _as_name(study_name: str) -> str:
    """A name that is one, harmless part of a path."""
    name = re.sub(r"[^\w.-]+", "_", study_name).lstrip(".") or "_"
    if len(name.encode()) <= _LONGEST:
        return name
    digest = hashlib.sha256(study_name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name.encode()[:_LONGEST].decode(errors='ignore')}-{digest}"


def _known(study: optuna.Study, attrs: Mapping[str, Any]) -> Path | None:
    recorded = record.FOLDER.within(attrs)
    if recorded is None:
        return None
    if remote.is_url(recorded):
        return remote.place_of(recorded)
    file = storage_of(study).place.file
    return Path(recorded).absolute() if file is None else file.parent / recorded


def _record(study: optuna.Study, folder: Path) -> None:
    file = storage_of(study).place.file
    inside = file is not None and folder.is_relative_to(file.parent)
    text = str(folder.relative_to(file.parent)) if file is not None and inside else remote.shown(folder)
    if record.FOLDER.of(study) != text:
        record.FOLDER.write(study, text)


def _means(known: Path, given: Path, asked: Path) -> bool:
    """Whether the known folder is the one that the user names, perhaps from another working directory."""
    name = re.sub(r"-\d+$", "", known.name)
    candidates = (known, remote.beside(known, name))
    if asked in candidates:
        return True
    parts = given.parts
    return (
        not given.is_absolute()
        and not remote.is_remote(asked)
        and any(path.parts[-len(parts) :] == parts for path in candidates)
    )


def _tell(study: optuna.Study, known: Path, folder: Path, identity: str) -> None:
    marker = read_marker(known)
    if marker is not None and not _is_ours(study, known, marker, identity):
        _log.warning(
            "Study %r was copied: the files in %s stay with the original, study %r. Those of this one go to "
            "%s; weights of trials from before the copy are not in it.",
            study.study_name, remote.shown(known), marker.get("name"), remote.shown(folder),
        )  # fmt: skip
    elif remote.exists(known):
        _log.warning(
            "The files of study %r go to %s from now on; the files in %s stay there, and the study does "
            "not read them any more.",
            study.study_name, remote.shown(folder), remote.shown(known),
        )  # fmt: skip


# ---- whose folder ----


def _enter(study: optuna.Study, folder: Path, identity: str, known: Path | None) -> bool:
    """Make the folder the study's, if it is or may become so; `known` is the one that the study recorded."""
    with told(folder):
        for _ in range(3):  # others may begin here at the same moment
            marker = read_marker(folder)
            if marker is None:
                if folder != known and remote.names(folder, "trial-*"):
                    return False  # of a study from before there were markers
                missing = not remote.exists(folder)
                folder.mkdir(parents=True, exist_ok=True)
                if _create(folder / MARKER, json.dumps(_marker(study, folder, identity))):
                    if missing and folder == known:
                        _log.warning(
                            "The folder %s of study %r was not found on this machine (%s) and is made "
                            "anew: it was removed, or the machines do not share it. Weights lie where "
                            "their trial ran, and a trial that is lost there begins anew here. Give "
                            "all machines one folder: Training(folder=...) with a path that they "
                            "share, or a URL such as 's3://bucket/folder'.",
                            remote.shown(folder), study.study_name, socket.gethostname(),
                        )  # fmt: skip
                    _remember(study, identity)
                    return True
            elif _is_ours(study, folder, marker, identity):
                if marker != _marker(study, folder, identity):  # moved together with its database, or renamed
                    _replace(folder / MARKER, json.dumps(_marker(study, folder, identity)))
                _remember(study, identity)
                return True
            elif is_of_the_dead(marker):
                for name in remote.names(folder, "trial-*"):
                    remote.remove_tree(folder / name)
                _replace(folder / MARKER, json.dumps(_marker(study, folder, identity)))
            else:
                return False
    return False


def _marker(study: optuna.Study, folder: Path, identity: str) -> dict[str, Any]:
    about: dict[str, Any] = {"study": identity, "name": study.study_name}
    place = storage_of(study).place
    file, server = place.file, place.server
    if file is not None:
        near = not remote.is_remote(folder)
        about["file"] = os.path.relpath(file, os.path.realpath(folder)) if near else str(file)
    elif server is not None:
        about["server"] = server
    else:
        about["process"] = [socket.gethostname(), os.getpid()]
    return about


def _is_ours(study: optuna.Study, folder: Path, marker: Mapping[str, Any], identity: str | None) -> bool:
    if marker.get("study") != identity:
        return False
    file = storage_of(study).place.file
    if file is not None and isinstance(marker.get("file"), str):
        other = Path(os.path.realpath(folder), marker["file"])
        if other.exists() and not os.path.samefile(other, file):
            return False  # ours is a copy: the original is still there
    elif marker.get("server") != storage_of(study).place.server:
        return False
    if marker.get("name") == study.study_name:
        return True
    return marker.get("name") not in optuna.get_all_study_names(private.storage(study))  # renamed, not copied


def is_of_the_dead(marker: Mapping[str, Any]) -> bool:
    """Whether the folder is of a study in memory that ended with its process, or is forgotten in this one."""
    match marker.get("process"):
        case [str(host), int(pid)] if host == socket.gethostname():
            if pid == os.getpid():
                return marker.get("study") not in _in_memory
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            except OSError:
                return False
    return False


def _remember(study: optuna.Study, identity: str) -> None:
    if storage_of(study).place == Place():  # in memory
        _in_memory[identity] = private.storage(study)


def _identity(study: optuna.Study, attrs: Mapping[str, Any]) -> str:
    known = record.IDENTITY.within(attrs)
    if known is None:
        settle_attr = storage_of(study).settle_study_user_attr
        known = str(settle_attr(private.study_id(study), record.IDENTITY.name, uuid.uuid4().hex))
    return known


def read_marker(folder: Path) -> Mapping[str, Any] | None:
    """What a folder says about its study: `{}` if that cannot be read, None if it says nothing."""
    try:
        marker = json.loads(remote.fetch(folder / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return {}  # of a study that is not known
    return marker if isinstance(marker, dict) else {}


# ---- whose trial ----


def _plain(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:04}"


def _key(trial: FrozenTrial | optuna.Trial) -> str:
    """Differs for two trials with one number, and for a trial that got the id of a deleted one."""
    began = next((attempt["started"] for attempt in record.attempts(trial)), None)
    return f"{private.trial_id(trial)}" if began is None else f"{private.trial_id(trial)}-{int(began * 1000)}"


def _owner(path: Path) -> str | None:
    try:
        return remote.fetch(path / OWNER).read_text(encoding="utf-8")
    except OSError:
        return None


def _create(file: Path, text: str) -> bool:
    """Create the file with all of its text at once, unless there is one."""
    if remote.is_remote(file):  # where nobody can say who was first: who writes here writes the same
        if remote.exists(file):
            return False
        _replace(file, text)
        return True
    aside = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
    aside.write_text(text, encoding="utf-8")
    try:
        os.link(aside, file)
    except FileExistsError:
        return False
    except OSError:  # no links on this file system
        with suppress(FileExistsError), file.open("x", encoding="utf-8") as opened:
            opened.write(text)
            return True
        return False
    finally:
        aside.unlink(missing_ok=True)
    return True


def _replace(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, file)
    remote.upload(file)
