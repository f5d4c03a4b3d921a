import collections
import functools
import json
import operator
import os
import pickle
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import partial
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch
from fixtures.settings_of_ours import STORED, described
from pytorch_lightning import LightningDataModule
from pytorch_lightning.callbacks import EarlyStopping
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset, random_split

from optnas.data import TensorData, random_cutmix, random_mixup
from optnas.estimation.settings import contents, describe
from optnas.tasks import Classification
from optnas.training import Training

THINGS = """
import re, threading
import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.callbacks import EarlyStopping
from torch.utils.data import Subset, TensorDataset

THINGS = [
    torch.nn.Linear, {'any', 'of', 'these', 'words'}, torch.relu, torch.nn.ReLU(), EarlyStopping("val_acc"),
    torch.Generator().manual_seed(1), np.random.default_rng(1), TensorDataset(torch.arange(3)),
    lambda x, words={'any', 'of', 'these'}: x in {'any', 'of', 'these'} and np.ones(3), re.compile("a"),
    LightningDataModule.from_datasets(Subset(TensorDataset(torch.arange(3)), [1])), threading.Lock(),
]
"""


@dataclass(frozen=True)
class Settings:
    rate: float
    sizes: tuple[int, ...] = (1, 2)


class Callback:
    def __init__(self, patience):
        self.patience = patience
        self._state = object()


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
        ([1, "a"], [1, "a"]),
        ((1, "a"), {"tuple": [1, "a"]}),
        ({"a": [2]}, {"a": [2]}),
        ({1: 2}, {"dict": [[1, 2]]}),
        (Settings(0.1), {describe(Settings): {"rate": 0.1, "sizes": {"tuple": [1, 2]}}}),
        (Callback(3), {describe(Callback): {"patience": 3, "_state": {"builtins.object": {}}}}),
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
    code = f"{THINGS}\nfrom optnas.estimation.settings import describe\nprint(describe(THINGS))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    around = {"__name__": "__main__"}
    exec(THINGS, around)
    assert done.stdout.strip() == str(describe(around["THINGS"]))


class Slots:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Holder:
    def __init__(self, value):
        self._value = value  # private, as in most code

    def read(self):
        return self._value

    def __call__(self, x):
        return x * self._value


class Level(Enum):
    LOW = 1
    HIGH = 2


def closing_over(value):
    return lambda x: x * value


def with_default(value):
    return lambda x, by=value: x * by


def with_keyword_default(value):
    def scaled(x, *, by=value):
        return x * by

    return scaled


def naming_a_global(value):
    around = {"BY": value}
    exec("def scaled(x): return x * BY", around)
    return around["scaled"]


def naming_in_a_nested_function(value):
    around = {"BY": value}
    exec("def scaled(x): return [(lambda: y * BY)() for y in x]", around)
    return around["scaled"]


def class_with(value):
    return type("Made", (), {"by": value, "__module__": "__main__"})


def wrapped(value):
    @functools.wraps(one)
    def wrapper(x):
        return one(x) * value

    return wrapper


def cyclic(value):
    holder = Holder([value])
    holder._value.append(holder)
    return holder


def data_of(value):
    return LightningDataModule.from_datasets(Subset(TensorDataset(torch.arange(9)), [0, value]))


def split_with(value):
    return random_split(TensorDataset(torch.arange(99)), [9, 90], torch.Generator().manual_seed(value))[0]


HIDING = [
    lambda v: [v],
    lambda v: {"a": {"b": (v,)}},
    lambda v: {v},
    lambda v: torch.tensor([0.0] * 10_000 + [v]),
    lambda v: np.array([0.0] * 10_000 + [v]),
    lambda v: np.array(["a", {"b": v}], dtype=object),
    lambda v: np.ma.masked_array([1, 2, 3], [True, v > 1, False]),
    lambda v: torch.arange(4.0).to_sparse() * v,
    lambda v: [0] * 10_000 + [v],
    lambda v: b"a" * v,
    lambda v: "a" * 2000 + str(v),
    lambda v: collections.OrderedDict(a=v),
    lambda v: collections.Counter({"a": v}),
    lambda v: collections.deque([1, v]),
    lambda v: collections.namedtuple("pair", "left right")(1, v),
    lambda v: SimpleNamespace(a=v),
    lambda v: torch.nn.Dropout(v / 10),
    lambda v: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(v / 10)),
    lambda v: torch.Generator().manual_seed(v),
    lambda v: re.compile("a" * v),
    lambda v: operator.itemgetter(v),
    lambda v: Level(v),
    lambda v: partial(one, v),
    lambda v: partial(torch.nn.functional.dropout, p=v / 10),
    lambda v: Holder(v),
    lambda v: Holder(v).read,
    lambda v: Holder(Holder([Holder(v)])),
    lambda v: Slots(v),
    lambda v: Settings(v),
    lambda v: Settings(0.1, sizes=torch.arange(v)),
    lambda v: [1, v].append,
    closing_over,
    with_default,
    with_keyword_default,
    naming_a_global,
    naming_in_a_nested_function,
    class_with,
    wrapped,
    lambda v: wrapped(Holder(v)),
    lambda v: functools.lru_cache(wrapped(v)),
    cyclic,
    lambda v: TensorDataset(torch.arange(v)),
    lambda v: ConcatDataset([TensorDataset(torch.arange(3)), TensorDataset(torch.arange(v))]),
    lambda v: DataLoader(TensorDataset(torch.arange(8)), batch_size=v),
    split_with,
    data_of,
    lambda v: with_default(data_of(v)),
    lambda v: EarlyStopping("val_acc", patience=v),
]


@pytest.mark.parametrize("hide", HIDING)
def test_things_that_differ_only_inside_differ(hide):
    descriptions = [json.dumps(describe(hide(value)), sort_keys=True) for value in (1, 2, 1)]
    assert descriptions[0] == descriptions[2]
    assert descriptions[0] != descriptions[1]


@pytest.mark.parametrize("tool", [[], ["-m", "cProfile", "-o", os.devnull]])
def test_classes_of_a_script_are_seen_whatever_runs_it(tmp_path, tool):
    script = tmp_path / "study.py"
    script.write_text("""
from optnas.estimation.settings import describe

def made(value):
    class Made:
        by = value
    return Made

print(describe(made(1)) == describe(made(1)), describe(made(1)) == describe(made(2)))
""")
    done = subprocess.run([sys.executable, *tool, script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize(
    "things",
    [
        (True, 1, 1.0, "1"),
        ([1], (1,), {1}, {1: None}, {"1": None}),
        (0.0, -0.0),
        (torch.zeros(4), torch.zeros(2, 2), torch.zeros(4).double(), torch.nn.Parameter(torch.zeros(4))),
        (np.zeros(4), np.zeros((2, 2)), np.zeros(4, np.float32), torch.zeros(4).double()),
        ([lambda x: x + 1, lambda x: x + 2][0], [lambda x: x + 1, lambda x: x + 2][1]),
        (Path, PurePosixPath),
    ],
)
def test_what_python_calls_equal_may_differ(things):
    assert len({json.dumps(describe(thing)) for thing in things}) == len(things)


def test_what_is_pickled_and_read_back_is_the_same():
    for thing in (
        Holder([1, {"a"}]),
        Settings(0.1),
        TensorDataset(torch.arange(3)),
        EarlyStopping("val_acc"),
    ):
        assert describe(pickle.loads(pickle.dumps(thing))) == describe(thing)


def test_views_of_a_file_are_told_apart_without_reading_it(tmp_path):
    np.arange(100).tofile(tmp_path / "a")
    whole = np.memmap(tmp_path / "a", dtype=np.int64, mode="r")
    views = [whole, whole[:50], whole[50:], whole[::2], whole.reshape(10, 10)]
    assert len({json.dumps(describe(view)) for view in views}) == len(views)
    assert describe(np.memmap(tmp_path / "a", dtype=np.int64, mode="r")[50:]) == describe(views[2])
    before = describe(whole)
    np.zeros(100, np.int64).tofile(tmp_path / "a")
    os.utime(tmp_path / "a", (1, 1))
    assert describe(np.memmap(tmp_path / "a", dtype=np.int64, mode="r")) != before


def test_caches_of_an_object_are_no_settings():
    class Cached:
        @functools.cached_property
        def costly(self):
            return 3

    used = Cached()
    before = describe(used)
    assert used.costly == 3
    assert describe(used) == before


def test_another_estimator_is_described_by_its_settings():
    def training(rate):
        return Training(Classification(2, lr=rate), data_of(1), monitor="a", mode="max", max_epochs=1)

    assert describe([training(0.1)]) == describe([training(0.1)])
    assert describe([training(0.1)]) != describe([training(0.2)])


def test_what_cannot_be_seen_says_so_once(caplog):
    class Opaque:
        def __reduce_ex__(self, protocol):
            raise TypeError("made of smoke")

    assert describe(Opaque()) == describe(Opaque())
    [line] = caplog.messages
    assert "Opaque" in line
    assert "made of smoke" in line


def test_studies_and_locks_that_code_refers_to_are_no_settings():
    study = optuna.create_study()
    lock = threading.Lock()

    def callback(trial):
        with lock:
            return study.best_value

    before = describe(callback)
    study.add_trial(optuna.create_trial(value=1.0))
    assert describe(callback) == before


def test_objects_of_ours_are_described_as_in_studies_that_are_stored():
    """A new attribute would make others of them: in `_LATER` stands with which value it says nothing."""
    assert described() == json.loads(STORED.read_text())


def test_a_later_attribute_counts_where_it_says_something():
    x, y = torch.arange(40.0).view(20, 2), torch.arange(20) % 2
    plain, mixed, other = (TensorData((x, y), mix=mix) for mix in (None, random_mixup, random_cutmix))
    assert '"mix"' not in json.dumps(describe(plain))
    assert len({json.dumps(describe(data)) for data in (plain, mixed, other)}) == 3


@pytest.mark.filterwarnings("ignore:Sparse CSR")  # of torch: that it is new
def test_contents_of_tensors_of_every_kind():
    whole = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    sparse = [whole.to_sparse_coo(), whole.to_sparse_csr()]
    others = [whole.T, torch.tensor(1.5), torch.empty(0, 3), torch.randn(3, dtype=torch.cfloat).conj()]
    for tensor in (whole, *sparse, *others):
        assert contents(tensor) != []
        parts = b"".join(part.tobytes() for part in contents(tensor))
        assert parts == b"".join(part.tobytes() for part in contents(tensor.clone()))
        if tensor.numel():
            twice = b"".join(part.tobytes() for part in contents(tensor * 2))
            assert parts != twice
    assert contents(others[-1])[0].tobytes() == others[-1].resolve_conj().numpy().tobytes()
