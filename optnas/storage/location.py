"""Where a database is: URLs as people write them, and files that several processes can share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from optnas.errors import StorageUnavailableError

# A SQLite file is shared through memory and file locks of one machine, which these do not offer (reliably).
# fmt: off
NETWORK_FILESYSTEMS = frozenset((
    "nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "virtiofs", "afs", "ncpfs", "lustre", "gpfs",
    "beegfs", "ceph", "glusterfs", "davfs", "vboxsf", "prl_fs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph",
    "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.davfs",
))
# fmt: on


# What a URL's options may be shown as; others may be secrets (passwords, tokens, what was typed by mistake).
_SHOWN_OPTIONS = frozenset(("host", "port", "user", "dbname", "sslmode", "gssencmode", "timeout", "mode"))

_UNREADABLE = (
    "storage is not a URL that can be read. Write sqlite:///nas.db or "
    "postgresql://user:password@host:5432/database, with %-escapes for special characters (%40 for @)."
)

# A scheme without its two slashes, or user:password@ without a scheme: not the path of a file.
_ALMOST_A_URL = re.compile(r"[a-z][a-z0-9+]+:?//?\S*@|[a-z][a-z0-9+]+:/|[^/\\]*:[^/]*@", re.IGNORECASE)


def parse_url(storage: str) -> URL:
    """The URL as people write it, or a bare path of a SQLite file, as SQLAlchemy and psycopg 3 want it."""
    if "://" not in storage:
        if _ALMOST_A_URL.match(storage):
            raise ValueError(_UNREADABLE)
        return URL.create("sqlite", database=str(Path(storage).expanduser().absolute()))
    try:
        url = make_url(storage)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        raise ValueError(_UNREADABLE) from None  # the error has the URL with its password
    if "@" in (url.host or ""):
        raise ValueError(_UNREADABLE)
    if backend in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if isinstance(password := url.query.get("password"), str):  # where nobody would hide it
        url = url.set(password=password).difference_update_query(["password"])
    if url.drivername == "sqlite" and url.database not in (None, "", ":memory:"):
        return url.set(database=str(Path(str(url.database)).expanduser().absolute()))
    return url


def shown(storage: str | URL) -> str:
    """A storage's URL as it may be printed, however it was mistyped: neither password nor unknown options."""
    text = storage if isinstance(storage, str) else storage.render_as_string(hide_password=False)
    if "://" not in text:
        return "***" if _ALMOST_A_URL.match(text) else text
    if not text.startswith("sqlite"):  # the path of a file may hold an @
        scheme, _, rest = text.partition("://")
        if "@" in rest.partition("?")[2]:  # of a password or of an option: nobody can tell
            return f"{scheme}://***"
        text = re.sub(r"://[^@]*(:|@).*@", "://***@", text)
    return re.sub(rf"([?&](?!(?:{'|'.join(sorted(_SHOWN_OPTIONS))})=)[^=&]+=)[^&]*", r"\1***", text)


def secrets_of(url: URL) -> list[str]:
    """What no message may repeat: the password, and options that may hold one; long ones first."""
    options = [value for name, value in url.query.items() if name not in _SHOWN_OPTIONS]
    values = [value for option in options for value in ([option] if isinstance(option, str) else option)]
    if url.password:
        values.append(str(url.password))
    return sorted(filter(None, values), key=len, reverse=True)


def hide(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def filesystem(path: Path, mounts: str) -> str:
    """The type of the file system that holds `path`, by the text of /proc/mounts."""
    path, best, kind = path.resolve(), -1, ""
    for line in mounts.splitlines():
        _, mounted, found, *_ = line.split(" ")
        folder = Path(mounted.replace("\\040", " "))
        if path.is_relative_to(folder) and len(folder.parts) >= best:
            best, kind = len(folder.parts), found
    return kind


def check_file(file: Path, *, must_exist: bool = False) -> None:
    """Raises StorageUnavailableError where there is no place for a SQLite file that processes share."""
    if not file.parent.is_dir():
        raise StorageUnavailableError(
            f"storage={file}: the folder {file.parent} does not exist. Create it first."
        )
    if file.is_dir():
        raise StorageUnavailableError(
            f"storage={file} is a folder. Name a file in it, such as {file / 'nas.db'}."
        )
    if must_exist and not file.exists():
        raise StorageUnavailableError(f"storage={file} does not exist.")
    mounts = Path("/proc/mounts")
    if mounts.exists() and (kind := filesystem(file, mounts.read_text())) in NETWORK_FILESYSTEMS:
        raise StorageUnavailableError(
            f"storage={file} is on a network folder ({kind}), where SQLite damages files that several "
            "processes use. Choose a local folder, or Postgres: storage='postgresql://...'."
        )
    # Nothing here opens the file: closing it again would drop the locks that SQLite holds in this process
    # for another storage of the same file, and with them its write-ahead log.


_headers: dict[tuple[int, int], int] = {}


def has_wal_format(file: Path) -> bool:
    """Whether a SQLite file is written with a log beside it. It stays open: see `check_file`."""
    identity = file_id(file)
    if identity is None:
        return False
    try:
        if identity not in _headers:
            _headers[identity] = os.open(file, os.O_RDONLY)
        os.lseek(_headers[identity], 18, os.SEEK_SET)
        return os.read(_headers[identity], 2) == b"\x02\x02"
    except OSError:  # SQLite will say why
        return False


def file_id(file: Path | None) -> tuple[int, int] | None:
    """What tells a file from another that takes its name; None where there is none."""
    try:
        status = os.stat(file) if file is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_dev, status.st_ino)
