"""Who runs a trial: taken once, within the budget, held by a lease, and lost for good, on both engines."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from sqlalchemy.engine import Connection

from optnas import record
from optnas.errors import StorageUnavailableError, StudyGoneError, TrialTakenError
from optnas.storage import schema
from optnas.storage.base import HELD, NEVER, Claim, Seen
from optnas.storage.leases import Loss
from optnas.storage.open import claim, open_storage
from optnas.storage.owners import owners
from optnas.storage.shared import SharedStorage

COUNTS = "optnas:counts"


def wait_for_renewals(storage: SharedStorage, n: int) -> None:
    """Until the lease of the first trial has been renewed so often."""
    of_the_first = sa.select(owners.c.expires).order_by(owners.c.trial_id).limit(1)
    seen: set[float] = set()
    deadline = time.monotonic() + 600
    while len(seen) <= n:
        assert time.monotonic() < deadline
        with storage._database.engine.connect() as connection:
            seen.add(connection.execute(of_the_first).scalar_one())
        time.sleep(0.01)


def test_each_waiting_trial_is_taken_once(url: str, new_study: Any, processes: Any) -> None:
    study, _ = new_study(url)
    for i in range(80):
        study.enqueue_trial({"x": i / 80})
    ids = processes("take", url, 6)
    assert len(ids) == len(set(ids)) == 80
    assert {trial.state for trial in study.trials} == {TrialState.RUNNING}


def test_budget_is_exact(url: str, new_study: Any, processes: Any) -> None:
    study, _ = new_study(url)
    for i in range(7):
        study.enqueue_trial({"x": i / 7})
    processes("search", url, 6)
    trials = study.trials
    assert all(trial.state.is_finished() for trial in trials)
    assert sum(t.state == TrialState.COMPLETE and t.user_attrs.get(COUNTS) is not False for t in trials) == 30
    assert [trial.number for trial in trials] == list(range(len(trials)))


def test_claim_counts_and_prefers_what_was_begun(url: str, new_study: Any) -> None:
    study, storage = new_study(url)
    for outcome in ({}, {COUNTS: False}, {COUNTS: True, "mine": False}, {COUNTS: None}):
        trial = study.ask()
        for key, value in outcome.items():
            trial.set_user_attr(key, value)
        study.tell(trial, 1.0)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.tell(study.ask(), state=TrialState.PRUNED)
    study.enqueue_trial({"x": 0.5})
    begun = claim(study, 7, COUNTS)
    assert (begun.counted, begun.running) == (4, 0)
    study.enqueue_trial({"x": 0.6})
    later = claim(study, 7, COUNTS)
    assert begun.trial_id is not None
    assert later.trial_id is not None
    study.enqueue_trial({"x": 0.7})
    storage.requeue(later.trial_id)
    again = claim(study, 6, COUNTS)
    assert again.trial_id == later.trial_id
    assert claim(study, 6, COUNTS).trial_id is None
    assert claim(study, None, COUNTS).trial_id is not None


def test_nothing_begins_or_goes_on_in_a_study_that_is_not_as_it_was_seen(url: str, new_study: Any) -> None:
    study, storage = new_study(url)
    for trial in [study.ask(), study.ask()]:
        storage.set_trial_system_attr(trial._trial_id, HELD, True)
        storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    held = [trial._trial_id for trial in study.trials]
    seen = Seen.of(study.trials)
    assert (seen.number, seen.running, seen.held) == (1, 0, sum(held))
    assert claim(study, None, COUNTS, seen=NEVER) == Claim(None, 0, 0, 2, refused=True)
    assert claim(study, None, COUNTS, wanted=held[0], seen=seen).trial_id == held[0]
    for wanted in (None, held[1]):
        assert claim(study, None, COUNTS, wanted=wanted, seen=seen) == Claim(None, 0, 1, 1, refused=True)
    # As many run and are held as before, but others.
    storage.set_trial_system_attr(held[0], HELD, True)
    storage.requeue(held[0])
    assert Seen.of(study.trials) == seen
    now = claim(study, None, COUNTS, seen=seen)
    assert study.trials[-1]._trial_id == now.trial_id
    assert claim(study, None, COUNTS, seen=seen).refused
    assert not claim(study, 3, COUNTS, seen=seen).refused  # of a spent budget that is no matter
    study.enqueue_trial({"x": 0.5})
    assert claim(study, None, COUNTS, seen=NEVER).trial_id == study.trials[-1]._trial_id


def test_nothing_acknowledged_is_lost_by_kill(
    url: str, hanging: Callable[[str, float], subprocess.Popen[str]]
) -> None:
    process = hanging(url, 3600.0)
    storage = open_storage(url)
    study = optuna.load_study(study_name="s", storage=storage)
    assert storage.stale_trials(study._study_id) == []
    before = study.trials[0]
    process.kill()
    process.wait()
    (stale,) = storage.stale_trials(study._study_id)  # at once, long before its lease ends
    assert (stale.number, stale.loss, stale.n_attempts) == (0, Loss.DEAD, 1)
    assert stale.process is not None
    assert stale.process.pid == process.pid
    assert storage.requeue(stale)
    assert not storage.requeue(stale)  # somebody was faster
    assert claim(study, 1, COUNTS).trial_id == before._trial_id
    trial = study.trials[0]
    assert trial.params == before.params
    assert trial.params
    assert trial.user_attrs == {record.SEED.name: 7}
    assert trial.intermediate_values == {0: 0.5}


def test_paused_process_gives_way(
    url: str, hanging: Callable[[str, float], subprocess.Popen[str]], seen_by_optuna: Any
) -> None:
    process = hanging(url, 1.0)
    assert process.stdin is not None
    storage = open_storage(url, lease=1.0)
    assert isinstance(storage, SharedStorage)
    study = optuna.load_study(study_name="s", storage=storage)
    wait_for_renewals(storage, 8)  # a lease is renewed four times before it ends
    process.stdin.write("\n")
    process.stdin.flush()
    os.waitpid(process.pid, os.WUNTRACED)
    assert process.poll() is None
    deadline = time.monotonic() + 600
    while not (stale := storage.stale_trials(study._study_id)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert stale[0].loss == Loss.EXPIRED
    assert storage.requeue(stale[0])
    trial = optuna.Trial(study, claim(study, 1, COUNTS).trial_id or 0)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate()
    assert out.split() == ["TrialTakenError", "TrialTakenError"]
    assert study.trials[0].intermediate_values == {0: 0.5}
    trial.report(0.7, 1)
    study.tell(trial, 0.7)
    assert seen_by_optuna(url)[0].value == 0.7
    assert seen_by_optuna(url)[0].intermediate_values == {0: 0.5, 1: 0.7}


def test_every_write_of_a_former_owner_is_refused(url: str, new_study: Any, seen_by_optuna: Any) -> None:
    study, mine = new_study(url)
    trial = study.ask()
    trial_id = trial._trial_id
    other = open_storage(url, lease=1.0)
    other.set_trial_state_values(trial_id, TrialState.WAITING)
    other_study = optuna.load_study(study_name="s", storage=other)
    assert claim(other_study, 1, COUNTS).trial_id == trial_id
    trial.suggest_float("x", 0, 1)  # in memory only, so nobody can object yet
    for write in (
        lambda: mine.flush(trial_id),
        lambda: mine.set_trial_param(trial_id, "y", 0.5, FloatDistribution(0, 1)),
        lambda: trial.set_user_attr("a", 1),
        lambda: mine.set_trial_system_attr(trial_id, "a", 1),
        lambda: trial.report(1.0, 0),
        lambda: mine.set_trial_state_values(trial_id, TrialState.WAITING),
        lambda: mine.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0]),
    ):
        with pytest.raises(TrialTakenError, match="Trial 0 was taken over"):
            write()
    assert not mine.owns(trial_id)
    for view in (study.trials, other_study.trials, seen_by_optuna(url)):
        assert view[0].state == TrialState.RUNNING
        assert (view[0].params, view[0].user_attrs, view[0].intermediate_values) == ({}, {}, {})


@pytest.fixture
def plain(url: str) -> Iterator[Callable[[], optuna.Study]]:
    """The study as plain Optuna opens it."""
    opened: list[optuna.storages.RDBStorage] = []

    def load() -> optuna.Study:
        opened.append(optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://")))
        return optuna.load_study(study_name="s", storage=opened[-1])

    yield load
    for storage in opened:
        storage.engine.dispose()


def test_a_running_trial_of_plain_optuna_is_never_taken_over_and_waited_for_while_it_lives(
    url: str, new_study: Any, plain: Any, caplog: pytest.LogCaptureFixture
) -> None:
    study, storage = new_study(url, lease=2.0)
    theirs = plain().ask()
    began = time.monotonic()
    while (spent := time.monotonic() - began) < 4.0:  # it lives: it says something now and then
        step = int(1000 * spent)
        theirs.set_user_attr("n", step)
        theirs.report(0.5, step)
        assert claim(study, 1, COUNTS).trial_id is None
        assert storage.stale_trials(study._study_id) == []
        time.sleep(0.05)
    assert caplog.text.count("Waiting for trial 0, which another program than optnas runs") == 1
    assert "study.tell(0, state=optuna.trial.TrialState.FAIL)" in caplog.text
    deadline = time.monotonic() + 600
    while (claimed := claim(study, 1, COUNTS)).trial_id is None:  # and now says nothing
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert claimed.running == 0
    assert claim(study, 1, COUNTS).trial_id is None  # our own trial is waited for
    theirs.report(0.7, 7)
    study.tell(1, 1.0)
    assert [t.state for t in study.trials] == [TrialState.RUNNING, TrialState.COMPLETE]
    assert study.trials[0].intermediate_values[7] == 0.7


def test_a_claim_meets_another_study_under_the_same_id(tmp_path: Path, new_study: Any) -> None:
    """Deleted and begun anew by plain Optuna, in SQLite, which gives ids again."""
    url = f"sqlite:///{tmp_path}/nas.db"
    study, storage = new_study(url)
    trial_id = claim(study, 5, COUNTS).trial_id
    assert trial_id is not None
    optuna.delete_study(study_name="s", storage=url)
    other = optuna.create_study(study_name="s", storage=url)
    assert other._study_id == study._study_id
    with pytest.raises(StudyGoneError, match=r"Study 's' in .* is not what it was: somebody deleted it"):
        claim(study, 5, COUNTS)
    assert other.ask()._trial_id == trial_id
    with pytest.raises(TrialTakenError):
        storage.set_trial_user_attr(trial_id, "mine", True)
    assert [t.user_attrs for t in other.trials] == [{}]


def test_a_study_keeps_its_incarnation(url: str, new_study: Any, plain: Any) -> None:
    study, _ = new_study(url)
    another = optuna.load_study(study_name="s", storage=open_storage(url))
    for s in (study, another, study, another):
        assert claim(s, None, COUNTS).trial_id is not None
    assert len(study._storage.get_study_system_attrs(study._study_id)) == 1
    plain().ask()
    assert [t.number for t in study.trials] == list(range(5))


def test_pickled_copy_and_forked_child_own_nothing(url: str, new_study: Any) -> None:
    study, storage = new_study(url)
    trial = study.ask()
    copy = pickle.loads(pickle.dumps(storage))
    assert storage.owns(trial._trial_id)
    assert not copy.owns(trial._trial_id)
    assert copy.get_trial(trial._trial_id).state == TrialState.RUNNING
    assert copy.lease == storage.lease


def test_a_forked_child_owns_nothing_and_writes_nothing(url: str, new_study: Any) -> None:
    study, storage = new_study(url)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)  # in memory only
    waiting = storage.create_new_trial(study._study_id, optuna.trial.create_trial(state=TrialState.WAITING))
    writes: list[Callable[[], object]] = [
        lambda: trial.report(666.0, 0),
        lambda: trial.set_user_attr("who", "child"),
        lambda: storage.flush(trial._trial_id),
        lambda: study.tell(trial, 1.0),
        lambda: storage.requeue(trial._trial_id),
        lambda: claim(study, None, COUNTS),
        lambda: study.ask(),
        lambda: study.enqueue_trial({"x": 0.5}),
        lambda: storage.set_trial_state_values(waiting, TrialState.RUNNING),
        lambda: study.set_user_attr("seed", 1),
        lambda: storage.settle_study_user_attr(study._study_id, "seed", 1),
        lambda: storage.delete_study(study._study_id),
    ]
    if (pid := os.fork()) == 0:
        refused = 0
        try:
            for write in writes:
                try:
                    write()
                except StorageUnavailableError as error:
                    refused += "forked child" in str(error)
            if storage.owns(trial._trial_id) or len(study.trials) != 2:
                refused = 0
        finally:
            os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == len(writes)
    assert storage.owns(trial._trial_id)
    study.tell(trial, 1.0)
    assert [(t.state, t.intermediate_values, t.user_attrs) for t in study.trials] == [
        (TrialState.COMPLETE, {}, {}),
        (TrialState.WAITING, {}, {}),
    ]
    assert study.user_attrs == {}


def test_a_child_that_is_forked_between_trials_works_on(
    url: str, new_study: Any, seen_by_optuna: Any
) -> None:
    study, _ = new_study(url)
    study.tell(study.ask(), 1.0)
    if (pid := os.fork()) == 0:
        try:
            study.tell(study.ask(), 2.0)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert [t.value for t in study.trials] == [1.0, 2.0]


def test_code_that_holds_the_interpreter_longer_than_a_lease_loses_no_trial(url: str, processes: Any) -> None:
    """C code may keep the thread that renews leases from running; the process lives on this machine."""
    assert processes("busy", url, 0.5) == ["0", "[]", "COMPLETE"]


@pytest.fixture
def beside_a_deleted_study(tmp_path: Path) -> tuple[optuna.Study, SharedStorage]:
    """A study with a running trial, in a process of which another study was deleted in the middle of one."""
    url = f"sqlite:///{tmp_path}/nas.db"
    storage = open_storage(url, lease=0.4)
    assert isinstance(storage, SharedStorage)
    kept = optuna.create_study(study_name="kept", storage=storage)
    kept.ask()
    optuna.create_study(study_name="deleted", storage=storage).ask().set_user_attr("unflushed", True)
    optuna.delete_study(study_name="deleted", storage=url)  # by plain Optuna, as its dashboard does
    return kept, storage


def test_a_deleted_study_does_not_hide_the_trials_of_another(
    beside_a_deleted_study: tuple[optuna.Study, SharedStorage],
) -> None:
    study, _ = beside_a_deleted_study
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]


def test_a_deleted_study_does_not_end_the_leases_of_another(
    beside_a_deleted_study: tuple[optuna.Study, SharedStorage],
) -> None:
    _, storage = beside_a_deleted_study
    wait_for_renewals(storage, 8)


def test_leases_that_end_while_the_database_is_away_are_renewed_before_others_take_the_trials(
    url: str, new_study: Any
) -> None:
    study, mine = new_study(url, lease=3600.0)
    study.ask()
    lost = study.ask()
    with mine._database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE optnas_owners SET expires = expires - 7200")
    other = open_storage(url, lease=0.5)
    assert isinstance(other, SharedStorage)
    assert other.stale_trials(study._study_id) == []
    mine._ledger.own[lost._trial_id].lost = True  # as if its process were gone
    mine._beat()
    deadline = time.monotonic() + 600
    while not (stale := other.stale_trials(study._study_id)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [(trial.number, trial.loss) for trial in stale] == [(1, Loss.EXPIRED)]


def test_who_was_told_by_somebody_else_writes_nothing_more(
    url: str, new_study: Any, seen_by_optuna: Any
) -> None:
    study, mine = new_study(url, lease=3600.0)
    trial = study.ask()
    trial.set_user_attr("unflushed", True)
    plain = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    optuna.load_study(study_name="s", storage=plain).tell(0, 7.0)
    plain.engine.dispose()
    mine._beat()  # learns of it, and tells nobody
    with pytest.raises(TrialTakenError, match="or told its result"):
        mine.flush(trial._trial_id)
    assert study.trials[0].value == 7.0
    assert seen_by_optuna(url)[0].user_attrs == {}


def test_nor_while_it_may_be_read_and_is_locked(url: str, new_study: Any) -> None:
    study, mine = new_study(url, lease=3600.0)
    study.ask()
    other, third = (open_storage(url, lease=0.01) for _ in range(2))
    assert isinstance(other, SharedStorage)
    assert isinstance(third, SharedStorage)
    with mine._database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE optnas_owners SET expires = expires - 7200")
    held, over = threading.Event(), threading.Event()

    def hold(connection: Connection, again: bool) -> None:
        schema.lock_study(connection, study._study_id)
        held.set()
        assert over.wait(600)

    with ThreadPoolExecutor() as pool:
        holding = pool.submit(third._database.write, hold)
        assert held.wait(600)
        looking = pool.submit(other.stale_trials, study._study_id)
        assert not wait([looking], timeout=0.5).done
        over.set()
        holding.result()
        assert looking.result() == []
