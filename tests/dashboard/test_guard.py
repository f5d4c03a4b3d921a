"""Pages of other sites get nothing from the dashboard, and what was uploaded runs nothing."""

from __future__ import annotations

import json
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import optuna
import pytest

from optnas.dashboard.guard import Guard, is_local
from optnas.dashboard.serve import make_server

EVIL = "evil.example"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> optuna.storages.BaseStorage:
    monkeypatch.chdir(tmp_path)  # uploads go to the working directory
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="mine", storage=storage)
    return storage


@pytest.fixture
def port(storage: optuna.storages.BaseStorage) -> Iterator[int]:
    with make_server(storage, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def ask(port: int, path: str, method: str = "GET", body: object = None, **headers: str) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    sent = None if body is None else json.dumps(body)
    connection.request(method, path, sent, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    answer.body = answer.read()  # type: ignore[attr-defined]  # kept for the test
    connection.close()
    return answer


def test_a_name_that_was_pointed_at_this_machine_reads_and_changes_nothing(
    port: int, storage: optuna.storages.BaseStorage
) -> None:
    rebound = {"Host": f"{EVIL}:{port}", "Origin": f"http://{EVIL}:{port}"}
    for path, method, body in (
        ("/api/studies", "GET", None),
        ("/dashboard", "GET", None),
        ("/api/studies/0/rename", "POST", {"study_name": "renamed"}),
        ("/api/studies/0", "DELETE", {"remove_associated_artifacts": True}),
    ):
        answer = ask(port, path, method, body, **rebound)
        assert answer.status == 403
        assert b"127.0.0.1" in answer.body  # type: ignore[attr-defined]  # the way out
    assert optuna.get_all_study_names(storage) == ["mine"]


@pytest.mark.parametrize("origin", [f"http://{EVIL}", "null", "http://localhost:1"])
def test_a_page_of_another_site_changes_nothing(
    port: int, storage: optuna.storages.BaseStorage, origin: str
) -> None:
    answer = ask(port, "/api/studies/0/rename", "POST", {"study_name": "renamed"}, Origin=origin)
    assert answer.status == 403
    assert optuna.get_all_study_names(storage) == ["mine"]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_its_own_pages_go_on(port: int, name: str) -> None:
    own = f"{name}:{port}"
    assert ask(port, "/api/studies", Host=own).status == 200
    assert ask(port, "/api/studies", Host=own, Origin=f"http://{own}").status == 200
    assert ask(port, "/api/studies", Host=f"{name}:9000").status == 200  # through an ssh tunnel


def test_what_was_uploaded_is_shown_in_a_sandbox(port: int) -> None:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    file = f"data:image/svg+xml;base64,{b64encode(svg).decode()}"
    uploaded = ask(port, "/api/artifacts/0", "POST", {"file": file, "filename": "x.svg"})
    assert uploaded.status == 201
    found = json.loads(uploaded.body)["artifact_id"]  # type: ignore[attr-defined]  # see ask
    answer = ask(port, f"/artifacts/0/{found}")
    assert answer.body == svg  # type: ignore[attr-defined]  # see ask
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "allow-scripts" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert ask(port, "/dashboard").headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("served", "asked", "answers"),
    [
        ("127.0.0.1", "192.0.2.7", False),
        ("192.0.2.7", "192.0.2.7:80", True),
        ("192.0.2.7", "localhost", False),
        ("lab", "lab:8080", True),
        ("lab", EVIL, False),
        ("0.0.0.0", "192.0.2.7:8080", True),
        ("0.0.0.0", "[2001:db8::1]:8080", True),
        ("0.0.0.0", socket.gethostname(), True),
        ("0.0.0.0", EVIL, False),
        ("0.0.0.0", f"127.0.0.1.{EVIL}", False),
        ("0.0.0.0", f"127.0.0.1@{EVIL}", False),
        ("127.0.0.1", "127.0.0.1:port", False),
        ("127.0.0.1", "", False),
    ],
)
def test_names_that_it_answers_to(served: str, asked: str, answers: bool) -> None:
    statuses = []
    app = Guard(lambda environ, start: start("200 OK", []) or [], served)
    app({"HTTP_HOST": asked, "PATH_INFO": "/"}, lambda status, headers: statuses.append(status))
    assert statuses == ["200 OK" if answers else "403 Forbidden"]


def test_addresses_that_only_this_machine_reaches() -> None:
    assert [is_local(host) for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8")] == [True] * 4
    assert [is_local(host) for host in ("0.0.0.0", "192.0.2.7", "lab", "")] == [False] * 4
