"""Candidates are looked at once, and what cannot be seen is said once."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from torch import nn

from optnas import Objective
from optnas.search.looks import Looks


def objective() -> Objective:
    def space(trial: Any) -> nn.Module:
        width = trial.suggest_int("width", 1, 8)
        if width == 8:
            raise ValueError("too wide")
        return nn.Linear(4, width)

    return Objective(space, lambda model, trial: {"score": 0.0}, values={"score": "maximize"}, example=(2, 4))


def test_each_network_is_looked_at_once_on_meta() -> None:
    seen: list[Any] = []

    def look(model: Any, example: Any) -> int:
        seen.append((model.weight.device.type, example))
        return int(model.out_features)

    looks = Looks(objective(), look, "lost")
    assert [looks({"width": width}) for width in (3, 5, 3)] == [3, 5, 3]
    assert seen == [("meta", (2, 4))] * 2


def test_what_cannot_be_seen_is_none_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def broken(model: Any, example: Any) -> int:
        raise KeyError("weight")

    looks = Looks(objective(), broken, "Nothing is seen.")
    assert [looks({"width": width}) for width in (2, 3, 8)] == [None] * 3
    (told,) = (r.message for r in caplog.records if r.levelname == "WARNING")
    assert told.startswith("Nothing is seen. The error: KeyError")


def test_a_fault_of_the_machine_is_raised() -> None:
    def full(model: Any, example: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        Looks(objective(), full, "lost")({"width": 2})
