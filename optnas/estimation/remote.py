"""Folders behind a URL (s3://, gs://, file://): what is written is uploaded whole, what is read is fetched.

Such a folder has a place on this machine, a Path like that of any other, which holds only what this process
is about to upload, or has fetched. All functions take paths of either kind.
"""

from __future__ import annotations

import atexit
import glob
import os
import re
import shutil
import tempfile
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_URL = re.compile(r"[a-z][a-z0-9+.-]+(::|://)", re.IGNORECASE)

# What to install where fsspec names a package of its own.
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


@dataclass(frozen=True)
class _Folder:
    url: str
    files: Any  # fsspec's file system
    root: str


_folders: dict[Path, _Folder] = {}


def is_url(folder: str) -> bool:
    """Whether it is a URL, and not the path of a folder."""
    return _URL.match(folder) is not None


def place_of(url: str) -> Path:
    """Where the folder behind a URL is on this machine, for as long as this process lives.

    Raises:
        ImportError: the package for such URLs is not installed.
        ValueError: fsspec knows no such URLs.
    """
    url = url.rstrip("/")
    for place, folder in _folders.items():
        if folder.url == url:
            return place
    import fsspec

    try:
        files, root = fsspec.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(url.partition(":")[0].lower())
        way_out = f"pip install {package}" if package else str(error)
        raise ImportError(f"folder={url!r} needs a package that is not installed: {way_out}") from error
    except ValueError as error:
        raise ValueError(f"folder={url!r}: {error}.") from error
    place = Path(tempfile.mkdtemp(prefix="optnas-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    place = place / (url.rpartition("/")[2] or "_")
    _folders[place] = _Folder(url, files, root.rstrip("/"))
    return place


def shown(path: Path) -> str:
    """The path, or the URL, for people to read."""
    found = _behind(path)
    return str(path) if found is None else found[0].url + found[1].removeprefix(found[0].root)


def beside(folder: Path, name: str) -> Path:
    """The folder of that name in the same place."""
    known = _folders.get(folder)
    return folder.with_name(name) if known is None else place_of(f"{known.url.rpartition('/')[0]}/{name}")


def is_remote(path: Path) -> bool:
    """Whether it is in a folder behind a URL."""
    return _behind(path) is not None


def folders_beside(folder: Path) -> list[Path]:
    """All folders in the place of one behind a URL, itself included."""
    known = _folders[folder]
    parent, above = known.root.rpartition("/")[0], known.url.rpartition("/")[0]
    known.files.invalidate_cache()
    with suppress(FileNotFoundError):
        found = [
            entry["name"].rstrip("/") for entry in known.files.ls(parent, detail=True) if _is_folder(entry)
        ]
        return [place_of(f"{above}/{name.rpartition('/')[2]}") for name in found]
    return []


def _is_folder(entry: dict[str, Any]) -> bool:
    return bool(entry["type"] == "directory")


def n_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; files that others delete meanwhile count as 0."""
    found = _behind(path)
    if found is not None:
        found[0].files.invalidate_cache()
        with suppress(OSError):
            return int(found[0].files.du(found[1]))
        return 0
    total = 0
    files = [path] if path.is_file() else (Path(at, name) for at, _, some in os.walk(path) for name in some)
    for file in files:
        with suppress(OSError):
            total += os.lstat(file).st_size
    return total


def names(folder: Path, pattern: str) -> list[str]:
    """The matching files of a folder, relative to it."""
    found = _behind(folder)
    if found is None:
        # Unlike Path.glob, no error where others delete meanwhile.
        return glob.glob(pattern, root_dir=folder, recursive=True)
    behind, path = found
    behind.files.invalidate_cache()
    hits = behind.files.glob(f"{path}/{pattern}")
    return [str(hit)[len(path) :].strip("/") for hit in hits]


def exists(path: Path) -> bool:
    """Whether there is such a file or folder."""
    found = _behind(path)
    if found is None:
        return path.exists()
    found[0].files.invalidate_cache()
    return bool(found[0].files.exists(found[1]))


def is_file(path: Path) -> bool:
    """Whether there is such a file."""
    found = _behind(path)
    return path.is_file() if found is None else bool(found[0].files.isfile(found[1]))


def upload(file: Path) -> None:
    """Put a written file where all can fetch it: they find the old file or the new one, never a part."""
    found = _behind(file)
    if found is None:
        return
    behind, path = found
    aside = f"{path}.{uuid.uuid4().hex[:8]}.part"
    behind.files.makedirs(path.rpartition("/")[0], exist_ok=True)
    behind.files.put_file(str(file), aside)
    behind.files.mv(aside, path)
    file.unlink()


def fetch(file: Path) -> Path:
    """The file, on this machine.

    Raises:
        FileNotFoundError: there is none.
    """
    found = _behind(file)
    if found is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
        try:
            found[0].files.get_file(found[1], str(aside))
            os.replace(aside, file)
        finally:
            aside.unlink(missing_ok=True)
    return file


def remove(path: Path) -> None:
    """Delete a file, if it is there and can be deleted."""
    found = _behind(path)
    with suppress(OSError):
        path.unlink(missing_ok=True)
        if found is not None:
            found[0].files.rm_file(found[1])


def remove_tree(folder: Path) -> None:
    """Delete a folder with all that is in it, as far as it can be deleted."""
    found = _behind(folder)
    shutil.rmtree(folder, ignore_errors=True)
    if found is not None:
        with suppress(OSError):
            found[0].files.rm(found[1], recursive=True)


def _behind(path: Path) -> tuple[_Folder, str] | None:
    """The folder behind a URL that holds the path, and the path there."""
    for place in (path, *path.parents):
        if place in _folders:
            behind = _folders[place]
            return behind, "/".join((behind.root, *path.relative_to(place).parts))
    return None
