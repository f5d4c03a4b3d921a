"""Files in the folders of studies that no trial needs: find, list and delete them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from optnas import record
from optnas.estimation import remote
from optnas.estimation.folders import is_of_the_dead, own_folder, read_marker, wanted
from optnas.storage.base import Storage, is_held
from optnas.storage.open import open_storage
from optnas.training.checkpoints import clean, passing


@dataclass(frozen=True)
class Leftover:
    """Something that may be deleted.

    Attributes:
        path: a study's folder, or a trial's.
        n_bytes: bytes that deleting it frees.
        why: the reason why no trial needs it.
        of_trial: whether only the files beside a trial's weights may be deleted, not the whole folder.
    """

    path: Path
    n_bytes: int
    why: str
    of_trial: bool = False


@dataclass(frozen=True)
class Leftovers:
    """What may be deleted; and, for what looked like it but must stay, the path and the reason."""

    found: list[Leftover]
    spared: dict[Path, str]

    @property
    def n_bytes(self) -> int:
        """Bytes that deleting all of it frees."""
        return sum(leftover.n_bytes for leftover in self.found)


class Standing(Enum):
    """Whether a study needs a folder."""

    NEEDED = "it is needed"
    GONE = "its study was deleted"
    DEAD = "its study was in the memory of a process that has ended"
    UNKNOWN = "this machine cannot tell whether its study was deleted"
    OTHERS = "its study was deleted, but it belongs to another user"


def standing(folder: Path, storage: Storage) -> Standing:
    """Whether any of the studies that a storage has now needs a folder."""
    marker = read_marker(folder)
    if not marker:
        return Standing.NEEDED  # it is not known by which study
    if "process" in marker:
        dead = is_of_the_dead(marker)
        return Standing.NEEDED if not dead else Standing.DEAD if _is_mine(folder) else Standing.OTHERS
    file = marker.get("file")
    if isinstance(file, str):
        database = Path(os.path.realpath(folder), file)
        if not database.exists():
            return Standing.UNKNOWN  # moved, or on a disk that is not here
        if storage.place.file is None or not os.path.samefile(database, storage.place.file):
            return Standing.NEEDED  # by a study of another database
    elif marker.get("server") != storage.place.server or storage.place.server is None:
        return Standing.NEEDED
    studies = [optuna.load_study(study_name=n, storage=storage) for n in optuna.get_all_study_names(storage)]
    if marker.get("study") in {record.IDENTITY.of(study) for study in studies}:
        return Standing.NEEDED
    if not isinstance(file, str):
        return Standing.UNKNOWN  # databases of several servers may have one name
    return Standing.GONE if _is_mine(folder) else Standing.OTHERS


def _is_mine(folder: Path) -> bool:
    """Whether it belongs to this user; behind a URL, whatever may be deleted does."""
    return remote.is_remote(folder) or os.lstat(folder).st_uid == os.getuid()


def leftovers(storage: str | BaseStorage, also_in: Sequence[str | os.PathLike[str]] = ()) -> Leftovers:
    """What no trial of a storage needs, on this machine and behind the URLs of its studies.

    These are the saved states of trainings whose trials have ended, and the folders of deleted studies. It
    looks for folders beside those of the studies, in `runs` beside a SQLite file and in the working
    directory, and in `also_in`, folders or URLs. It never lists weights of a study that exists; states from
    which a running, waiting or paused trial may go on; or folders of another storage's study, of a living
    process, or of another user.
    """
    opened = open_storage(storage)
    names = optuna.get_all_study_names(opened)
    studies = [optuna.load_study(study_name=name, storage=opened) for name in names]
    found, spared = list(_states(studies)), {}
    for folder in _folders(opened, studies, also_in):
        # Looked up after the folder was found: a study is known to its database before it makes a folder.
        how = standing(folder, opened)
        if how in _TO_GO:
            found.append(Leftover(folder, remote.n_bytes(folder), how.value))
        elif how is not Standing.NEEDED:
            spared[folder] = how.value
    return Leftovers(found, spared)


_TO_GO = (Standing.GONE, Standing.DEAD)


def delete(storage: str | BaseStorage, found: Iterable[Leftover]) -> list[Path]:
    """Delete leftovers that are still not needed; returns those."""
    opened, deleted = open_storage(storage), []
    for leftover in found:
        if leftover.of_trial:
            clean(leftover.path, keep_weights=True)
        elif standing(leftover.path, opened) in _TO_GO:
            remote.remove_tree(leftover.path)
        else:
            continue
        deleted.append(leftover.path)
    return deleted


def _states(studies: Iterable[optuna.Study]) -> Iterator[Leftover]:
    """The saved states of trainings whose trials have ended."""
    for study in studies:
        for trial, path, files in passing(study):
            if trial.state.is_finished() and not is_held(trial):
                n_bytes = sum(map(remote.n_bytes, files))
                why = f"trial {trial.number} of study {study.study_name!r} has ended"
                yield Leftover(path, n_bytes, why, of_trial=True)


def _folders(
    storage: Storage, studies: Iterable[optuna.Study], also_in: Sequence[str | os.PathLike[str]]
) -> list[Path]:
    """Folders of any studies, in the places where this storage's studies have theirs."""
    own = [folder for study in studies if (folder := own_folder(study)) is not None]
    given = [os.fspath(place) for place in also_in]
    # Behind a URL, one folder stands for all beside it, whether it exists or not.
    far = [folder for folder in own if remote.is_remote(folder)]
    far += [remote.place_of(f"{place.rstrip('/')}/_") for place in given if remote.is_url(place)]
    own = [folder for folder in own if not remote.is_remote(folder)]
    near = [wanted(place, Path.cwd()) for place in given if not remote.is_url(place)]
    places = {Path("runs").absolute(), *(folder.parent for folder in own), *near}
    if storage.place.file is not None:
        places.add(storage.place.file.parent / "runs")
    folders = {path for place in places if place.is_dir() for path in place.iterdir()}
    found = sorted(path for path in folders if path.is_dir() and not path.is_symlink())
    return found + sorted(
        {path for folder in far for path in remote.folders_beside(folder)}, key=remote.shown
    )
