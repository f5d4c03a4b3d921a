"""Interruptions at every moment: none leaves a trial that nobody runs."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from torch import nn

import optnas.search
from optnas.objective import Objective
from optnas.search.optimize import optimize
from optnas.search.signals import signals_raise, signals_wait
from optnas.storage.open import open_storage

FILES = {Path(optnas.search.__file__).with_name(f"{name}.py") for name in ("loop", "recovery", "signals")}
BEFORE = {"recover", "_without_repeats"}  # no trial is in their hands


def test_the_end_of_a_terminal_is_a_sigterm_unless_ignored():
    with pytest.raises(SystemExit) as ended, signals_raise():
        signal.raise_signal(signal.SIGHUP)
    assert ended.value.code == 128 + signal.SIGTERM
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals_raise():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_that_wait_come_through_in_a_passage_and_in_the_end():
    done = []

    def interrupt(mark):
        signal.raise_signal(signal.SIGINT)
        done.append(mark)

    with signals_wait() as passage:
        interrupt("held back")
        with pytest.raises(KeyboardInterrupt), passage():
            done.append("never")
        with pytest.raises(KeyboardInterrupt), passage():
            interrupt("never")
    with pytest.raises(KeyboardInterrupt), signals_wait():
        interrupt("until the end")
    assert done == ["held back", "until the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_is_not_hidden_by_a_signal_that_waited():
    def fail():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"), signals_wait():
        fail()
    with signals_wait() as passage, passage():
        pass  # nor does it come later


def test_other_threads_leave_signals_alone():
    errors = []

    def work():
        try:
            with signals_raise(), signals_wait() as passage, passage():
                pass
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []


class Lines:
    """Raises a signal before the `n`-th line (from 0) of those in `FILES` that run for the first time."""

    def __init__(self, n, number):
        self.n, self.number = n, number
        self.seen = []

    def __call__(self, frame, event, argument):
        code = frame.f_code
        return self.on_line if Path(code.co_filename) in FILES and code.co_name not in BEFORE else None

    def on_line(self, frame, event, argument):
        line = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        if event == "line" and line not in self.seen:
            self.seen.append(line)
            if len(self.seen) == self.n + 1:
                signal.raise_signal(self.number)
        return self.on_line


def linear(trial):
    return nn.Linear(4, trial.suggest_int("width", 1, 50))


class Score:
    values = {"score": "maximize"}  # noqa: RUF012  # read only

    def example(self, trial):
        return (2, 4)

    def __call__(self, model, trial):
        return {"score": float(model.out_features)}


def test_no_line_between_trials_is_a_bad_moment(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    storage, other = open_storage(url), open_storage(url)
    objective = Objective(linear, Score(), reuse_twins=False)
    bad, n = [], 0
    while True:
        number = (signal.SIGINT, signal.SIGTERM)[n % 2]
        study = optuna.create_study(
            study_name=f"s{n}",
            storage=storage,
            sampler=optuna.samplers.RandomSampler(seed=0),
            direction="maximize",
        )
        optuna.load_study(study_name=f"s{n}", storage=other).ask()
        with other._database.engine.begin() as connection:  # as if of a process that is dead
            connection.exec_driver_sql("UPDATE optnas_owners SET started = 'before'")
        trace, lines = sys.gettrace(), Lines(n, number)
        with signals_raise():  # before the search does so itself
            try:
                sys.settrace(lines)
                optimize(study, objective, n_trials=1)
                interrupted = False
            except (KeyboardInterrupt, SystemExit):
                interrupted = True
            finally:
                sys.settrace(trace)
        if len(lines.seen) <= n:
            break
        ours = [t.number for t in study.trials if t.state == TrialState.RUNNING and storage.owns(t._trial_id)]
        if not interrupted or ours:
            bad.append((lines.seen[n], number.name, ours))
        n += 1
    assert bad == []
    assert n > 50


def test_the_death_of_a_child_is_heard_in_passages_only() -> None:
    """torch's handler raises wherever the main thread is, and that may be where a trial's end is written."""
    heard: list[str] = []

    def loses(where: str) -> None:
        signal.signal(signal.SIGCHLD, lambda number, frame: heard.append(where))

    before = signal.getsignal(signal.SIGCHLD)
    try:
        with signals_wait() as passage:
            with passage():
                loses("in the objective")  # as a data loader does
                signal.raise_signal(signal.SIGCHLD)
            signal.raise_signal(signal.SIGCHLD)
            with passage():
                signal.raise_signal(signal.SIGCHLD)
        assert heard == ["in the objective"] * 2
        signal.raise_signal(signal.SIGCHLD)
        assert len(heard) == 3
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_that_python_would_ignore_comes_through_a_little_later(number, error):
    class Dying:
        def __del__(self):
            signal.raise_signal(number)
            list(range(3))  # where the handler raises: within what ignores exceptions

    def wait():
        Dying()
        time.sleep(5)

    with pytest.raises(error), signals_raise():
        wait()
