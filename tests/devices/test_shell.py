"""A user's own device, played by small programs: what fails, and whose fault it is."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from torch import nn

from optnas import Objective, create_study, record
from optnas.devices import command
from optnas.errors import DeviceError, is_infrastructure

EXAMPLE = (1, 4)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optnas.devices.shell._PAUSE", 0.0)


@pytest.fixture
def board(tmp_path: Path) -> str:
    """A device that prints the size of the file, cannot run large ones, and is off while `off` is there."""
    (tmp_path / "bench.py").write_text(
        "import os, sys\n"
        f"calls = open({str(tmp_path / 'calls')!r}, 'a'); calls.write('x'); calls.close()\n"
        f"if os.path.exists({str(tmp_path / 'off')!r}): sys.exit('connection refused')\n"
        "size = os.path.getsize(sys.argv[1])\n"
        "if size > 40_000: sys.exit('no such operator')\n"
        "print('loaded'); print('bytes:', size / 1000)\n"
    )
    return f"{sys.executable} {tmp_path / 'bench.py'} {{pt2}}"


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text()) if (folder / "calls").exists() else 0


def test_the_last_word_is_the_number(board: str) -> None:
    fact = command(board, unit="kB", name="size")
    small, larger = (fact.measured(nn.Linear(4, n), EXAMPLE) for n in (1, 900))
    assert 0 < small.value < larger.value < 40
    assert small.details["command"] == board
    assert (fact.unit, fact.name, fact.needs) == ("kB", "size", "batch")


def test_a_network_that_the_device_cannot_run_is_at_fault(board: str, tmp_path: Path) -> None:
    """So it is said whether the device has measured another network before or not."""
    for known in (False, True):
        fact = command(board, retries=1)
        if known:
            fact.of(nn.Linear(4, 1), EXAMPLE)
        before = calls(tmp_path)
        with pytest.raises(ValueError, match=r"ended with 1: no such operator. It works for another network"):
            fact.of(nn.Linear(4, 5000), EXAMPLE)
        assert calls(tmp_path) - before == 3  # twice for the network, and for another one


def test_a_device_that_is_off_is_at_fault(board: str, tmp_path: Path) -> None:
    fact = command(board, retries=0)
    fact.of(nn.Linear(4, 1), EXAMPLE)
    (tmp_path / "off").touch()
    with pytest.raises(
        DeviceError, match=r"connection refused. It fails for a network that is known"
    ) as caught:
        fact.of(nn.Linear(4, 2), EXAMPLE)
    assert is_infrastructure(caught.value)
    (tmp_path / "off").unlink()
    assert fact.of(nn.Linear(4, 2), EXAMPLE) > 0


def test_silence_nonsense_and_commands_that_hang(tmp_path: Path) -> None:
    for line, words in (
        ("true {pt2}", "no number at its end: it said nothing"),
        ("echo fast # {pt2}", "fast"),
    ):
        with pytest.raises(DeviceError, match=words):
            command(line, retries=0).of(nn.Linear(4, 1), EXAMPLE)
    start = time.monotonic()
    with pytest.raises(DeviceError, match=r"took more than 0.2 s"):
        command("sleep 60; echo 3 # {pt2}", timeout=0.2, retries=0).of(nn.Linear(4, 1), EXAMPLE)
    assert time.monotonic() - start < 30


def test_a_search_goes_on_without_the_number_or_puts_the_trial_back(board: str, tmp_path: Path) -> None:
    fact = command(board, retries=0, name="board")
    objective = Objective(
        lambda trial: nn.Linear(4, trial.suggest_categorical("width", [2, 5000])),
        lambda model, trial: {"score": 0.0},
        values={"score": "maximize"},
        example=EXAMPLE,
        facts=[fact],
        reuse_twins=False,
    )
    study = create_study(objective, seed=0)
    for width in (2, 5000):
        study.enqueue_trial({"width": width})
    study.optimize(objective, n_trials=2)
    small, large = study.trials
    assert record.facts(small)["board"] > 0
    assert "no such operator" in record.MISSING.of(large)["board"]
    assert record.DETAILS.of(small)["board"]["words"] == f"by {board}"
    (tmp_path / "off").touch()
    trial = study.ask({})
    with pytest.raises(DeviceError):
        objective(trial)
    assert record.Reason.of(study.trials[2]) is None  # nothing is held against the trial


def test_an_onnx_file(tmp_path: Path) -> None:
    code = "import os, sys; print(os.path.getsize(sys.argv[1]))"
    assert command(f"{sys.executable} -c '{code}' {{onnx}}").of(nn.Linear(4, 2), EXAMPLE) > 1


def test_a_template_without_a_place_for_the_network_is_refused() -> None:
    for template in ("ssh board ./bench", "bench {onnx} {pt2}"):
        with pytest.raises(ValueError, match="needs one place"):
            command(template)
    with pytest.raises(ValueError, match="timeout=0"):
        command("bench {onnx}", timeout=0)
