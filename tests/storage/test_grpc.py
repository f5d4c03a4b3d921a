"""A storage behind Optuna's gRPC proxy can be read, and no search may work on it, for a reason seen here."""

from __future__ import annotations

import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, GrpcStorageProxy, run_grpc_proxy_server
from torch import nn

from optnas.objective import Objective
from optnas.search.optimize import optimize
from optnas.storage.open import open_storage, storage_of


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[tuple[BaseStorage, Any]]:
    """A storage, and a client of the server that serves it."""
    behind = open_storage(tmp_path / "s.db")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {"host": "127.0.0.1", "port": port}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        threading.Thread(target=run_grpc_proxy_server, args=(behind,), kwargs=options, daemon=True).start()
        proxy = GrpcStorageProxy(**options)
    proxy.wait_server_ready(timeout=60)
    yield behind, proxy
    proxy.close()


def test_a_search_is_refused_since_the_server_would_own_its_trials(proxied: tuple[Any, Any]) -> None:
    behind, proxy = proxied
    study = optuna.create_study(study_name="s", storage=proxy)
    study.enqueue_trial({"width": 3})
    objective = Objective(
        lambda trial: nn.Linear(4, trial.suggest_int("width", 1, 9)),
        lambda model, trial: {"value": 1.0},
        values={"value": "minimize"},
        example=(2, 4),
    )
    with pytest.raises(
        ValueError, match=r"GrpcStorageProxy\(...\) passes on .*URL of the database behind it"
    ):
        optimize(study, objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["WAITING"]
    assert storage_of(study).get_n_trials(study._study_id) == 1  # what only looks is welcome

    trial = study.ask()
    assert behind.owns(trial._trial_id)  # so its lease is renewed, whatever becomes of this process
    study.tell(trial, 1.0)
