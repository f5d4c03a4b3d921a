"""Real processes for the tests of storage: `python storage_processes.py COMMAND URL [ARGUMENT]`.

Imports once, then forks, so that eight processes begin at one moment and do not take eight times as long.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

import optuna

from optnas.search.storage import claim, open_storage

optuna.logging.set_verbosity(optuna.logging.ERROR)


def at_once(n: int, work: Callable[[int], None]) -> None:
    """Run `work(i)` in `n` processes that begin together; exit with the number of those that failed."""
    read, write = os.pipe()
    children = []
    for i in range(n):
        if (pid := os.fork()) == 0:
            os.close(write)
            os.read(read, 1)  # until the parent closes its end
            try:
                work(i)
                sys.stdout.flush()
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        children.append(pid)
    os.close(read)
    os.close(write)
    sys.exit(sum(os.waitpid(pid, 0)[1] != 0 for pid in children))


def tell(number: int) -> None:
    os.write(1, f"{number}\n".encode())  # whole, among the lines of other processes


def open_study(url: str, **options: float) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=open_storage(url, **options), load_if_exists=True)


def start(url: str, n: str) -> None:
    """Open an empty database and run a trial."""
    at_once(
        int(n), lambda i: open_study(url).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    )


def take(url: str, n: str) -> None:
    """Take every waiting trial; print the ids. Half of the processes ask as Optuna does, half claim."""

    def work(i: int) -> None:
        study = open_study(url)
        while True:
            trial_id = study._pop_waiting_trial_id() if i % 2 else claim(study, 80).trial_id
            if trial_id is None:
                return
            tell(trial_id)

    at_once(int(n), work)


def search(url: str, n: str) -> None:
    """Run trials until 30 count; every third is a twin, every fifth fails."""

    def work(i: int) -> None:
        study = open_study(url)
        while (got := claim(study, 30)).counted < 30:
            if got.trial_id is None:
                time.sleep(0.01)
                continue
            trial = optuna.Trial(study, got.trial_id)
            x = trial.suggest_float("x", 0, 1)
            trial.report(x, 0)
            if trial.number % 3 == 0:
                trial.set_user_attr("twin_of", 1)
            if trial.number % 5 == 0:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, x)

    at_once(int(n), work)


def load(url: str, over: str) -> None:
    """Eight processes run trials until the file `over` is there, then one more each; print how many."""

    def work(i: int) -> None:
        study, n, last = open_study(url), 0, False
        while not last:
            last = os.path.exists(over)
            trial = study.ask()
            trial.report(trial.suggest_float("x", 0, 1), 0)
            study.tell(trial, 0.0)
            n += 1
        tell(n)

    at_once(8, work)


def hang(url: str, lease: str) -> None:
    """Begin a trial, acknowledge some, and hang, to be killed; or, told to go on, pause and then try to."""
    study = open_study(url, lease=float(lease))
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr("seed", 7)
    study._storage.flush(trial._trial_id)  # type: ignore[attr-defined]  # a SharedStorage
    trial.report(0.5, 0)
    trial.set_user_attr("unflushed", True)
    print(trial.number, flush=True)
    sys.stdin.readline()
    with study._storage._lock:  # type: ignore[attr-defined]  # not in a transaction that others would wait for
        os.kill(os.getpid(), signal.SIGSTOP)
    for write in (lambda: trial.report(0.9, 1), lambda: study.tell(trial, 1.0)):
        try:
            write()
            print("written", flush=True)
        except Exception as error:
            print(type(error).__name__, flush=True)


if __name__ == "__main__":
    command: Callable[..., None] = globals()[sys.argv[1]]
    command(*sys.argv[2:])
