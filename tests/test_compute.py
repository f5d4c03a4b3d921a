"""The benchmark of equal compute: its statistics, what it counts, and that it goes on where it was cut."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scipy.stats import ttest_1samp, ttest_ind

from optnas import TensorData, record

SCRIPT = Path(__file__).parents[1] / "studies" / "benchmarks" / "compute.py"


@pytest.fixture
def compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script, in a folder of its own; what it imports from studies/ is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    spec = importlib.util.spec_from_file_location("compute", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "compute", module)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("digits_cnn", None)


@pytest.fixture
def small(compute: ModuleType) -> Any:
    """The digits, a few of them, for two epochs."""
    task = compute.digits()
    (x, y), (x_val, y_val), (x_test, y_test) = task.data.train, task.data.val, task.data.test
    data = TensorData((x[:200], y[:200]), (x_val[:60], y_val[:60]), (x_test[:60], y_test[:60]), batch_size=64)
    return replace(task, data=data, max_epochs=2)


def row(task: str, method: str, search: int, anew: list[float], in_hand: float = 0.5) -> dict[str, Any]:
    numbers = {"paid": 4.0, "trials": 9, "complete": 3, "seconds": 2.0, "processor": 1.5, "found": 0.25}
    return {
        "task": task,
        "method": method,
        "search": search,
        "trainings": 4.0,
        "anew_found": [0.5, 0.7],
        "in_hand": in_hand,
        "anew": anew,
        **numbers,
    }


def test_an_interval_is_students(compute: ModuleType) -> None:
    a, b = [0.3, 1.4, 0.2, 2.0], [5.0, 4.0, 4.5]
    found = compute.Interval.of(a)
    expected = ttest_1samp(a, 0).confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx(tuple(expected))
    both = compute.Interval.of(a, b)  # of two groups the mean is half of a Welch test of a against -b
    expected = ttest_ind(a, [-value for value in b], equal_var=False).confidence_interval(0.95)
    assert (2 * (both.mean - both.half), 2 * (both.mean + both.half)) == pytest.approx(tuple(expected))
    assert str(compute.Interval.of([1.0])) == "+1.00"
    assert str(compute.Interval.of([1.0, 1.0])) == "+1.00 ± 0.00"


def test_differences_are_of_searches_not_of_trainings(compute: ModuleType) -> None:
    done = {}
    for method in compute.METHODS:
        for search in range(3):
            # Trainings scatter, and searches too, but each of ours is one point ahead of theirs.
            ahead = 0.01 * (method == "optnas")
            anew = [0.8 + 0.02 * search + ahead - 0.1, 0.8 + 0.02 * search + ahead + 0.1]
            done["toy", method, search] = row("toy", method, search, anew, in_hand=0.9 - ahead)
    head, _, line = compute.overview(done, ["toy"], range(3))
    cells = dict(
        zip(*([c.strip() for c in text.strip("|").split("|")] for text in (head, line)), strict=True)
    )
    assert cells["optnas"] == "83.00"
    assert cells["random"] == "82.00 (+1.00 ± 0.00)"
    assert cells["best restart by hand"] == "90.00 (-1.00 ± 0.00)"
    _, _, first, *_ = compute.details(done, ["toy"], range(3))
    assert first == "| toy | optnas | 4.0 | 9 | 3 | 2 | 2 | 0.250 | 0.600 | 83.00 | 89.00 |"


def test_only_whole_rounds_count(compute: ModuleType) -> None:
    done = {("toy", method, search): {} for method in compute.METHODS for search in range(3)}
    assert compute.whole(done, ["toy"], 5) == range(3)
    del done["toy", "random", 1]
    assert compute.whole(done, ["toy"], 5) == range(1)
    assert compute.whole(done, ["toy", "other"], 5) == range(0)


def test_a_line_that_was_cut_and_other_budgets_are_not_read(compute: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    assert compute.read(file, 4.0) == {}
    other = {**row("toy", "optnas", 1, [0.5]), "trainings": 8.0}
    lines = [json.dumps(row("toy", "optnas", 0, [0.5])), json.dumps(other), '{"task": "toy", "meth']
    file.write_text("\n".join(lines))
    assert list(compute.read(file, 4.0)) == [("toy", "optnas", 0)]


def test_every_method_pays_for_each_epoch_once_and_starts_from_the_same_seed(
    compute: ModuleType, small: Any, tmp_path: Path
) -> None:
    seeds = set()
    for method, search in compute.METHODS.items():
        before = compute.Paid.epochs
        winner = search(small, 2.2, 5, tmp_path / method)
        paid, trials = compute.Paid.epochs - before, winner.study.trials
        # No training begins after the fifth epoch; ours, which keeps some for a final, not after the fourth.
        assert 5 - (method == "optnas") <= paid <= 6, method
        assert paid == sum(map(record.n_reports, trials)), method
        assert 0 <= winner.in_hand <= 1
        seeds.add(record.SEED.of(trials[0]))
    assert len(seeds) == 1


def test_a_search_is_a_line_of_the_file(compute: ModuleType, small: Any) -> None:
    found = json.loads(json.dumps(compute.run(small, "toy", "by hand", 0, 1.0, n_anew=2)))
    assert found.keys() >= row("toy", "by hand", 0, []).keys()
    assert (found["paid"], found["trials"], found["complete"]) == (1.0, 1, 1)
    assert len(found["anew"]) == 2
    done = {("toy", method, 0): found for method in compute.METHODS}
    assert len(compute.details(done, ["toy"], range(1))) == 2 + len(compute.METHODS)


def test_what_is_done_is_not_done_again(
    compute: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (json.dumps(row("digits", method, 0, [0.9])) for method in compute.METHODS)
    (tmp_path / "some.jsonl").write_text("\n".join(lines) + "\n")
    before = (tmp_path / "some.jsonl").read_text()
    words = ["--task", "digits", "--searches", "1", "--trainings", "4", "--file", "some.jsonl"]
    monkeypatch.setattr(sys, "argv", ["compute.py", *words])
    compute.main()
    assert compute.Paid.epochs == 0
    assert (tmp_path / "some.jsonl").read_text() == before
    printed = capsys.readouterr().out
    assert printed.startswith("1 searches a method, 4 trainings each.\n")
    assert "| digits | 90.00 | 90.00 (+0.00) |" in printed
