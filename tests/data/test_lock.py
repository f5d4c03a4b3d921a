import subprocess
import sys
import textwrap
import threading

import pytest
import pytorch_lightning as pl

from optnas import locks
from optnas.data import lock
from optnas.data.lock import one_at_a_time

PREPARING = """
    import os, sys, time
    import pytorch_lightning as pl
    from optnas.data.cache import DataCache

    class Downloaded(pl.LightningDataModule):
        def prepare_data(self):
            if not os.path.exists("data"):
                os.mkdir("downloading")
                time.sleep(0.5)
                os.rename("downloading", "data")

    print("ready", flush=True)
    sys.stdin.readline()
    DataCache(Downloaded())(None)
"""


def test_processes_prepare_data_one_at_a_time(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(PREPARING)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=tmp_path, **pipes) for _ in range(2)]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors


class Prepared(pl.LightningDataModule):
    def __init__(self, folder="here", batch_size=8):
        super().__init__()
        self.save_hyperparameters()

    def prepare_data(self):
        pass


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder where locks lie."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_each_data_set_has_a_lock_of_its_own(folder):
    def names():
        return {path.name for path in folder.iterdir()}

    held = []
    for data in (Prepared(), Prepared(batch_size=16), Prepared("there")):
        with one_at_a_time(data):
            held.append(names())
            # Another one is free meanwhile.
            with one_at_a_time(Prepared("elsewhere")):
                pass
    assert len(set.union(*held)) == 3  # of here, there and elsewhere; the size of batches is no place


def test_who_waits_says_so_and_goes_on(folder, monkeypatch, caplog):
    monkeypatch.setattr(locks, "SECONDS_UNTIL_SAID", 0.1)
    begun, may_end = threading.Event(), threading.Event()

    def prepare():
        with one_at_a_time(Prepared()):
            begun.set()
            may_end.wait(30)

    other = threading.Thread(target=prepare)
    other.start()
    begun.wait(30)
    threading.Timer(0.5, may_end.set).start()
    with one_at_a_time(Prepared()):
        pass
    other.join()
    assert "Waiting for another process that is in Prepared.prepare_data()" in caplog.text


def test_nobody_waits_for_ever(folder, monkeypatch):
    monkeypatch.setattr(locks, "SECONDS_UNTIL_SAID", 0.1)
    monkeypatch.setattr(lock, "SECONDS_UNTIL_GIVEN_UP", 0.1)
    begun, may_end = threading.Event(), threading.Event()

    def prepare():
        with one_at_a_time(Prepared()):
            begun.set()
            may_end.wait(30)

    other = threading.Thread(target=prepare)
    other.start()
    begun.wait(30)
    with pytest.raises(TimeoutError, match=r"Prepared\.prepare_data\(\).*fuser"), one_at_a_time(Prepared()):
        pass
    may_end.set()
    other.join()


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_in_the_place_of_the_lock_ends_no_search(folder, caplog, kind):
    with one_at_a_time(Prepared()):
        [path] = folder.iterdir()
    path.unlink(missing_ok=True)
    target = folder / "target"
    path.mkdir() if kind == "folder" else path.symlink_to(target)
    done = []
    with one_at_a_time(Prepared()):
        done.append(1)
    assert done == [1]
    assert f"Cannot lock {path}" in caplog.text
    assert not target.exists()


def test_errors_of_the_users_preparation_pass(folder):
    with pytest.raises(OSError, match="no network"), one_at_a_time(Prepared()):
        raise OSError("no network")
