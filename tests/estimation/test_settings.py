import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch

from optnas.estimation.settings import describe

THINGS = "[torch.nn.Linear, {'any', 'of', 'these', 'words'}, torch.relu]"


@dataclass(frozen=True)
class Settings:
    rate: float
    sizes: tuple[int, ...] = (1, 2)


class Callback:
    def __init__(self, patience):
        self.patience = patience
        self._state = object()  # changes while it is used


def one(x):
    return x + 1


def other(x):
    return x + 2


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (None, None),
        (True, True),
        (0.5, 0.5),
        (Path("a") / "b", "a/b"),
        (timedelta(seconds=3), "0:00:03"),
        ((1, "a"), [1, "a"]),
        ({1: (2,)}, {"1": [2]}),
        (Settings(0.1), {f"{__name__}.Settings": {"rate": 0.1, "sizes": [1, 2]}}),
        (Callback(3), {f"{__name__}.Callback": {"patience": 3}}),
    ],
)
def test_values_are_described_as_they_are(thing, expected):
    assert describe(thing) == expected
    assert json.loads(json.dumps(describe(thing))) == expected


def test_code_is_told_apart_by_its_source():
    typed = {}
    exec("def f(x): return x + 1", typed)  # as at a prompt: no source
    exec("def g(x): return x - 1", typed)
    things = [one, other, typed["f"], typed["g"], torch.relu, partial(one, 1), partial(one, 2), Callback]
    described = [json.dumps(describe(thing)) for thing in things]
    assert len(set(described)) == len(things)
    assert described == [json.dumps(describe(thing)) for thing in things]


def test_the_description_is_equal_in_another_process():
    code = f"""if True:
        import torch
        from optnas.estimation.settings import describe
        print(describe({THINGS}))
    """
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(describe(eval(THINGS)))
