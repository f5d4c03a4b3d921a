"""URLs as people write them, and folders that processes cannot share a file in."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from optnas.errors import StorageUnavailableError
from optnas.storage.location import NETWORK_FILESYSTEMS, file_id, filesystem, parse_url, shown
from optnas.storage.open import open_storage

SECRET = "tUlip-4711"


@pytest.mark.parametrize(
    ("written", "driver", "database"),
    [
        ("postgres://me@host/nas", "postgresql+psycopg", "nas"),
        ("postgresql://me@host:5433/nas?sslmode=require", "postgresql+psycopg", "nas"),
        ("postgresql+psycopg://me@host/nas", "postgresql+psycopg", "nas"),
        ("sqlite:////tmp/nas.db", "sqlite", "/tmp/nas.db"),
        ("sqlite:///nas.db", "sqlite", str(Path.cwd() / "nas.db")),
        ("nas.db", "sqlite", str(Path.cwd() / "nas.db")),
        ("~/nas.db", "sqlite", str(Path.home() / "nas.db")),
    ],
)
def test_urls_as_people_write_them(written: str, driver: str, database: str) -> None:
    url = parse_url(written)
    assert (url.drivername, url.database) == (driver, database)


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
def test_a_password_in_the_query_is_hidden_like_any_other(driver: str) -> None:
    url = parse_url(f"{driver}://host/nas?user=me&password={SECRET}&sslmode=require")
    assert url.password == SECRET
    assert url.query == {"user": "me", "sslmode": "require"}
    assert SECRET not in str(url)


def test_unreadable_url_does_not_show_the_password() -> None:
    with pytest.raises(ValueError, match="storage is not a URL") as caught:
        open_storage(f"postgresql://me:{SECRET}@host:no-port/nas")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_is_no_place_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailableError, match=r"the folder .*/none does not exist. Create it"):
        open_storage(tmp_path / "none" / "nas.db")
    with pytest.raises(StorageUnavailableError, match=r"is a folder. Name a file in it"):
        open_storage(tmp_path)


def test_a_file_is_known_by_more_than_its_name(tmp_path: Path) -> None:
    file = tmp_path / "nas.db"
    assert file_id(None) is None
    assert file_id(file) is None
    file.touch()
    before = file_id(file)
    file.write_text("grown")
    assert file_id(file) == before
    file.rename(tmp_path / "away.db")
    file.touch()
    assert file_id(file) != before
    assert file_id(tmp_path / "away.db") == before


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_network_folders_are_known(kind: str) -> None:
    mounts = (
        f"/dev/sda1 / ext4 rw 0 0\nserver:/x /mnt/my\\040share {kind} rw 0 0\ntmpfs /mnt/my tmpfs rw 0 0\n"
    )
    assert filesystem(Path("/mnt/my share/deep/nas.db"), mounts) == kind
    assert kind in NETWORK_FILESYSTEMS
    assert filesystem(Path("/home/nas.db"), mounts) == "ext4"
    assert filesystem(Path("/mnt/my/nas.db"), mounts) == "tmpfs"
    assert filesystem(Path("/mnt/mine/nas.db"), mounts) == "ext4"  # the names of folders are compared, whole


def test_network_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optnas.storage.location.NETWORK_FILESYSTEMS", {filesystem(tmp_path, _mounts())})
    with pytest.raises(
        StorageUnavailableError, match=r"is on a network folder \(.*Choose a local folder, or Pos"
    ):
        open_storage(tmp_path / "nas.db")
    assert not (tmp_path / "nas.db").exists()


def _mounts() -> str:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        pytest.skip("network folders are recognized by /proc/mounts, which only Linux has")
    return mounts.read_text()


@pytest.mark.parametrize(
    ("mistyped", "printed"),
    [
        (f"postgresql:/nas:{SECRET}@127.0.0.1/n1", "***"),
        (f"postgresql//nas:{SECRET}@127.0.0.1/n1", "***"),
        (f"nas:{SECRET}@127.0.0.1/n1", "***"),
        (f"postgresql://nas:{SECRET}@127.0.0.1:no-port/n1", "postgresql://***@127.0.0.1:no-port/n1"),
        (f"postgresql://nas:a@{SECRET}@127.0.0.1/n1", "postgresql://***@127.0.0.1/n1"),
    ],
)
def test_a_mistyped_url_is_refused_without_its_password(mistyped: str, printed: str) -> None:
    with pytest.raises(ValueError, match="storage is not a URL that can be read") as caught:
        open_storage(mistyped)
    assert SECRET not in str(caught.value)
    assert shown(mistyped) == printed


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://nas:{SECRET}@127.0.0.1:1/n1",
        f"redis://:{SECRET}@127.0.0.1/0",
        f"none://nas:{SECRET}@127.0.0.1/n1",
        f"postgresql+asyncpg://nas:{SECRET}@127.0.0.1:1/n1",
        f"postgresql://nas:a/{SECRET}@127.0.0.1:1/n1",
        f"postgresql://nas:a:{SECRET}@127.0.0.1:1/n1",
        f"postgresql://nas:x@127.0.0.1:1/n1?passfile=/x&options={SECRET}",
        f"postgresql://{SECRET}:nas@127.0.0.1:1/n1?PASSWORD={SECRET}",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises((StorageUnavailableError, ValueError)) as caught:
        open_storage(url, patience=0.1)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in "".join(traceback.format_exception_only(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert SECRET not in shown(url)


@pytest.mark.parametrize("path", ["a@b/nas.db", "/tmp/a:b/nas.db", "./x@y.db", "C:/x/nas.db"])
def test_paths_that_look_a_little_like_urls(path: str) -> None:
    assert parse_url(path).database == str(Path(path).absolute())
    assert shown(path) == path
    assert shown(f"sqlite:///{path}") == f"sqlite:///{path}"
