"""What storage.py guarantees of what trials hold, on both engines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from optnas.storage import schema
from optnas.storage.base import Claim
from optnas.storage.open import claim, open_storage
from optnas.storage.shared import SharedStorage

COUNTS = "optnas:counts"


def objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", 0, 1)
    kind = trial.suggest_categorical("kind", ["a", "b", None])
    n = trial.suggest_int("n", 1, 9, log=True)
    for step in range(3):
        trial.report(x / (step + 1), step)
    trial.set_user_attr("note", {"kind": kind, "list": [1, 2.5]})
    trial.set_constraint("size", n - 5)
    if trial.number % 4 == 3:
        raise optuna.TrialPruned
    return x if trial.number % 4 else float("inf")


def test_the_database_is_plain_optuna(url: str, new_study: Any, seen_by_optuna: Any) -> None:
    study, storage = new_study(url)
    study.enqueue_trial({"x": 0.25, "kind": None, "n": 3}, user_attrs={"mine": True})
    study.optimize(objective, n_trials=9)
    written = seen_by_optuna(url)
    assert written[0].params == {"x": 0.25, "kind": None, "n": 3}
    assert storage.get_all_trials(study._study_id) == written  # from memory
    assert open_storage(url).get_all_trials(study._study_id) == written  # from the database


def test_mixes_with_plain_optuna(url: str, new_study: Any) -> None:
    ours, _ = new_study(url)
    plain_storage = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    theirs = optuna.load_study(study_name="s", storage=plain_storage)
    for study in (ours, theirs, ours, theirs):
        study.optimize(objective, n_trials=2)
    assert [trial.number for trial in ours.trials] == list(range(8))
    assert ours.trials == theirs.trials
    assert ours.user_attrs == {}
    theirs.set_user_attr("folder", "runs")
    assert ours.user_attrs == {"folder": "runs"}
    running = theirs.ask()
    assert ours.trials[-1].state == TrialState.RUNNING
    theirs.tell(running, 1.0)
    assert ours.trials[-1].value == 1.0
    mine = ours.ask()
    mine.suggest_float("x", 0, 1)
    theirs.tell(mine.number, 2.0)  # a person elsewhere ends it
    with pytest.raises(UpdateFinishedTrialError):
        mine.report(0.0, 0)
    assert ours.trials[-1].value == 2.0
    plain_storage.engine.dispose()


def test_buffer_is_written_by_flush_report_read_and_end(
    url: str, new_study: Any, seen_by_optuna: Any
) -> None:
    study, storage = new_study(url, lease=3600.0)  # which is not renewed meanwhile: that would write, too

    def stored() -> set[str]:
        return set(seen_by_optuna(url)[-1].params)

    trial = study.ask()
    trial.suggest_float("a", 0, 1)
    assert trial.params.keys() == {"a"}
    assert stored() == set()
    storage.flush(trial._trial_id)
    assert stored() == {"a"}
    trial.suggest_float("b", 0, 1)
    trial.report(0.0, 0)
    assert stored() == {"a", "b"}
    trial.suggest_float("c", 0, 1)
    assert set(study.trials[-1].params) == {"a", "b", "c"} == stored()
    trial.suggest_float("d", 0, 1)
    study.tell(trial, 0.0)
    assert stored() == {"a", "b", "c", "d"}


def test_lease_thread_flushes(url: str, new_study: Any, seen_by_optuna: Any) -> None:
    study, _ = new_study(url, lease=0.4)
    study.ask().suggest_float("x", 0, 1)
    deadline = time.monotonic() + 600
    while not seen_by_optuna(url)[-1].params:
        assert time.monotonic() < deadline


def test_few_statements(url: str, new_study: Any) -> None:
    """Plain Optuna needs 3 statements a parameter and 4 a report."""
    study, storage = new_study(url, lease=3600.0)  # of which no renewal is counted
    statements: list[str] = []
    commits: list[None] = []
    sa.event.listen(
        storage._database.engine, "before_cursor_execute", lambda c, cur, s, *_: statements.append(s)
    )
    sa.event.listen(storage._database.engine, "commit", lambda c: commits.append(None))

    def many(trial: optuna.Trial) -> float:
        for i in range(25):
            trial.suggest_float(f"x{i}", 0, 1)
        for step in range(5):
            trial.report(0.0, step)
        return 0.0

    study.optimize(many, n_trials=1)  # the first learns that its names are new
    statements.clear()
    commits.clear()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the message of each trial reads the best one
    study.optimize(many, n_trials=4)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    assert len(statements) <= 4 * 30
    assert len(commits) == 4 * 7  # begin, five reports, end


def test_bad_values_are_refused_at_once_and_spoil_nothing(
    url: str, new_study: Any, seen_by_optuna: Any
) -> None:
    study, storage = new_study(url)
    trial = study.ask()
    with pytest.raises(TypeError, match="JSON"):
        trial.set_user_attr("model", object())
    with pytest.raises(ValueError, match="513 characters; Optuna stores 512"):
        trial.set_user_attr("k" * 513, 1)
    trial.suggest_float("x", 0, 1)
    with pytest.raises(ValueError, match="different distribution kind"):
        storage.set_trial_param(study.ask()._trial_id, "x", 1, optuna.distributions.IntDistribution(0, 3))
    study.tell(trial, 1.0)
    assert seen_by_optuna(url)[0].value == 1.0


def test_claim_on_foreign_storage() -> None:
    study = optuna.create_study(storage=open_storage(None))
    study.enqueue_trial({"x": 0.5})
    first = claim(study, 2, COUNTS)
    assert first.trial_id is not None
    assert optuna.Trial(study, first.trial_id).suggest_float("x", 0, 1) == 0.5
    second = claim(study, 2, COUNTS)
    assert second.trial_id is not None
    study.tell(1, 1.0)
    # Nobody knows whether the first still runs: it holds up no budget.
    assert claim(study, 2, COUNTS).trial_id is not None
    study.tell(0, 1.0)
    assert claim(study, 2, COUNTS) == Claim(None, counted=2, running=1)


# ---- databases of other versions ----


@pytest.mark.parametrize(("version", "advice"), [("v3.0.0.d", "storage upgrade"), ("v9", "updating optuna")])
def test_schema_of_another_optuna(tmp_path: Path, new_study: Any, version: str, advice: str) -> None:
    _, storage = new_study(tmp_path / "nas.db")
    with storage._database.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{version}'")
    with pytest.raises(RuntimeError, match=advice):
        open_storage(tmp_path / "nas.db")


def test_unknown_schema_is_left_to_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "SCHEMA", "v3.1.0.x")  # as if Optuna had gone on
    with pytest.warns(UserWarning, match="which this optnas does not know"):
        storage = open_storage(tmp_path / "nas.db")
    assert not isinstance(storage, SharedStorage)
    study = optuna.create_study(storage=storage)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert len(study.trials) == 2
