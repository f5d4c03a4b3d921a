import atexit
import ctypes
import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import cloudpickle
import optuna
import pytest
import sqlalchemy as sa
import torch
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.errors import SearchFailedError
from optnas.launch.launcher import LocalProcesses
from optnas.objective import Objective
from optnas.record import Why, counts
from optnas.search.optimize import optimize
from optnas.search.recovery import MAX_KILLS
from optnas.search.study import create_study
from optnas.search.workers import Search, make_job, run_workers, serve
from optnas.storage.leases import start_time
from optnas.storage.open import open_storage


def linear(trial):
    return nn.Linear(4, trial.suggest_int("width", 1, 10_000))


class Sleeping:
    values = {"score": "maximize"}  # noqa: RUF012  # read only

    def __init__(self, seconds=0.2, kill=(), fail=False, full=False):
        self.seconds, self.kill, self.fail, self.full = seconds, kill, fail, full

    def example(self, trial):
        return (2, 4)

    def __call__(self, model, trial):
        time.sleep(self.seconds)
        trial.set_user_attr("device", os.environ.get("CUDA_VISIBLE_DEVICES"))
        if trial.number in self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.fail:
            raise RuntimeError("out of luck")
        return {"score": float(model.out_features)}


class Meeting(Sleeping):
    """No trial ends before each of `n` processes has one."""

    def __init__(self, folder, n):
        super().__init__()
        self.folder, self.n = folder, n
        folder.mkdir()

    def __call__(self, model, trial):
        (self.folder / str(os.getpid())).touch()
        wait_for(lambda: len(os.listdir(self.folder)) >= self.n)
        return super().__call__(model, trial)


class Unreadable(optuna.samplers.RandomSampler):
    def __setstate__(self, state):
        raise RuntimeError("no such sampler here")


def study_of(objective, tmp_path, **options):
    return create_study(objective, study_name="s", storage=f"sqlite:///{tmp_path}/s.db", seed=0, **options)


def states(study):
    return [t.state for t in study.trials]


def test_workers_share_budget_threads_and_accelerators(tmp_path, monkeypatch):
    # No machine of ours has accelerators: only what workers are told about them is tested.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    objective = Objective(linear, Meeting(tmp_path / "met", 3), reuse_twins=False)
    study = study_of(objective, tmp_path, sampler=optuna.samplers.RandomSampler(seed=0))
    optimize(study, objective, n_trials=12, n_workers=3)
    assert states(study) == [TrialState.COMPLETE] * 12
    pids = {record.ATTEMPTS.of(t)[0]["pid"] for t in study.trials}
    assert len(pids) == 3
    assert os.getpid() not in pids
    assert (
        len({t.params["width"] for t in study.trials}) > 8
    )  # their generators differ, chance repeats little
    assert {(a["pid"], a["threads"]) for t in study.trials for a in record.ATTEMPTS.of(t)} == {
        (pid, 2) for pid in pids
    }
    devices = {(record.ATTEMPTS.of(t)[0]["pid"], t.user_attrs["device"]) for t in study.trials}
    assert sorted(device for _, device in devices) == ["0", "1", "2"]


def test_a_trial_that_kills_its_worker_again_and_again_fails_and_the_search_goes_on(tmp_path, caplog):
    objective = Objective(linear, Sleeping(kill=(1,)))
    study = study_of(objective, tmp_path)
    optimize(study, objective, n_trials=4, n_workers=2)
    assert study.trials[1].state == TrialState.FAIL
    assert f"{MAX_KILLS} processes that ran this trial died" in record.why(study.trials[1])
    assert len(record.ATTEMPTS.of(study.trials[1])) == MAX_KILLS
    assert sum(map(counts, study.trials)) == 4
    assert f"{MAX_KILLS} workers died ({MAX_KILLS} by SIGKILL)" in caplog.text


def test_so_does_a_trial_that_kills_its_worker_before_anything_is_stored(tmp_path):
    parent = os.getpid()

    def killing(trial):
        width = trial.suggest_int("width", 1, 10_000)
        if width == 7 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return nn.Linear(4, width)

    objective = Objective(killing, Sleeping())
    study = study_of(objective, tmp_path)
    study.enqueue_trial({"width": 1})
    study.enqueue_trial({"width": 7})
    optimize(study, objective, n_trials=3, n_workers=2)
    assert states(study)[1] == TrialState.FAIL
    assert [a["how"] for a in record.ATTEMPTS.of(study.trials[1])] == ["killed"] * MAX_KILLS
    assert len({a["pid"] for a in record.ATTEMPTS.of(study.trials[1])}) == MAX_KILLS
    assert sum(map(counts, study.trials)) == 3


class Dying(Sleeping):
    """Reports one more epoch in each process, which dies of it until there are enough."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def __call__(self, model, trial):
        done = len(trial.study.trials[trial.number].intermediate_values)
        trial.report(0.5, done)
        if done + 1 < self.epochs:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"score": 0.5}


def test_workers_that_die_are_replaced_as_long_as_trials_get_further(tmp_path, monkeypatch):
    monkeypatch.setattr("optnas.search.workers.MAX_KILLS", 1)
    objective = Objective(linear, Dying(epochs=3))
    study = study_of(objective, tmp_path)
    run_workers(study, objective, Search(1), LocalProcesses(1), show_progress=False)
    assert states(study) == [TrialState.COMPLETE]


def test_workers_that_die_at_once_end_the_search_with_their_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr("optnas.search.workers.MAX_KILLS", 1)
    objective = Objective(linear, Sleeping())
    study = study_of(objective, tmp_path)
    study.sampler = Unreadable()
    with pytest.raises(SearchFailedError, match=r"3 workers died one(?s:.*)no such sampler here"):
        optimize(study, objective, n_trials=1, n_workers=2)
    assert states(study) == []


class Unclean(optuna.samplers.RandomSampler):
    """Its process dies as it leaves, as those of some drivers do."""

    def __setstate__(self, state):
        self.__dict__.update(state)
        atexit.register(os.kill, os.getpid(), signal.SIGKILL)


def test_workers_that_die_when_all_is_done_are_not_replaced(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("optnas.search.workers.MAX_KILLS", 1)
    objective = Objective(linear, Sleeping())
    study = study_of(objective, tmp_path, sampler=Unclean(seed=0))
    run_workers(study, objective, Search(2), LocalProcesses(2), show_progress=False)
    assert states(study) == [TrialState.COMPLETE] * 2
    assert "died" not in caplog.text  # they had said that nothing was left to do


def test_the_reason_of_failing_workers_reaches_the_user(tmp_path):
    objective = Objective(linear, Sleeping(seconds=0.0, fail=True))
    study = study_of(objective, tmp_path)
    with pytest.raises(SearchFailedError, match=r"test_workers.py:\d+ in __call__: out of luck"):
        optimize(study, objective, n_trials=100, n_workers=2)
    assert TrialState.RUNNING not in states(study)


def test_a_full_disk_ends_the_search_with_the_reason_and_costs_no_trial(tmp_path):
    objective = Objective(linear, Sleeping(seconds=0.0, full=True))
    study = study_of(objective, tmp_path)
    with pytest.raises(SearchFailedError, match="No space left on device"):
        optimize(study, objective, n_trials=4, n_workers=2)
    assert set(states(study)) == {TrialState.WAITING}


def test_workers_get_the_password_of_the_storage(tmp_path, monkeypatch):
    """The servers that tests start ask for none, so what a worker would open is looked at."""
    objective = Objective(linear, Sleeping())
    study = study_of(objective, tmp_path)
    url = "postgresql+psycopg://me:secret@host/nas"
    monkeypatch.setattr(study._storage._database, "url", sa.make_url(url))
    with make_job(study, objective, Search(1)) as job:
        job.body.seek(0)
        assert b"secret" not in job.body.read()
        assert cloudpickle.loads(job.secret)["storage"] == url


def test_what_workers_do_while_their_parent_is_held_up_is_shown(tmp_path, monkeypatch, capsys):
    class Seen(Sleeping):
        def __call__(self, model, trial):
            wait_for((tmp_path / "seen").exists)
            return super().__call__(model, trial)

    objective = Objective(linear, Seen())
    study, watching = study_of(objective, tmp_path), study_of(objective, tmp_path)
    get_trials = study.get_trials

    def slow(**options):
        """The trials as they were before the trial and its worker ended."""
        trials = get_trials(**options)
        if any(t.state == TrialState.RUNNING for t in trials) and not (tmp_path / "seen").exists():
            (tmp_path / "seen").touch()
            wait_for(lambda: states(watching) == [TrialState.COMPLETE])
            wait_for(lambda: not is_alive(record.ATTEMPTS.of(watching.trials[0])[0]["pid"]))
        return trials

    monkeypatch.setattr(study, "get_trials", slow)
    run_workers(study, objective, Search(1), LocalProcesses(1), show_progress="json")
    told = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert told == ["start", "trial", "best", "end"]


def test_a_job_larger_than_a_pipe_reaches_its_worker(tmp_path):
    sleeping = Sleeping()
    sleeping.data = os.urandom(40_000_000)
    objective = Objective(linear, sleeping)
    study = study_of(objective, tmp_path)
    optimize(study, objective, n_trials=2, n_workers=2)
    assert states(study) == [TrialState.COMPLETE] * 2


class Leaving(Sleeping):
    """Ends its process as if all were done, in two ways."""

    def __call__(self, model, trial):
        if trial.number == 1:
            way = sys.exit if len(record.attempts(trial)) == 1 else os._exit
            way(0)
        return super().__call__(model, trial)


def test_success_is_the_budget_not_an_exit_status(tmp_path, caplog):
    objective = Objective(linear, Leaving())
    study = study_of(objective, tmp_path)
    optimize(study, objective, n_trials=3, n_workers=2)
    assert sum(map(counts, study.trials)) == 3
    assert study.trials[1].state == TrialState.FAIL
    assert f"gave up: {MAX_KILLS}" in record.why(study.trials[1])
    assert "by exit status 0" in caplog.text


def test_workers_that_all_end_so_stop_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr("optnas.search.workers.MAX_KILLS", 1)
    objective = Objective(linear, Sleeping(seconds=0.0))
    study = study_of(objective, tmp_path)
    study.sampler = Exiting()
    with pytest.raises(SearchFailedError, match=r"2 workers died one after the other \(exit status 0\)"):
        run_workers(study, objective, Search(3), LocalProcesses(1), show_progress=False)


class Exiting(optuna.samplers.RandomSampler):
    def __setstate__(self, state):
        os._exit(0)


class Stopping(Sleeping):
    """Trial 1 calls for the end once another trial runs, which is slow."""

    def __call__(self, model, trial):
        if trial.number == 1:
            trial.study.stop()
        else:
            time.sleep(3.0)
        return {"score": 1.0}


def test_stop_in_one_worker_ends_the_search_in_all_after_their_trials(tmp_path):
    objective = Objective(linear, Stopping(), reuse_twins=False)
    study = study_of(objective, tmp_path)
    optimize(study, objective, n_trials=1000, n_workers=2)
    assert set(states(study)) == {TrialState.COMPLETE}
    assert 2 <= len(study.trials) <= 4


def test_workers_call_callbacks_after_their_own_trials(tmp_path):
    def note(study, trial):
        (tmp_path / f"seen-{trial.number}-{os.getpid()}").touch()

    objective = Objective(linear, Sleeping(), reuse_twins=False)
    study = study_of(objective, tmp_path)
    optimize(study, objective, n_trials=3, n_workers=2, callbacks=[note])
    ran = {f"seen-{t.number}-{record.ATTEMPTS.of(t)[0]['pid']}" for t in study.trials}
    assert {file.name for file in tmp_path.glob("seen-*")} == ran


def test_a_callback_that_fails_ends_the_search_with_its_reason(tmp_path):
    def fail(study, trial):
        raise ValueError("no such callback")

    objective = Objective(linear, Sleeping(), reuse_twins=False)
    study = study_of(objective, tmp_path)
    with pytest.raises(SearchFailedError, match=r"test_workers.py:\d+ in fail: no such callback"):
        optimize(study, objective, n_trials=30, n_workers=2, callbacks=[fail])


def test_what_cannot_be_pickled_is_said_before_a_worker_is_started(tmp_path):
    lock = threading.Lock()
    objective = Objective(linear, Sleeping())
    with pytest.raises(ValueError, match=r"cannot be handed to workers: cannot pickle '_thread.lock'"):
        optimize(
            study_of(objective, tmp_path),
            objective,
            n_trials=1,
            n_workers=2,
            callbacks=[lambda study, trial: lock.locked()],
        )


class Hanging(Sleeping):
    def __call__(self, model, trial):
        if trial.number == 1:
            threading.Event().wait()
        return super().__call__(model, trial)


def test_a_trial_that_takes_too_long_fails_with_the_place_where_it_was(tmp_path, caplog):
    objective = Objective(linear, Hanging(), reuse_twins=False)
    study = study_of(objective, tmp_path)
    optimize(study, objective, n_trials=3, n_workers=2, trial_timeout=20.0)
    assert sum(map(counts, study.trials)) == 3
    [failed] = study.get_trials(states=(TrialState.FAIL,))
    reason = record.Reason.of(failed)
    assert failed.number == 1
    assert reason.kind is Why.TIME
    assert re.fullmatch(
        r"ran longer than trial_timeout=20 s; it was at test_workers.py:\d+ in __call__", reason.words
    )
    assert "died" not in caplog.text


def test_a_trial_that_lets_no_other_thread_run_is_lost_and_given_up(tmp_path, monkeypatch):
    """C code that holds the interpreter: not even the thread that watches gets a turn."""

    class Holding(Sleeping):
        def __call__(self, model, trial):
            if trial.number == 1:
                ctypes.PyDLL(None).sleep(3600)  # unlike CDLL, it does not let go of the interpreter
            return super().__call__(model, trial)

    monkeypatch.setattr("optnas.search.recovery.MAX_KILLS", 1)
    objective = Objective(linear, Holding(), reuse_twins=False)
    study = study_of(objective, tmp_path)
    optimize(study, objective, n_trials=2, n_workers=1, trial_timeout=15.0)
    assert sum(map(counts, study.trials)) == 2
    assert record.Reason.of(study.trials[1]).kind is Why.GAVE_UP


@pytest.mark.parametrize("trial_timeout", [0, -1.0])
def test_no_time_for_a_trial_is_refused(trial_timeout):
    objective = Objective(linear, Sleeping())
    with pytest.raises(ValueError, match=f"trial_timeout={trial_timeout} must be above 0"):
        optimize(create_study(objective), objective, n_trials=1, trial_timeout=trial_timeout)


def test_a_limit_for_a_trial_needs_a_storage_that_a_worker_can_open():
    objective = Objective(linear, Sleeping())
    with pytest.raises(ValueError, match=r"n_workers=1: workers are .*\(trial_timeout.*need a storage"):
        optimize(create_study(objective), objective, n_trials=1, trial_timeout=1.0)


@pytest.mark.parametrize("n_workers", [0, -1])
def test_a_search_by_nobody_is_refused(n_workers):
    objective = Objective(linear, Sleeping())
    with pytest.raises(ValueError, match=f"n_workers={n_workers}"):
        optimize(create_study(objective), objective, n_trials=1, n_workers=n_workers)


def test_a_storage_in_memory_cannot_be_shared():
    objective = Objective(linear, Sleeping())
    with pytest.raises(
        ValueError, match=r"n_workers=2.* need a storage that processes can share.*sqlite:///"
    ):
        optimize(create_study(objective), objective, n_trials=2, n_workers=2)


SCRIPT = """
    import sys, time, optnas
    from torch import nn

    delay = float(sys.argv[2])

    class Sleeping:  # defined in an unguarded script: workers get it by value
        values = {"score": "maximize"}
        def example(self, trial): return (2, 4)
        def __call__(self, model, trial):
            time.sleep(delay if trial.number > 1 else 0.0)
            return {"score": 1.0}

    objective = optnas.Objective(lambda trial: nn.Linear(4, trial.suggest_int("width", 1, 9999)), Sleeping())
    study = optnas.create_study(objective, study_name="s", storage=sys.argv[1])
    optnas.optimize(study, objective, n_trials=4, n_workers=2)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_when_the_parent_ends_its_workers_end_and_nothing_stays_running(tmp_path, number):
    script = tmp_path / "search.py"
    script.write_text(textwrap.dedent(SCRIPT))
    url = f"sqlite:///{tmp_path}/s.db"
    with subprocess.Popen([sys.executable, str(script), url, "3600"], stderr=subprocess.DEVNULL) as process:
        try:
            storage = open_storage(url)
            study = wait_for(lambda: optuna.load_study(study_name="s", storage=storage))
            wait_for(lambda: states(study).count(TrialState.RUNNING) == 2 and len(study.trials) == 4)
        finally:
            os.kill(process.pid, number)
    if number == signal.SIGTERM:  # it does not just die, but waits for its workers
        assert process.returncode == 143
        assert states(study).count(TrialState.WAITING) == 2
    wait_for(lambda: states(study).count(TrialState.WAITING) == 2)
    workers = {a["pid"] for t in study.trials for a in record.attempts(t)}
    wait_for(lambda: not any(map(is_alive, workers)))

    if number == signal.SIGKILL:  # and another goes on
        subprocess.run([sys.executable, str(script), url, "0"], check=True, capture_output=True)
        assert states(study) == [TrialState.COMPLETE] * 4


def test_an_interruption_while_workers_are_started_leaves_none(tmp_path, monkeypatch):
    started = []

    class Noted(subprocess.Popen):
        def __init__(self, *args, **options):
            if started:
                raise KeyboardInterrupt
            super().__init__(*args, **options)
            started.append(self)

    objective = Objective(linear, Sleeping())
    study = study_of(objective, tmp_path)
    monkeypatch.setattr(subprocess, "Popen", Noted)
    with pytest.raises(KeyboardInterrupt):
        optimize(study, objective, n_trials=2, n_workers=2)
    assert [worker.returncode for worker in started] == [-signal.SIGTERM]


class Stubborn(Sleeping):
    """Hears no SIGTERM."""

    def __call__(self, model, trial):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        trial.report(0.5, 0)
        time.sleep(3600)
        return {"score": 0.5}


def test_a_worker_that_does_not_leave_is_killed_after_the_time_of_grace(tmp_path, monkeypatch):
    monkeypatch.setattr("optnas.search.workers.GRACE", 0.5)
    objective = Objective(linear, Stubborn())
    study = study_of(objective, tmp_path)

    def interrupt():
        watching = optuna.load_study(study_name="s", storage=open_storage(f"sqlite:///{tmp_path}/s.db"))
        wait_for(lambda: any(t.intermediate_values for t in watching.trials))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_workers(study, objective, Search(1), LocalProcesses(1), show_progress=False)
    [trial] = study.trials
    [attempt] = record.ATTEMPTS.of(trial)
    assert (trial.state, trial.intermediate_values) == (TrialState.WAITING, {0: 0.5})
    assert attempt["how"] == "killed"
    assert not is_alive(attempt["pid"])


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while True:
        try:
            if value := condition():
                return value
        except KeyError:  # the study is not there yet
            pass
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)


def is_alive(pid):
    return start_time(pid) != ""


def test_another_process_may_join(tmp_path):
    objective = Objective(linear, Sleeping(), reuse_twins=False)
    study = study_of(objective, tmp_path)
    joining = threading.Thread(target=optimize, args=(study_of(objective, tmp_path), objective, 10))
    joining.start()
    optimize(study, objective, n_trials=10)
    joining.join()
    assert states(study) == [TrialState.COMPLETE] * 10


def test_a_worker_whose_study_was_deleted_says_so_without_a_traceback(tmp_path, capsys):
    objective = Objective(linear, Sleeping())
    study = study_of(objective, tmp_path)
    with make_job(study, objective, Search(3)) as job:
        optuna.delete_study(study_name=study.study_name, storage=study._storage)
        job.body.seek(0)
        farewell = serve(job.secret, job.body.read(), None, threading.Event(), leave_now=None)
    assert farewell.way == "failed"
    assert f"There is no study '{study.study_name}'" in farewell.words
    assert "Traceback" not in capsys.readouterr().err
