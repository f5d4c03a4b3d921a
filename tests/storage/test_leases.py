"""Whether a process lives, told from another that got its pid, and what follows for its trial."""

from __future__ import annotations

import gc
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from optnas.storage.leases import BUSY_LEASES, Heart, Loss, Process, stale, start_time


def row(process: Process, **changes: Any) -> SimpleNamespace:
    values = {"trial_id": 3, "number": 2, "token": "t", "n_attempts": 1, "expires": 100.0, "now": 50.0}
    return SimpleNamespace(**values | asdict(process) | changes)


@pytest.fixture
def child() -> Any:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_a_killed_process_is_dead_even_before_its_parent_looks(child: Any) -> None:
    process = replace(Process.this(), pid=child.pid, started=start_time(child.pid))
    assert not process.is_dead()
    child.kill()
    deadline = time.monotonic() + 600
    while not process.is_dead():  # a zombie until it is waited for
        assert time.monotonic() < deadline
    child.wait()
    assert process.is_dead()


def test_another_process_with_its_pid_does_not_deceive() -> None:
    this = Process.this()
    assert not this.is_dead()
    assert replace(this, started="1").is_dead()
    assert not replace(this, started="1", machine="elsewhere").is_dead()  # its pid says nothing here


def test_a_start_is_told_alike_in_every_time_zone_and_language(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc; and the clocks may change between two looks."""
    if shutil.which("ps") is None:
        pytest.skip("no ps on this system")
    monkeypatch.setattr("optnas.storage.leases.PROC", Path("/nowhere"))
    told = set()
    for zone, language in (("UTC", "C"), ("Asia/Tokyo", "de_DE.UTF-8"), ("CET-1CEST,0/0,365/23", "C")):
        monkeypatch.setenv("TZ", zone)
        monkeypatch.setenv("LC_ALL", language)
        told.add(start_time(os.getpid()))
    assert len(told) == 1
    assert "" not in told
    assert start_time(2**22 + 1) == ""  # beyond all pids


def test_stale() -> None:
    this = Process.this()
    assert stale(row(this), lease=10.0, one_machine=True) is None
    expired = stale(row(this, expires=50.0 - 201.0), lease=10.0, one_machine=True)
    assert expired is not None
    assert (expired.loss, expired.trial_id, expired.number, expired.process) == (Loss.EXPIRED, 3, 2, this)
    dead = stale(row(replace(this, started="1")), lease=10.0, one_machine=False)
    assert dead is not None
    assert dead.loss == Loss.DEAD


def test_before_the_last_boot_nobody_lives_here_but_maybe_elsewhere() -> None:
    elsewhere = row(replace(Process.this(), machine="another-boot pid:[1]"))
    assert stale(elsewhere, lease=10.0, one_machine=False) is None
    rebooted = stale(elsewhere, lease=10.0, one_machine=True)
    assert rebooted is not None
    assert rebooted.loss == Loss.DEAD


def test_heart_beats_until_its_object_is_gone() -> None:
    class Owner:
        beaten = threading.Event()

        def beat(self) -> None:
            self.beaten.set()

    owner = Owner()
    heart = Heart(owner.beat, 0.01)
    assert owner.beaten.wait(600)
    del owner
    gc.collect()
    heart.join(600)
    assert not heart.is_alive()


def test_who_cannot_look_judges_nobody_dead(
    child: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    process = replace(Process.this(), pid=child.pid, started=start_time(child.pid))
    taken: list[int] = []

    def take_all() -> None:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 5, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            take_all()
        assert not process.is_dead()
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "stat").touch()  # where the processes of others are hidden (hidepid)
    monkeypatch.setattr("optnas.storage.leases.PROC", tmp_path)
    assert start_time(child.pid) == "?"
    assert not process.is_dead()
    child.kill()
    child.wait()
    assert process.is_dead()


def test_a_beat_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    class Owner:
        beaten = threading.Event()
        n = 0

        def beat(self) -> None:
            self.n += 1
            if self.n == 1:
                raise MemoryError
            self.beaten.set()

    owner = Owner()
    with caplog.at_level(logging.WARNING):
        heart = Heart(owner.beat, 0.01)
        assert owner.beaten.wait(600)
    heart.stop()
    heart.join()
    assert "Leases could not be renewed" in caplog.text


def test_who_lives_here_and_is_not_stopped_may_let_leases_pass(child: Any) -> None:
    """Within a bound: C code may hold the interpreter; but a process may also hang in it for ever."""
    process = replace(Process.this(), pid=child.pid, started=start_time(child.pid))
    elsewhere = replace(process, machine="elsewhere")
    late, too_late = 50.0 - 10.0 * (BUSY_LEASES - 1), 50.0 - 10.0 * (BUSY_LEASES + 1)
    assert stale(row(process, expires=late), lease=10.0, one_machine=False) is None
    for lost in (row(process, expires=too_late), row(elsewhere, expires=49.0)):
        judged = stale(lost, lease=10.0, one_machine=False)
        assert judged is not None
        assert judged.loss == Loss.EXPIRED
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    stopped = stale(row(process, expires=late), lease=10.0, one_machine=False)
    assert stopped is not None
    assert stopped.loss == Loss.EXPIRED
