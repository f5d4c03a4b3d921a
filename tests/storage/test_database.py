"""Connections to databases and what goes wrong with them: each fault has a clear error or a clean wait."""

from __future__ import annotations

import pickle
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from optnas.errors import StorageUnavailableError
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
