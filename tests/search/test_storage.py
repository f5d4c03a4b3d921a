"""What storage.py guarantees, on both engines, with real processes that are really killed."""

from __future__ import annotations

import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from optnas.search.storage import Loss, SharedStorage, TrialTakenError, claim, open_storage

PROCESSES = Path(__file__).with_name("storage_processes.py")


def run(command: str, *arguments: object) -> list[str]:
    """The lines that a command of storage_processes.py prints; it must succeed."""
    words = [sys.executable, str(PROCESSES), command, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def hanging() -> Iterator[Callable[[str, float], subprocess.Popen[str]]]:
    """Starts processes that have begun a trial and acknowledged some of it."""
    started: list[subprocess.Popen[str]] = []

    def start(url: str, lease: float) -> subprocess.Popen[str]:
        words = [sys.executable, str(PROCESSES), "hang", url, str(lease)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    return new_url()


def shared(url: str, **options: float) -> SharedStorage:
    storage = open_storage(url, **options)
    assert isinstance(storage, SharedStorage)
    return storage


def new_study(url: str, **options: float) -> tuple[optuna.Study, SharedStorage]:
    storage = shared(url, **options)
    study = optuna.create_study(
        study_name="s", storage=storage, sampler=optuna.samplers.RandomSampler(seed=0)
    )
    return study, storage


def seen_by_optuna(url: str) -> list[optuna.trial.FrozenTrial]:
    """The trials as plain Optuna reads them."""
    plain = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    trials = optuna.load_study(study_name="s", storage=plain).trials
    plain.engine.dispose()
    return trials


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


def test_the_database_is_plain_optuna(url: str) -> None:
    study, storage = new_study(url)
    study.enqueue_trial({"x": 0.25, "kind": None, "n": 3}, user_attrs={"mine": True})
    study.optimize(objective, n_trials=9)
    written = seen_by_optuna(url)
    assert written[0].params == {"x": 0.25, "kind": None, "n": 3}
    assert storage.get_all_trials(study._study_id) == written  # from memory
    assert shared(url).get_all_trials(study._study_id) == written  # from the database


def test_mixes_with_plain_optuna(url: str) -> None:
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


def test_buffer_is_written_by_flush_report_read_and_end(url: str) -> None:
    study, storage = new_study(url)

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


def test_lease_thread_flushes(url: str) -> None:
    study, _ = new_study(url, lease=0.4)
    study.ask().suggest_float("x", 0, 1)
    deadline = time.monotonic() + 10
    while not seen_by_optuna(url)[-1].params:
        assert time.monotonic() < deadline


def test_few_statements(url: str) -> None:
    """Plain Optuna needs 3 statements a parameter and 4 a report."""
    study, storage = new_study(url)
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


def test_bad_values_are_refused_at_once_and_spoil_nothing(url: str) -> None:
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


def test_processes_that_start_at_one_moment(url: str) -> None:
    run("start", url, 8)
    assert [trial.number for trial in seen_by_optuna(url)] == list(range(8))


def test_each_waiting_trial_is_taken_once(url: str) -> None:
    study, _ = new_study(url)
    for i in range(80):
        study.enqueue_trial({"x": i / 80})
    ids = run("take", url, 6)
    assert len(ids) == len(set(ids)) == 80
    assert {trial.state for trial in study.trials} == {TrialState.RUNNING}


def test_budget_is_exact(url: str) -> None:
    study, _ = new_study(url)
    for i in range(7):
        study.enqueue_trial({"x": i / 7})
    run("search", url, 6)
    trials = study.trials
    assert all(trial.state.is_finished() for trial in trials)
    assert sum(t.state == TrialState.COMPLETE and "twin_of" not in t.user_attrs for t in trials) == 30
    assert [trial.number for trial in trials] == list(range(len(trials)))


def test_claim_counts_and_prefers_what_was_begun(url: str) -> None:
    study, storage = new_study(url)
    for outcome in ({}, {"twin_of": 0}, {"infeasible": "too large"}):
        trial = study.ask()
        for key, value in outcome.items():
            trial.set_user_attr(key, value)
        study.tell(trial, 1.0)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.tell(study.ask(), state=TrialState.PRUNED)
    study.enqueue_trial({"x": 0.5})
    begun = claim(study, 5)
    assert (begun.counted, begun.running, begun.attempt) == (2, 0, 0)
    study.enqueue_trial({"x": 0.6})
    later = claim(study, 5)
    assert begun.trial_id is not None
    assert later.trial_id is not None
    study.enqueue_trial({"x": 0.7})
    storage.requeue(later.trial_id)
    again = claim(study, 4)
    assert (again.trial_id, again.attempt) == (later.trial_id, 1)
    assert claim(study, 4).trial_id is None
    assert claim(study, None).trial_id is not None


def test_claim_on_foreign_storage() -> None:
    study = optuna.create_study(storage=open_storage(None))
    study.enqueue_trial({"x": 0.5})
    first = claim(study, 2)
    assert first.trial_id is not None
    assert optuna.Trial(study, first.trial_id).suggest_float("x", 0, 1) == 0.5
    assert claim(study, 2).trial_id is not None
    assert claim(study, 2).trial_id is None


def test_nothing_acknowledged_is_lost_by_kill(
    url: str, hanging: Callable[[str, float], subprocess.Popen[str]]
) -> None:
    process = hanging(url, 60.0)
    storage = shared(url)
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
    got = claim(study, 1)
    assert (got.trial_id, got.attempt) == (before._trial_id, 1)
    trial = study.trials[0]
    assert trial.params == before.params
    assert trial.params
    assert trial.user_attrs == {"seed": 7}
    assert trial.intermediate_values == {0: 0.5}


def test_paused_process_gives_way(url: str, hanging: Callable[[str, float], subprocess.Popen[str]]) -> None:
    process = hanging(url, 1.0)
    storage = shared(url)
    study = optuna.load_study(study_name="s", storage=storage)
    time.sleep(1.5)
    assert storage.stale_trials(study._study_id) == []  # it renews its lease
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 20
    while not (stale := storage.stale_trials(study._study_id)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert stale[0].loss == Loss.EXPIRED
    assert storage.requeue(stale[0])
    trial = optuna.Trial(study, claim(study, 1).trial_id or 0)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate("\n", timeout=60)
    assert out.split() == ["TrialTakenError", "TrialTakenError"]
    assert study.trials[0].intermediate_values == {0: 0.5}
    trial.report(0.7, 1)
    study.tell(trial, 0.7)
    assert seen_by_optuna(url)[0].value == 0.7
    assert seen_by_optuna(url)[0].intermediate_values == {0: 0.5, 1: 0.7}


def test_every_write_of_a_former_owner_is_refused(url: str) -> None:
    study, mine = new_study(url)
    trial = study.ask()
    trial_id = trial._trial_id
    other = shared(url)
    other.set_trial_state_values(trial_id, TrialState.WAITING)
    other_study = optuna.load_study(study_name="s", storage=other)
    assert claim(other_study, 1).trial_id == trial_id
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


def test_running_trials_of_plain_optuna_are_stale(url: str) -> None:
    study, storage = new_study(url)
    plain = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    left = optuna.load_study(study_name="s", storage=plain).ask()
    left.suggest_float("x", 0, 1)
    study.ask()
    (stale,) = storage.stale_trials(study._study_id)
    assert (stale.trial_id, stale.loss, stale.process) == (left._trial_id, Loss.UNOWNED, None)
    assert storage.take_over(stale)
    storage.set_trial_user_attr(stale.trial_id, "reason", "left RUNNING")
    storage.set_trial_state_values(stale.trial_id, TrialState.FAIL)
    assert seen_by_optuna(url)[0].user_attrs == {"reason": "left RUNNING"}
    assert storage.stale_trials(study._study_id) == []
    plain.engine.dispose()


def test_pickled_copy_and_forked_child_own_nothing(url: str) -> None:
    study, storage = new_study(url)
    trial = study.ask()
    copy = pickle.loads(pickle.dumps(storage))
    assert storage.owns(trial._trial_id)
    assert not copy.owns(trial._trial_id)
    assert copy.get_trial(trial._trial_id).state == TrialState.RUNNING
    assert copy.lease == storage.lease


def test_eight_processes_wait_for_a_long_lock(tmp_path: Path) -> None:
    """Another program holds the file for ten seconds."""
    url = f"sqlite:///{tmp_path}/nas.db"
    new_study(url)

    def hold() -> None:
        time.sleep(1.0)
        holder = sqlite3.connect(tmp_path / "nas.db", timeout=30)
        holder.execute("BEGIN EXCLUSIVE")
        time.sleep(10.0)
        holder.rollback()
        holder.close()

    thread = threading.Thread(target=hold)
    thread.start()
    told = run("load", url, 4)
    thread.join()
    assert len(seen_by_optuna(url)) == sum(map(int, told)) >= 8
