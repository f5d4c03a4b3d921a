"""On a real Ray cluster of this machine: what holds for local workers holds when nodes are lost."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from torch import nn

from optnas import record
from optnas.launch.ray_workers import RayWorkers
from optnas.objective import Objective
from optnas.search.optimize import optimize
from optnas.search.study import create_study

pytest.importorskip("ray", reason="these tests need the extra optnas[ray]")

BENCHMARKS = Path(__file__).parents[2] / "studies" / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[Any]:
    """The longer version of these tests, for people to run, as a module that workers can import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.setenv("RAY_AUTH_MODE", "disabled")  # its token would be written into the home directory
        yield importlib.import_module("ray_chaos")
        del sys.modules["ray_chaos"], sys.modules["chaos"]


@pytest.fixture(scope="module")
def nodes(benchmark: Any) -> Iterator[Any]:
    """A head without room for workers, and a node with room for one."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    nodes = benchmark.Nodes()
    try:
        nodes.add()
        yield nodes
    finally:
        nodes.close()
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert [p for p in left if p.status() != psutil.STATUS_ZOMBIE] == []


class Sleeping:
    values = {"score": "maximize"}  # noqa: RUF012  # read only

    def __call__(self, model: nn.Module, trial: Any) -> dict[str, float]:
        trial.set_user_attr("threads", os.environ["OMP_NUM_THREADS"])
        time.sleep(0.2)
        return {"score": float(trial.params["width"])}


def linear(trial: Any) -> nn.Module:
    return nn.Linear(4, trial.suggest_int("width", 1, 10_000))


def test_a_file_is_no_storage_for_several_nodes(nodes: Any, tmp_path: Path) -> None:
    objective = Objective(linear, Sleeping(), example=(2, 4))
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/s.db")
    with pytest.raises(ValueError, match=r"s.db is a file, .*this Ray cluster has 2 nodes. Use Postgres"):
        optimize(study, objective, n_trials=1, workers=RayWorkers(1, address=nodes.address))
    assert study.trials == []


def test_nodes_and_workers_are_lost_and_nothing_else(
    benchmark: Any, nodes: Any, tmp_path: Path, postgres: Any
) -> None:
    nodes.add()
    workers, ends = RayWorkers(2, address=nodes.address), benchmark.Ends(nodes)
    study, kills = benchmark.chaos.search(
        tmp_path, postgres.new_database(), n_trials=5, n_kills=2, workers=workers, end=ends
    )
    assert ends.made == {"process": 1, "node": 1}
    found = benchmark.chaos.account(study, tmp_path, kills)
    assert found.hits == 2
    assert (found.counted, found.others) == (5, [])
    assert (found.missing, found.lost, found.different) == (0, 0, [])
    assert found.repeated <= found.hits


def test_workers_that_find_no_place_keep_nobody_waiting(
    nodes: Any, tmp_path: Path, postgres: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("optnas.launch.ray_workers.SILENCE", 0.0)
    for node in nodes.nodes[1:]:
        nodes.remove(node)
    objective = Objective(linear, Sleeping(), example=(2, 4), reuse_twins=False)
    study = create_study(objective, storage=postgres.new_database(), seed=0)
    workers = RayWorkers(3, {"CPU": 0.75}, address=nodes.address)
    optimize(study, objective, n_trials=3, workers=workers)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert {trial.user_attrs["threads"] for trial in study.trials} == {"1"}
    assert len({a["pid"] for trial in study.trials for a in record.ATTEMPTS.of(trial)}) == 1
    assert "workers wait for a place in the Ray cluster: each needs 0.75 CPU" in caplog.text
