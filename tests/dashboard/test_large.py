"""A study of more trials than its page shows."""

from __future__ import annotations

import io
import json
from typing import Any

import optuna
import pytest
from optuna.trial import create_trial

from optnas.analysis import sample
from optnas.dashboard import pages
from optnas.storage.open import open_storage


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Ask the dashboard of a study of 40 trials, of which it may show some 20."""
    monkeypatch.setattr(sample, "_BEST", 3)
    monkeypatch.setattr(pages, "sampled", lambda storage: sample.sampled(storage, 20))
    storage = open_storage(tmp_path / "nas.db")
    study = optuna.create_study(study_name="s", storage=storage)
    study.add_trials([create_trial(value=float(i)) for i in range(40)])
    app = pages.Pages(storage)

    def send(method: str, path: str, body: bytes = b"") -> Any:
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": "after=0",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
        }
        seen: list[str] = []
        answer = b"".join(app(environ, lambda status, *rest: seen.append(status)))
        assert seen[0][0] == "2", seen
        return json.loads(answer)

    return send, storage


def test_a_page_shows_some_trials_and_says_so(ask):
    send, _ = ask
    page = send("GET", "/api/studies/1")
    numbers = [trial["number"] for trial in page["trials"]]
    assert {0, 1, 2} <= set(numbers)
    assert 3 < len(numbers) < 40
    assert "The study has 40 trials" in page["note"]["body"]


def test_a_study_that_is_renamed_keeps_all_of_them(ask):
    send, storage = ask
    send("POST", "/api/studies/1/rename", b'{"study_name": "t"}')
    assert len(optuna.load_study(study_name="t", storage=storage).trials) == 40
