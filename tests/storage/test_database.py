"""Connections to databases and what goes wrong with them: each fault has a clear error or a clean wait."""

from __future__ import annotations

import os
import pickle
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from optnas.errors import StorageUnavailableError, StudyGoneError
from optnas.search.signals import signals_raise, signals_wait
from optnas.storage.database import waits_in
from optnas.storage.open import claim, open_storage

COUNTS = "optnas:counts"

SECRET = "tUlip-4711"


# ---- servers and passwords ----


def test_no_server_is_reported_soon_and_without_the_password() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # nobody else gets the port, and nobody listens
        url = f"postgresql://me:{SECRET}@127.0.0.1:{deaf.getsockname()[1]}/nas"
        with pytest.raises(StorageUnavailableError, match=r"//\*\*\*@127.*Is the server running") as caught:
            open_storage(url, patience=0.5)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in repr(error)
        error = error.__cause__ or error.__context__


def test_missing_driver() -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from optnas.storage.open import open_storage\n"
        f"open_storage('postgresql://me:{SECRET}@localhost/nas')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "ImportError: storage=postgresql+psycopg://***@localhost/nas needs the psycopg" in done.stderr
    assert "pip install 'optnas[postgres]'" in done.stderr
    assert SECRET not in done.stderr


def test_password_is_neither_shown_nor_pickled(postgres: Any, new_study: Any) -> None:
    url = sa.make_url(postgres.new_database()).set(username="postgres", password=SECRET)
    study, storage = new_study(url.render_as_string(hide_password=False))
    trial = study.ask()
    assert SECRET not in repr(storage) + repr(storage._database)
    stored = pickle.dumps(storage)
    assert SECRET.encode() not in stored
    assert pickle.loads(stored).get_trial(trial._trial_id).number == 0
    assert SECRET in storage.arguments()["storage"]


# ---- Postgres that goes away ----


def test_server_restart_in_the_middle(postgres: Any, new_study: Any) -> None:
    if postgres.given:
        pytest.skip("the server of OPTNAS_TEST_POSTGRES is not ours to restart")
    study, storage = new_study(postgres.new_database(), lease=1.0)

    def crash() -> None:
        for _ in range(2):
            time.sleep(1.0)
            postgres.stop()
            time.sleep(0.5)
            postgres.start()

    thread = threading.Thread(target=crash)
    thread.start()
    told: dict[int, float] = {}
    while thread.is_alive() or len(told) < 20:
        trial_id = claim(study, None, COUNTS).trial_id
        assert trial_id is not None
        trial = optuna.Trial(study, trial_id)
        x = trial.suggest_float("x", 0, 1)
        trial.report(x, 0)
        study.tell(trial, x)
        told[trial.number] = x
    thread.join()
    with storage._database.engine.connect() as connection:
        count = connection.execute(sa.text("SELECT count(*), count(DISTINCT number) FROM trials")).one()
    assert tuple(count) == (len(told), len(told))
    storage.close()
    plain = optuna.load_study(study_name="s", storage=open_storage(**storage.arguments()))
    assert {trial.number: trial.value for trial in plain.trials} == told
    assert all(trial.intermediate_values == {0: trial.value} for trial in plain.trials)


def test_a_server_that_ends_idle_sessions(postgres: Any, new_study: Any) -> None:
    """A trial that trains for hours says nothing to its server between two epochs."""
    url = postgres.new_database()
    study, storage = new_study(url, lease=3600.0)
    name = sa.make_url(url).database
    others = sa.create_engine(sa.make_url(postgres.url).set(drivername="postgresql+psycopg"))

    def idle() -> None:
        """Until the server has ended the session, of which there is one, with a limit of its own."""
        storage._database.engine.dispose()
        with storage._database.engine.connect() as connection:
            connection.execute(sa.text("SET idle_session_timeout = '200ms'"))
            connection.commit()
        sessions = sa.text(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'")
        deadline = time.monotonic() + 600
        with others.connect() as connection:
            while connection.execute(sessions).scalar_one():
                assert time.monotonic() < deadline
                connection.rollback()  # or it would see the same again
                time.sleep(0.05)

    trial = study.ask()
    for step in range(2):
        idle()
        trial.report(0.5, step)
    idle()
    study.tell(trial, 0.5)
    assert study.trials[0].intermediate_values == {0: 0.5, 1: 0.5}
    storage.close()
    others.dispose()


class Proxy(threading.Thread):
    """Stands between client and server, and on `lose_commits` drops the connection instead of an answer."""

    def __init__(self, server: str) -> None:
        super().__init__(daemon=True)
        self.server, self.lose_commits, self.lost = server, 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self.server)
            committing = threading.Event()

            def answers() -> None:
                while data := server.recv(65536):
                    if committing.is_set():  # the server has answered, so it has committed
                        self.lost += 1
                        client.shutdown(socket.SHUT_RDWR)
                        return
                    client.sendall(data)

            thread = threading.Thread(target=answers, daemon=True)
            thread.start()
            try:
                while data := client.recv(65536):
                    if self.lose_commits and b"COMMIT" in data:
                        self.lose_commits -= 1
                        committing.set()
                    server.sendall(data)
            except OSError:
                pass
            finally:
                server.shutdown(socket.SHUT_RDWR)
                thread.join()


@pytest.fixture
def proxied(postgres: Any) -> Iterator[tuple[Proxy, str]]:
    url = sa.make_url(postgres.new_database())
    if "host" not in url.query:
        pytest.skip("the proxy speaks to a server on a local socket")
    proxy = Proxy(f"{url.query['host']}/.s.PGSQL.5432")
    through = url.set(
        host="127.0.0.1", port=proxy.port, query={"sslmode": "disable", "gssencmode": "disable"}
    )
    yield proxy, through.render_as_string(hide_password=False)
    proxy.listener.close()


def test_lost_answers_to_commits_do_nothing_twice(proxied: tuple[Proxy, str], new_study: Any) -> None:
    proxy, url = proxied
    study, storage = new_study(url, lease=3600.0)  # no renewal's commit is lost instead

    def lose_one() -> None:
        proxy.lose_commits = 1

    lose_one()
    study.enqueue_trial({"x": 0.5})
    lose_one()
    first = claim(study, 2, COUNTS)  # takes the waiting one
    lose_one()
    second = claim(study, 2, COUNTS)  # creates one
    lose_one()
    assert claim(study, 2, COUNTS).trial_id is None
    proxy.lose_commits = 0
    assert first.trial_id is not None
    assert second.trial_id is not None
    trial = optuna.Trial(study, first.trial_id)
    trial.suggest_float("x", 0, 1)
    lose_one()
    trial.report(0.5, 0)
    lose_one()
    study.tell(trial, 0.5)
    lose_one()
    assert storage.requeue(second.trial_id)
    lose_one()
    third = study.ask()  # as Optuna takes it
    lose_one()
    fourth = study.ask()
    assert proxy.lost == 9
    trials = study.trials
    assert [(t.number, t.state) for t in trials] == [
        (0, TrialState.COMPLETE),
        (1, TrialState.RUNNING),
        (2, TrialState.RUNNING),
    ]
    assert (third._trial_id, fourth.number) == (second.trial_id, 2)
    assert (trials[0].params, trials[0].intermediate_values) == ({"x": 0.5}, {0: 0.5})
    assert all(storage.owns(t._trial_id) for t in trials[1:])
    storage.close()


# ---- SQLite files ----


@pytest.mark.parametrize(("full_sync", "synchronous"), [(False, 1), (True, 2)])
def test_a_file_has_a_write_ahead_log_and_waits_for_the_disk_where_asked(
    tmp_path: Path, new_study: Any, full_sync: bool, synchronous: int
) -> None:
    _, storage = new_study(tmp_path / "nas.db", full_sync=full_sync)
    with storage._database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == synchronous


def test_files_of_other_programs(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Something else entirely")
    with pytest.raises(StorageUnavailableError, match=r"is not a SQLite file; choose another"):
        open_storage(tmp_path / "notes.txt")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE bookmarks (url TEXT)")
    other.close()
    with pytest.raises(StorageUnavailableError, match="of another program, with the tables bookmarks"):
        open_storage(tmp_path / "other.db")


def test_two_storages_of_one_file_in_one_process(tmp_path: Path, new_study: Any) -> None:
    """Whatever opens a file and closes it drops all locks of the process on it: SQLite must be alone in that.

    Without its locks, another process that ends takes itself for the last and deletes the write-ahead log.
    """
    study, _ = new_study(tmp_path / "nas.db")
    second = optuna.load_study(study_name="s", storage=open_storage(tmp_path / "nas.db"))
    code = """if True:
        import optuna, sys
        from optnas.storage.open import open_storage
        study = optuna.load_study(study_name="s", storage=open_storage(sys.argv[1]))
        study.tell(study.ask(), 1.0)
    """
    for n_told in (1, 2):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "nas.db")], check=True)
        assert len(study.trials) == len(second.trials) == 2 * n_told - 1
        study.tell(study.ask(), 2.0)
        assert len(study.trials) == len(second.trials) == 2 * n_told


def test_damaged_file(tmp_path: Path, new_study: Any) -> None:
    study, storage = new_study(tmp_path / "nas.db")
    study.optimize(lambda trial: 0.0, n_trials=2)
    storage.close()
    with (tmp_path / "nas.db").open("r+b") as file:
        file.seek(50)
        file.write(random.randbytes(30_000))
    with pytest.raises(
        StorageUnavailableError, match=r"(malformed|not a database).*(restore a copy|choose another)"
    ):
        open_storage(tmp_path / "nas.db", patience=0.5)


def test_read_only_folder() -> None:
    """As a user without rights, which root is not."""
    folder = Path(tempfile.mkdtemp(prefix="optnas-read-only-"))
    folder.chmod(0o555)
    script = (
        "import sys; from optnas.storage.open import open_storage\n"
        "import os; os.getuid() or os.setuid(65534)\n"
        "open_storage(sys.argv[1], patience=0.5)"
    )
    words = [sys.executable, "-c", script, str(folder / "nas.db")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    folder.rmdir()
    assert "StorageUnavailableError: storage=sqlite:///" in done.stderr
    assert "Check that the folder exists and can be written." in done.stderr


def test_read_only_file(tmp_path: Path, new_study: Any) -> None:
    study, storage = new_study(tmp_path / "nas.db")
    sa.event.listen(storage._database.engine, "begin", lambda c: c.exec_driver_sql("PRAGMA query_only=ON"))
    with pytest.raises(StorageUnavailableError, match=r"readonly database. Check the permissions"):
        study.ask()


def test_full_disk(tmp_path: Path, new_study: Any) -> None:
    """Nothing acknowledged is lost, and the search goes on when there is room again."""
    study, storage = new_study(tmp_path / "nas.db")
    trial = study.ask()
    trial.report(0.5, 0)

    pages = 1  # less than it has: not one more

    @sa.event.listens_for(storage._database.engine, "begin")
    def limit(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    trial.set_user_attr("large", "x" * 100_000)
    with pytest.raises(StorageUnavailableError, match=r"disk is full. Free some space") as caught:
        storage.flush(trial._trial_id)
    assert "xxxx" not in str(caught.value)
    pages = 1_000_000
    study.tell(trial, 1.0)
    found = optuna.load_study(
        study_name="s", storage=optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/nas.db")
    )
    assert found.trials[0].intermediate_values == {0: 0.5}
    assert found.trials[0].value == 1.0
    assert found.trials[0].user_attrs == trial.user_attrs


def test_a_file_that_comes_back(tmp_path: Path, new_study: Any) -> None:
    study, _ = new_study(tmp_path / "nas.db", patience=600.0)
    trial = study.ask()
    (tmp_path / "nas.db").rename(tmp_path / "away.db")
    timer = threading.Timer(0.5, (tmp_path / "away.db").rename, [tmp_path / "nas.db"])
    timer.start()
    trial.report(0.5, 0)
    timer.join()
    assert study.trials[0].intermediate_values == {0: 0.5}


def test_a_file_that_does_not_come_back(tmp_path: Path, new_study: Any) -> None:
    study, _ = new_study(tmp_path / "nas.db", patience=1.0)
    trial = study.ask()
    shutil.copy(tmp_path / "nas.db", tmp_path / "copy.db")
    (tmp_path / "nas.db").unlink()
    with pytest.raises(StorageUnavailableError, match=r"nas.db is gone. Waited 1 s for it"):
        trial.report(0.6, 1)
    assert not (tmp_path / "nas.db").exists()
    (tmp_path / "copy.db").rename(tmp_path / "nas.db")
    with pytest.raises(StorageUnavailableError, match="was replaced by another file"):
        trial.report(0.6, 1)


def test_eight_processes_wait_for_a_long_lock(
    tmp_path: Path, new_study: Any, seen_by_optuna: Any, processes: Any
) -> None:
    """Another program holds the file for ten seconds, in the middle of their work."""
    url = f"sqlite:///{tmp_path}/nas.db"
    study, _ = new_study(url)

    def hold() -> None:
        try:
            while len(study.trials) < 8:
                time.sleep(0.01)
            with closing(sqlite3.connect(tmp_path / "nas.db", timeout=600)) as holder:
                holder.execute("BEGIN EXCLUSIVE")
                time.sleep(10.0)
                holder.rollback()
        finally:
            (tmp_path / "over").touch()

    thread = threading.Thread(target=hold)
    thread.start()
    told = processes("load", url, tmp_path / "over")
    thread.join()
    assert len(told) == 8
    assert len(seen_by_optuna(url)) == sum(map(int, told))


def test_processes_that_start_at_one_moment(url: str, seen_by_optuna: Any, processes: Any) -> None:
    processes("start", url, 8)
    assert [trial.number for trial in seen_by_optuna(url)] == list(range(8))


def test_a_server_whose_default_isolation_is_strict(postgres: Any, processes: Any) -> None:
    url = postgres.new_database()
    name = sa.make_url(url).database
    others = sa.create_engine(
        sa.make_url(postgres.url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with others.connect() as connection:
        set_default = f"ALTER DATABASE {name} SET default_transaction_isolation TO 'repeatable read'"
        connection.execute(sa.text(set_default))
    others.dispose()
    processes("search", url, 4)
    study = optuna.load_study(study_name="s", storage=open_storage(url))
    counted = [
        t for t in study.trials if t.state == TrialState.COMPLETE and t.user_attrs.get(COUNTS) is not False
    ]
    assert len(counted) == 30


# ---- locks: waited for, said, and left on a signal ----


@pytest.fixture
def locked(url: str, new_study: Any) -> Iterator[tuple[optuna.Study, Callable[[], None]]]:
    """A study whose row, or file, another program has locked, and what ends that."""
    study, _ = new_study(url, patience=600.0)
    other = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    connection = other.connect()
    if other.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(sa.text("SELECT study_id FROM studies FOR UPDATE"))
    yield study, connection.rollback
    connection.close()
    other.dispose()


def test_a_wait_says_what_it_waits_for(
    locked: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("optnas.storage.database.SILENCE", 0.5)
    study, unlock = locked
    timer = threading.Timer(3.0, unlock)
    timer.start()
    trial_id = claim(study, None, COUNTS).trial_id
    timer.join()
    assert trial_id is not None
    (told,) = [r.getMessage() for r in caplog.records if r.name == "optnas.storage.database"]
    assert re.match(r"Waiting for storage=.*: .*(is locked|lock timeout)", told)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wait_ends_on_a_signal_though_signals_are_held_back(locked: Any, number: signal.Signals) -> None:
    study, _ = locked
    timer = threading.Timer(0.5, os.kill, [os.getpid(), number])
    with signals_raise():
        timer.start()
        with (
            pytest.raises((KeyboardInterrupt, SystemExit)),
            signals_wait() as passage,
            waits_in(passage),
        ):
            claim(study, None, COUNTS)
    timer.join()


def test_a_vanished_client_does_not_keep_the_study_locked(postgres: Any, new_study: Any) -> None:
    """In our own transactions the server sees to that, as it sees to locks that cannot be had."""
    _, storage = new_study(postgres.new_database())

    def limits(connection: sa.Connection, again: bool = False) -> list[str]:
        names = ("lock_timeout", "idle_in_transaction_session_timeout")
        return [str(connection.exec_driver_sql(f"SHOW {name}").scalar()) for name in names]

    assert storage._database.write(limits) == ["1s", "30s"]


@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
def test_limits_of_the_server_are_waited_for_like_a_lock(postgres: Any, new_study: Any, setting: str) -> None:
    url = sa.make_url(postgres.new_database())
    admin = sa.create_engine(
        sa.make_url(postgres.url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {url.database} SET {setting} = '300ms'")
    admin.dispose()
    study, storage = new_study(url.render_as_string(hide_password=False), patience=600.0)
    trial = study.ask()
    holder = sa.create_engine(url.set(drivername="postgresql+psycopg"))
    connection = holder.connect()
    connection.exec_driver_sql("SELECT study_id FROM studies FOR UPDATE")
    connection.exec_driver_sql("SELECT trial_id FROM trials FOR UPDATE")
    timer = threading.Timer(2.0, connection.rollback)
    timer.start()
    trial.report(0.5, 0)
    study.set_user_attr("seed", 1)
    assert claim(study, None, COUNTS).trial_id is not None
    timer.join()
    connection.close()
    holder.dispose()
    assert study.trials[0].intermediate_values == {0: 0.5}
    storage.close()


def test_a_server_without_a_connection_left_is_waited_for_and_named(
    postgres: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url = sa.make_url(postgres.new_database()).set(username="few")
    admin = sa.create_engine(
        sa.make_url(postgres.url).set(drivername="postgresql+psycopg", database=url.database),
        isolation_level="AUTOCOMMIT",
    )
    with admin.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE few LOGIN CONNECTION LIMIT 1")
        connection.exec_driver_sql("GRANT ALL ON SCHEMA public TO few")
    text = url.render_as_string(hide_password=False)
    first = open_storage(text)
    study = optuna.create_study(study_name="s", storage=first)
    study.ask()  # its connection stays open, and is its only one
    with pytest.raises(StorageUnavailableError, match=r"too many connections.*run fewer workers.*Waited 7 s"):
        open_storage(text, patience=7.0)
    assert "Waiting for storage=" in caplog.text
    first.close()
    assert len(optuna.load_study(study_name="s", storage=open_storage(text)).trials) == 1
    with admin.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {url.database} OWNER TO few")
        connection.exec_driver_sql("ALTER ROLE few CONNECTION LIMIT 50")
    admin.dispose()


# ---- poolers ----


def test_a_pooler_that_gives_each_transaction_another_connection(pooled: tuple[str, str]) -> None:
    through, straight = pooled
    failed: list[BaseException] = []

    def work() -> None:
        try:
            study = optuna.create_study(
                study_name="s", storage=open_storage(through, patience=20.0), load_if_exists=True
            )
            for _ in range(12):
                trial = optuna.Trial(study, claim(study, None, COUNTS).trial_id or 0)
                trial.report(trial.suggest_float("x", 0, 1), 0)
                study.tell(trial, trial.params["x"])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    trials = optuna.load_study(study_name="s", storage=open_storage(straight)).trials
    assert [t.number for t in trials] == list(range(36))
    assert all(t.value == t.params["x"] == t.intermediate_values[0] for t in trials)


def test_nothing_of_a_session_is_left_to_others(pooled: tuple[str, str]) -> None:
    through, straight = pooled
    study = optuna.create_study(study_name="s", storage=open_storage(through))
    for _ in range(8):
        study.tell(study.ask(), 1.0)
    engine = sa.create_engine(straight.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        usual = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in SESSION]
    engine.dispose()
    pool = sa.create_engine(
        through.replace("postgresql://", "postgresql+psycopg://"),
        connect_args={"prepare_threshold": None},
        isolation_level="AUTOCOMMIT",
    )
    with pool.connect() as connection:
        for _ in range(2):  # the two connections of the pooler, in turn
            assert [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in SESSION] == usual
        for _ in range(2):
            assert connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar() == 0
    pool.dispose()


SESSION = ("lock_timeout",)  # one, so that the two connections take turns


# ---- looking ----


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("made_by", ["plain", "ours", "ours, that still runs", "ours, that was killed"])
def test_looking_changes_nothing(tmp_path: Path, made_by: str) -> None:
    url = f"sqlite:///{tmp_path}/nas.db"
    code = """if True:
        import optuna, os, sys
        from optnas.storage.open import open_storage
        study = optuna.create_study(study_name="s", storage=open_storage(sys.argv[1]))
        study.tell(study.ask(), 1.0)
        os._exit(9) if "killed" in sys.argv[2] else study._storage.close()
        """
    if made_by == "ours, that was killed":
        subprocess.run([sys.executable, "-c", code, url, made_by], check=False)
        assert {path.name for path in tmp_path.iterdir()} == {"nas.db", "nas.db-wal", "nas.db-shm"}
    else:
        storage = url if made_by == "plain" else open_storage(url)
        study = optuna.create_study(study_name="s", storage=storage)
        study.tell(study.ask(), 1.0)
        if made_by == "ours":
            study._storage.close()  # type: ignore[attr-defined]  # ours
    before = contents(tmp_path)
    looking = open_storage(url, read_only=True)
    seen = optuna.load_study(study_name="s", storage=looking)
    assert [(t.number, t.value) for t in seen.trials] == [(0, 1.0)]
    assert optuna.get_all_study_names(looking) == ["s"]
    for write in (
        lambda: seen.ask(),
        lambda: claim(seen, None, COUNTS),
        lambda: seen.set_user_attr("a", 1),
        lambda: optuna.create_study(study_name="t", storage=looking),
        lambda: optuna.delete_study(study_name="s", storage=looking),
        lambda: looking.settle_study_user_attr(seen._study_id, "a", 1),
    ):
        with pytest.raises(StorageUnavailableError, match="opened with read_only=True, to look at it"):
            write()
    looking.close()
    after = contents(tmp_path)
    after.pop("nas.db-shm", None)  # of locks, and no content
    before.pop("nas.db-shm", None)
    assert after == before


def test_looking_at_a_postgres_database_makes_no_tables(postgres: Any) -> None:
    url = postgres.new_database()
    with pytest.raises(StorageUnavailableError, match="holds no studies"):
        open_storage(url, read_only=True)
    plain = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    optuna.create_study(study_name="s", storage=plain).add_trial(optuna.trial.create_trial(value=1.0))
    tables = sa.inspect(plain.engine).get_table_names()
    looking = open_storage(url, read_only=True)
    assert len(optuna.load_study(study_name="s", storage=looking).trials) == 1
    assert sa.inspect(plain.engine).get_table_names() == tables
    looking.close()
    plain.engine.dispose()


@pytest.mark.parametrize("closed", [True, False])
def test_looking_needs_no_right_to_write(closed: bool) -> None:
    """As a user without rights, which root is not."""
    folder = Path(tempfile.mkdtemp(prefix="optnas-read-only-"))
    storage = open_storage(folder / "nas.db")
    study = optuna.create_study(study_name="s", storage=storage)
    study.tell(study.ask(), 1.0)
    if closed:
        storage.close()
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    script = (
        "import sys, optuna; from optnas.storage.open import open_storage\n"
        "optuna.create_study(storage='sqlite://')\n"  # imports what that user may not
        "import os; os.getuid() or os.setuid(65534)\n"
        "storage = open_storage(sys.argv[1], read_only=True, patience=0.5)\n"
        "print(len(optuna.load_study(study_name='s', storage=storage).trials))"
    )
    words = [sys.executable, "-c", script, str(folder / "nas.db")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    storage.close()
    shutil.rmtree(folder)
    assert done.stdout == "1\n", done.stderr


def test_looking_at_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailableError, match="does not exist"):
        open_storage(tmp_path / "nas.db", read_only=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.db").touch()
    with pytest.raises(StorageUnavailableError, match="holds no studies"):
        open_storage(tmp_path / "empty.db", read_only=True)
    assert contents(tmp_path) == {"empty.db": b""}


# ---- copies ----


def test_a_file_that_is_copied_after_the_search_is_whole(tmp_path: Path, new_study: Any) -> None:
    study, storage = new_study(tmp_path / "nas.db")
    study.tell(study.ask(), 1.0)
    shutil.copy(tmp_path / "nas.db", tmp_path / "early.db")
    storage.fold_log()
    assert (tmp_path / "nas.db-wal").stat().st_size == 0
    shutil.copy(tmp_path / "nas.db", tmp_path / "copy.db")
    copy = optuna.load_study(study_name="s", storage=open_storage(tmp_path / "copy.db"))
    assert copy.trials == study.trials


def test_an_empty_copy_of_a_file_in_use_is_told(
    tmp_path: Path, new_study: Any, caplog: pytest.LogCaptureFixture
) -> None:
    study, storage = new_study(tmp_path / "nas.db")
    study.tell(study.ask(), 1.0)
    shutil.copy(tmp_path / "nas.db", tmp_path / "copy.db")
    assert caplog.text.count("holds no study") == 0
    copy = open_storage(tmp_path / "copy.db")
    assert (
        "copy.db holds no study. If it is a copy of a file that was in use, its studies are in" in caplog.text
    )
    assert "(copy.db-wal): copy both, or copy when the search has ended" in caplog.text
    with pytest.raises(StudyGoneError, match="There is no study 's' in storage="):
        optuna.load_study(study_name="s", storage=copy)
    storage.close()


def test_the_log_is_folded_in_while_a_trial_runs(tmp_path: Path, new_study: Any) -> None:
    study, _ = new_study(tmp_path / "nas.db", lease=0.4)
    study.ask()
    deadline = time.monotonic() + 600
    names: list[str] = []
    while names != ["s"]:
        assert time.monotonic() < deadline
        shutil.copy(tmp_path / "nas.db", tmp_path / "copy.db")
        with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
            try:
                names = [row[0] for row in copy.execute("SELECT study_name FROM studies")]
            except sqlite3.DatabaseError:  # not yet
                names = []
