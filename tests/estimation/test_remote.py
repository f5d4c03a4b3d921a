"""Folders behind a URL, on file systems of fsspec that live in this process."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from optnas.estimation import remote


class Slow(MemoryFileSystem):
    """A file system of somebody's own, on which an upload may break off in the middle."""

    protocol = "slow"
    store: dict[str, Any] = {}  # noqa: RUF012  # as its base class has it
    pseudo_dirs = [""]  # noqa: RUF012
    breaks = False

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        if self.breaks:
            self.pipe_file(rpath, Path(lpath).read_bytes()[:3])
            raise OSError("the connection is gone")
        super().put_file(lpath, rpath, **options)


@pytest.fixture(autouse=True, scope="module")
def _known() -> None:
    fsspec.register_implementation("slow", Slow, clobber=True)


@pytest.fixture(params=["memory", "slow", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path if request.param == "file" else uuid.uuid4().hex
    return remote.place_of(f"{request.param}://{folder}/runs/")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    remote.upload(path)


def test_what_is_uploaded_is_there_for_everybody_and_not_here(place: Path) -> None:
    file = place / "trial-0001" / "attempt-0" / "state.ckpt"
    assert not remote.exists(file)
    write(file, "one")
    write(file, "two")
    assert not file.exists()
    url = remote.shown(file)
    assert url.endswith("/runs/trial-0001/attempt-0/state.ckpt")
    with fsspec.open(url) as opened:
        assert opened.read() == b"two"
    assert remote.exists(file)
    assert remote.is_file(file)
    assert remote.exists(file.parent)
    assert not remote.is_file(file.parent)
    assert remote.fetch(file).read_text() == "two"
    assert remote.names(place, "trial-*/attempt-*/*.ckpt") == ["trial-0001/attempt-0/state.ckpt"]
    assert remote.names(place, "trial-*") == ["trial-0001"]
    remote.remove(file)
    remote.remove(file)
    assert not remote.exists(file)
    with pytest.raises(FileNotFoundError):
        remote.fetch(file)
    write(file, "three")
    remote.remove_tree(place / "trial-0001")
    assert remote.names(place, "**/*.ckpt") == []


def test_an_upload_that_breaks_off_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    file = remote.place_of(f"slow://{uuid.uuid4().hex}") / "state.ckpt"
    write(file, "the old state")
    monkeypatch.setattr(Slow, "breaks", True)
    with pytest.raises(OSError, match="connection is gone"):
        write(file, "the new state")
    assert remote.fetch(file).read_text() == "the old state"
    assert remote.names(file.parent, "*.ckpt") == ["state.ckpt"]  # a part is not taken for a state


def test_places_are_known_by_their_urls(tmp_path: Path) -> None:
    place = remote.place_of("memory://bucket/runs")
    assert remote.place_of("memory://bucket/runs/") == place
    assert remote.shown(remote.beside(place, "runs-2")) == "memory://bucket/runs-2"
    assert remote.is_remote(place / "trial-0001")
    assert not remote.is_remote(tmp_path)
    assert remote.shown(tmp_path) == str(tmp_path)
    assert [remote.is_url(text) for text in ("s3://b/x", "file:///x", "runs", "/runs", "C:\\runs")] == [
        True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("s3://bucket/runs", ImportError, "pip install s3fs"),
        ("gs://bucket/runs", ImportError, "pip install gcsfs"),
        ("moon://bucket/runs", ValueError, "folder='moon://bucket/runs': Protocol not known: moon"),
    ],
)
def test_what_cannot_be_opened_says_what_to_install(url: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        remote.place_of(url)
