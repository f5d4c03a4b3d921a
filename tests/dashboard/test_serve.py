"""The dashboard answers, and a slow request does not hold up the others."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request

import optuna

from optnas.dashboard.serve import make_server


def test_requests_are_answered_beside_one_that_hangs() -> None:
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="shown", storage=storage)
    with make_server(storage, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with socket.create_connection(("127.0.0.1", server.server_port)) as hanging:
            hanging.sendall(b"GET / HTTP/1.1\r\n")  # a request that never ends
            url = f"http://127.0.0.1:{server.server_port}/api/studies"
            with urllib.request.urlopen(url, timeout=600) as answer:
                [summary] = json.load(answer)["study_summaries"]
        server.shutdown()
    assert summary["study_name"] == "shown"
