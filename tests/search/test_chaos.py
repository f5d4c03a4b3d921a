"""Workers are killed and a server is restarted; the search comes out as if nothing had happened."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "studies" / "benchmarks"


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The longer version of these tests, for people to run, as a module that workers can import."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("chaos")
    del sys.modules["chaos"]


def test_kills_change_nothing(chaos: Any, tmp_path: Path) -> None:
    study, kills = chaos.search(tmp_path, f"sqlite:///{tmp_path}/chaos.db", n_trials=16, n_kills=6)
    found = chaos.account(study, tmp_path, kills)
    assert found.hits == 6
    assert found.late >= 3
    assert (found.counted, found.others) == (16, [])
    assert (found.missing, found.lost, found.different) == (0, 0, [])
    assert found.repeated <= found.hits


def test_kills_and_a_restart_of_the_server_change_nothing(chaos: Any, tmp_path: Path, postgres: Any) -> None:
    if postgres.given is not None:
        pytest.skip("a server that is not ours is not restarted")
    restarts = []

    def restart() -> None:
        postgres.stop()
        time.sleep(1.0)
        postgres.start()
        restarts.append(time.time())

    url = postgres.new_database()
    study, kills = chaos.search(tmp_path, url, n_trials=12, n_kills=4, halfway=restart)
    found = chaos.account(study, tmp_path, kills)
    assert len(restarts) == 1
    assert found.hits == 4
    assert (found.counted, found.others) == (12, [])
    assert (found.missing, found.lost, found.different) == (0, 0, [])
    assert found.repeated <= found.hits
