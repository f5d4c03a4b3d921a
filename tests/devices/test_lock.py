import subprocess
import sys
import threading

import pytest

from optnas import locks
from optnas.devices.lock import one_at_a_time


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder where locks lie."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_measurement_that_waits_says_so_and_goes_on(monkeypatch, caplog):
    monkeypatch.setattr(locks, "SECONDS_UNTIL_SAID", 0.1)
    begun, may_end, order = threading.Event(), threading.Event(), []

    def measure():
        with one_at_a_time("latency"):
            begun.set()
            may_end.wait(30)
            order.append("first")

    other = threading.Thread(target=measure)
    other.start()
    assert begun.wait(30)
    with one_at_a_time("energy"):  # another thing may be measured meanwhile
        assert not caplog.records
    threading.Timer(0.5, may_end.set).start()
    with one_at_a_time("latency"):
        order.append("second")
    other.join()
    assert order == ["first", "second"]
    assert "Waiting for another process that measures (latency)" in caplog.text


def test_the_lock_of_a_process_that_died_is_free(folder, caplog):
    with one_at_a_time("latency"):
        [path] = folder.iterdir()
    dies = f"import filelock, os; filelock.FileLock({str(path)!r}).acquire(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", dies], check=False).returncode == 9
    with one_at_a_time("latency"):
        pass
    assert not caplog.records


def test_what_is_in_the_place_of_the_lock_ends_no_measurement(folder, caplog):
    with one_at_a_time("latency"):
        [path] = folder.iterdir()
    path.unlink(missing_ok=True)
    path.mkdir()
    with one_at_a_time("latency"):
        done = True
    assert done
    assert "several measurements may disturb one another" in caplog.text
