"""What many workers ask of one Postgres server, and how long those wait who look at a study of 50,000 trials.

    python studies/benchmarks/scale.py trials [--trials 50000] [--storage URL]
    python studies/benchmarks/scale.py workers [--workers 50] [--trials 200] [--seconds 10] [--storage URL]

`trials`: a study is filled by statements of many rows (ten answers, ten reports, seven attributes a trial; a
tenth was pruned halfway), in a SQLite file unless a storage is given. Prints how long `optnas ls`, a
report, the dashboard's pages and the claim of a trial take. Commands are processes of their own, and the time
that one takes to begin stands beside them.

`workers`: forked processes run the loop of real workers, each with connections of its own. Their trials ask
ten questions, report ten times, and sleep between; the time in the storage is what the calls of the database
take a worker, waiting for others included. Without a storage, a server of Postgres is started here, on the
same processors. Below the figures stands what they come to for 1,000 workers. `--filled N` begins with N
finished trials, which is where the cost of a claim would show. Workers begin one after the other within the
time of one trial; with `--at-once`, all trials begin and end in the same moments. Needs optnas[bench].
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import warnings
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState, create_trial
from torch import nn

from optnas import Objective, create_study, private, record
from optnas.search.loop import work
from optnas.storage import schema
from optnas.storage.database import Database
from optnas.storage.open import claim, open_storage
from optnas.storage.shared import SharedStorage

sys.path.insert(0, str(Path(__file__).parent))
from storage import server

REPORTS = 10
QUESTIONS = 10
NAME = "scale"


def space(trial: Any) -> nn.Module:
    widths = [trial.suggest_int(f"width.{i}", 1, 64) for i in range(QUESTIONS)]
    return nn.Linear(4, sum(widths))


class Sleeping:
    """An estimate that takes so many seconds, and reports between."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, model: nn.Module, trial: Any) -> dict[str, float]:
        for step in range(REPORTS):
            time.sleep(self.seconds / REPORTS)
            trial.report(float(step), step)
        return {"score": float(sum(trial.params.values()))}


def make_study(url: str, seconds: float) -> tuple[optuna.Study, Objective]:
    objective = Objective(
        space, Sleeping(seconds), values={"score": "maximize"}, example=(2, 4), reuse_twins=False
    )
    options: dict[str, Any] = {
        "sampler": optuna.samplers.RandomSampler(),
        "pruner": optuna.pruners.NopPruner(),
    }
    return create_study(objective, study_name=NAME, storage=open_storage(url), **options), objective


def database_of(study: optuna.Study) -> Database:
    storage = private.storage(study)
    assert isinstance(storage, SharedStorage)
    return storage._database


# ---- a study of many trials ----


def fill(url: str, n_trials: int) -> optuna.Study:
    """A study with so many finished trials."""
    study, _ = make_study(url, 0.0)
    random = np.random.default_rng(0)
    names = [f"width.{i}" for i in range(QUESTIONS)]
    ranges: dict[str, Any] = {name: optuna.distributions.IntDistribution(1, 64) for name in names}
    texts = {name: distribution_to_json(distribution) for name, distribution in ranges.items()}
    start = schema.to_utc(datetime.now())

    def write(connection: sa.Connection, again: bool) -> None:
        first = (connection.execute(sa.select(sa.func.max(schema.trials.c.trial_id))).scalar() or 0) + 1
        for begin in range(0, n_trials, 1000):
            rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for number in range(begin, min(begin + 1000, n_trials)):
                trial, key = finished(random, ranges, number), {"trial_id": first + number}
                times = {"datetime_start": start, "datetime_complete": start}
                of_study = {"study_id": private.study_id(study), "number": number, "state": trial.state}
                rows["trials"].append({**key, **of_study, **times})
                for name, text in texts.items():
                    answer = {"param_name": name, "param_value": float(trial.params[name])}
                    rows["params"].append({**key, **answer, "distribution_json": text})
                for step, value in trial.intermediate_values.items():
                    report = {"intermediate_value": value, "intermediate_value_type": "FINITE"}
                    rows["reports"].append({**key, "step": step, **report})
                for name, told in trial.user_attrs.items():
                    rows["user_attrs"].append({**key, "key": name, "value_json": json.dumps(told)})
                for value in trial.values or ():
                    rows["values"].append({**key, "objective": 0, "value": value, "value_type": "FINITE"})
            for name, table_rows in rows.items():
                connection.execute(sa.insert(vars(schema)[name]), table_rows)

    database = database_of(study)
    database.write(write)
    if not database.is_sqlite:  # ids were given by hand
        with database.engine.connect() as connection:
            query = "SELECT setval(pg_get_serial_sequence('trials', 'trial_id'), max(trial_id)) FROM trials"
            connection.execute(sa.text(query))
            connection.execute(sa.text("ANALYZE"))
            connection.commit()
    return study


def finished(random: np.random.Generator, ranges: dict[str, Any], number: int) -> FrozenTrial:
    params = {name: int(random.integers(1, 65)) for name in ranges}
    value = float(sum(params.values()) + random.normal())
    pruned = number % 10 == 3
    curve = {step: value * (1 - 0.5 ** (step + 1)) for step in range(REPORTS // 2 if pruned else REPORTS)}
    facts = {"n_params": 5 * sum(params.values()), "flops": 8 * sum(params.values())}
    attempt = {"host": "a", "pid": 1 + number % 50, "started": 1000.0 + number, "ended": 1010.0 + number}
    return create_trial(
        state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
        value=None if pruned else value,
        params=params,
        distributions=ranges,
        intermediate_values=curve,
        user_attrs={
            record.FACTS.name: facts,
            record.METRICS.name: {"score": value},
            record.ASKED.name: {},
            record.ATTEMPTS.name: [attempt],
            record.SEED.name: number,
            record.FINGERPRINT.name: f"{number:032x}",
            record.DURATION.name: 10.0,
        },
    )


def measure_trials(url: str, n_trials: int, folder: Path) -> None:
    where = "SQLite" if url.startswith("sqlite") else "Postgres"
    print(f"| {n_trials:,} trials, {where} | seconds |\n|---|---|", flush=True)
    show("(filled)", lambda: fill(url, n_trials))

    def shell(*words: str) -> Callable[[], object]:
        command = [sys.executable, "-c", "from optnas.cli import main; main()", *words]
        return lambda: subprocess.run(command, check=True, capture_output=True, cwd=folder)

    show("`optnas --help`: a process begins", shell("--help"))
    show("`optnas ls`", shell("ls", url))
    show("`optnas report`, html", shell("report", "--storage", url))
    show("`optnas report`, md", shell("report", "--storage", url, "--format", "md"))
    from optnas.dashboard.serve import make_server

    server = make_server(open_storage(url), "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = f"http://127.0.0.1:{server.server_port}"
    number = private.study_id(make_study(url, 0.0)[0])
    for path, what in (
        ("/api/studies", "list of studies"),
        (f"/api/studies/{number}?after=0", "a study, the first time"),
        (f"/api/studies/{number}?after=0", "a study, again"),
    ):
        show(f"dashboard: {what}", lambda path=path: urllib.request.urlopen(at + path, timeout=900).read())
    server.shutdown()
    study, _ = make_study(url, 0.0)
    show("claim of a trial, the first of a process", lambda: claim(study, None, record.COUNTS.name))
    show("claim of a trial", lambda: claim(study, None, record.COUNTS.name))
    show("all trials, read whole", lambda: make_study(url, 0.0)[0].get_trials(deepcopy=False))


def show(what: str, call: Callable[[], object]) -> None:
    began = time.perf_counter()
    call()
    print(f"| {what} | {time.perf_counter() - began:.2f} |", flush=True)


# ---- many workers ----


def simulate(url: str, n_trials: int, seconds: float, gate: Barrier, told: Any, after: float) -> None:
    """One worker, in a process of its own."""
    spent, patiently = 0.0, Database.patiently

    def timed(self: Database, *arguments: Any, **options: Any) -> Any:
        nonlocal spent
        began = time.perf_counter()
        try:
            return patiently(self, *arguments, **options)
        finally:
            if threading.current_thread() is threading.main_thread():
                spent += time.perf_counter() - began

    study, objective = make_study(url, seconds)
    gate.wait()
    time.sleep(after)
    Database.patiently = timed  # type: ignore[method-assign]
    began, busy = time.perf_counter(), time.process_time()
    try:
        n_done = sum(1 for _ in work(study, objective, n_trials, None))
    except Exception as error:
        told.put({"error": f"{type(error).__name__}: {error}"})
        return
    whole, busy = time.perf_counter() - began, time.process_time() - busy
    told.put({"trials": n_done, "storage": spent, "whole": whole, "processor": busy})


def measure_workers(
    url: str, n_workers: int, n_trials: int, seconds: float, n_filled: int, *, at_once: bool
) -> None:
    study = fill(url, n_filled) if n_filled else make_study(url, seconds)[0]
    engine = sa.create_engine(database_of(study).url, isolation_level="AUTOCOMMIT")
    warm, objective = make_study("sqlite://", 0.0)  # what torch loads for a first trial, children have then
    warm.optimize(objective, n_trials=1)
    context = multiprocessing.get_context("fork")
    gate, told = context.Barrier(n_workers + 1), context.Queue()
    given = (url, n_filled + n_trials, seconds, gate, told)
    step = 0.0 if at_once else seconds / n_workers
    workers = [context.Process(target=simulate, args=(*given, i * step)) for i in range(n_workers)]
    for worker in workers:
        worker.start()
    gate.wait()
    before, began, most = counters(engine), time.perf_counter(), 0
    while any(worker.is_alive() for worker in workers) and told.qsize() < n_workers:
        with engine.connect() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            most = max(most, connection.execute(sa.text(query)).scalar_one() - 1)
        time.sleep(0.5)
    took = time.perf_counter() - began
    outputs = [told.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    time.sleep(2.0)  # the server counts with a delay
    after = counters(engine)
    errors = [output["error"] for output in outputs if "error" in output]
    fine = [output for output in outputs if "error" not in output]
    trials = study.get_trials(deepcopy=False)[n_filled:]
    n_counted = sum(map(record.counts, trials))
    per = {name: (after[name] - before[name]) / len(trials) for name in after}
    storage = sum(worker["storage"] for worker in fine) / len(trials)
    busy = sum(worker["processor"] for worker in fine) / len(trials)
    rows = {
        "workers": n_workers,
        "  that ended by an error": len(errors),
        "trials asked for": n_trials,
        "  that count": n_counted,
        "  others": len(trials) - n_counted,
        "finished before": n_filled,
        "seconds": took,
        "load of the machine at the end": os.getloadavg()[0],
        "connections at most": most,
        "a trial: transactions": per["transactions"],
        "a trial: rows read": per["read"],
        "a trial: rows written": per["written"],
        "a trial: bytes": per["bytes"],
        "a trial: seconds of a worker's processor": busy,
        "a trial: seconds in the storage": storage,
        "  of trials of 10 s: s / (10 + s), in %": 100 * storage / (10 + storage),
    }
    print(f"| what | {n_workers} workers, trials of {seconds:g} s |\n|---|---|")
    for what, number in rows.items():
        print(f"| {what} | {number:,.4g} |")
    for error in errors:
        print(error)
    beats = 1000 * 4 / 60
    print("\n1,000 workers whose trials take 10 s begin and end 1000 / 10 = 100 trials a second:")
    n, rows_written, n_bytes = per["transactions"], per["written"], per["bytes"]
    print(f"  transactions a second: 100 * {n:.1f} + 1000 * 4 / 60 (leases) = {100 * n + beats:,.0f}")
    print(f"  rows written a second: 100 * {rows_written:.0f} = {100 * rows_written:,.0f}")
    print(f"  bytes a day: 100 * 86,400 * {n_bytes:.0f} = {100 * 86400 * n_bytes / 1e9:,.1f} GB")
    print(f"  connections: 1000 * {most} / {n_workers} = {1000 * most / n_workers:,.0f}")


def counters(engine: sa.Engine) -> dict[str, float]:
    query = (
        "SELECT xact_commit + xact_rollback AS transactions, tup_fetched AS read, "
        "tup_inserted + tup_updated + tup_deleted AS written, pg_database_size(datname) AS bytes "
        "FROM pg_stat_database WHERE datname = current_database()"
    )
    with engine.connect() as connection:
        return dict(connection.execute(sa.text(query)).mappings().one())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("trials", "workers"))
    parser.add_argument("--trials", type=int, help="50,000, or four for each worker")
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0, help="that a trial takes")
    parser.add_argument("--filled", type=int, default=0)
    parser.add_argument("--at-once", action="store_true", help="all workers begin in the same moment")
    parser.add_argument("--storage")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")
    if options.what == "workers":
        n_trials = options.trials or 4 * options.workers
        with server(options.storage) as url:
            n_workers, seconds = options.workers, options.seconds
            measure_workers(url, n_workers, n_trials, seconds, options.filled, at_once=options.at_once)
        return
    with tempfile.TemporaryDirectory() as folder:
        url = options.storage or f"sqlite:///{folder}/nas.db"
        measure_trials(url, options.trials or 50_000, Path(folder))


if __name__ == "__main__":
    main()
