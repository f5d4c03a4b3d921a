"""The pages have what optuna-dashboard lacks, of studies that still run, on SQLite and on Postgres."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from xml.etree import ElementTree

import optuna
import pytest
from optuna_dashboard import save_note
from torch import nn

from optnas import record
from optnas.dashboard.pages import keep_plots
from optnas.dashboard.serve import make_server
from optnas.estimation import folders
from optnas.objective import Objective
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.storage.open import open_storage
from optnas.trial import Trial


@contextmanager
def served(storage: optuna.storages.BaseStorage) -> Iterator[str]:
    with make_server(storage, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=600) as answer:
        body: bytes = answer.read()
        return body


def notes(url: str, study_id: int) -> dict[int, str]:
    detail: dict[str, Any] = json.loads(get(f"{url}/api/studies/{study_id}?after=0"))
    return {trial["number"]: trial["note"]["body"] for trial in detail["trials"]}


def wait_for(condition: Callable[[], bool]) -> None:
    """The dashboard looks for new trials every two seconds."""
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def write_note(url: str, study_id: int, trial_id: int, body: str) -> None:
    """As the editor on a page does."""
    note = json.dumps({"version": 1, "body": body}).encode()
    path = f"{url}/api/studies/{study_id}/{trial_id}/note"
    request = urllib.request.Request(path, note, {"Content-Type": "application/json"}, method="PUT")
    urllib.request.urlopen(request, timeout=600).close()


def space(trial: Trial) -> nn.Module:
    return nn.Linear(4, trial.suggest_int("width", 1, 99))


def estimate(model: nn.Module, trial: optuna.Trial) -> dict[str, float]:
    for step in range(3):
        trial.report(step * trial.params["width"], step)
    return {"score": float(trial.params["width"])}


OBJECTIVE = Objective(space, estimate, values={"score": "maximize"}, example=(2, 4), reuse_twins=False)


def test_pages_follow_a_search_that_runs(new_url: Callable[[], str]) -> None:
    looked = threading.Event()

    def watched(model: nn.Module, trial: optuna.Trial) -> dict[str, float]:
        if trial.number == 10:
            assert looked.wait(600)
        time.sleep(0.1)
        return estimate(model, trial)

    objective = Objective(space, watched, values={"score": "maximize"}, example=(2, 4), reuse_twins=False)
    url = new_url()
    study = create_study(objective, study_name="s", storage=url, seed=0)
    worker = threading.Thread(target=optimize, args=(study, objective, 30), kwargs={"show_progress": False})
    seen: list[int] = []
    with served(open_storage(url)) as page:
        worker.start()
        try:
            while worker.is_alive() or not seen:
                seen.append(len(notes(page, study._study_id)))
                looked.set()
                time.sleep(0.2)
        finally:
            looked.set()
            worker.join()
        expected = {t.number: f"- **Outcome**: complete, score {t.value:g}" for t in study.trials}

        def all_told() -> bool:
            last = notes(page, study._study_id)
            return last.keys() == expected.keys() and all(last[n].startswith(expected[n]) for n in last)

        wait_for(all_told)
    assert seen == sorted(seen)
    assert seen[0] <= 11
    assert sorted(expected) == list(range(30))


def test_a_note_that_a_user_wrote_stands_in_place_of_ours(new_url: Callable[[], str]) -> None:
    study = create_study(OBJECTIVE, storage=new_url(), seed=0)
    trial = study.ask()
    save_note(trial, "mine")
    study.ask()
    with served(study._storage) as page:
        assert notes(page, study._study_id) == {0: "mine", 1: "- **Outcome**: running"}


def test_a_study_at_rest_is_told_again_until_something_changes(tmp_path: Path) -> None:
    """Each answer is what a server that has never been asked says."""
    url = f"sqlite:///{tmp_path}/nas.db"
    objective = Objective(space, estimate, values={"score": "maximize"}, example=(2, 4))
    study = create_study(objective, study_name="s", storage=url, seed=0)
    folder = folders.settle(study, tmp_path / "files")

    def run(*widths: int) -> None:
        for width in widths:
            study.enqueue_trial({"width": width})
        study.optimize(objective, len(widths))

    def train() -> None:
        attempt = folders.claim(folder, study.trials[0]) / "attempt-0"
        attempt.mkdir()
        (attempt / "weights.pt").touch()

    def delete() -> None:
        (folder / "trial-0000" / "attempt-0" / "weights.pt").unlink()
        study.set_user_attr(record.DELETED.name, [0])

    steps: dict[str, Callable[[], object]] = {
        "kept in": train,
        "none on this machine": delete,  # of the best, no list may say that others are better
        "mine": lambda: write_note(page, study._study_id, study.trials[0]._trial_id, "mine"),
        "came to the same network later": lambda: run(40, 50, 50),
        "running": study.ask,
    }
    run(30)
    with served(open_storage(url)) as page:
        assert "score 30: the best so far" in notes(page, study._study_id)[0]
        for words, step in steps.items():
            assert words not in str(notes(page, study._study_id))
            step()
            wait_for(lambda words=words: words in str(notes(page, study._study_id)))
            told = notes(page, study._study_id)
            with served(open_storage(url)) as other:
                assert told == notes(other, study._study_id)
    assert "(the best has 50: " in told[1]


def test_the_browser_asks_for_a_study_before_the_script_does() -> None:
    study = create_study(OBJECTIVE, seed=0)
    link = re.compile(rb'<link rel="preload" href="([^"]*)" as="fetch" crossorigin="anonymous">')
    with served(study._storage) as page:
        for path in ("", "/trials?numbers=3"):
            [asked] = link.findall(get(f"{page}/dashboard/studies/{study._study_id}{path}"))
            assert json.loads(get(page + asked.decode()))["name"] == study.study_name
        assert not link.findall(get(f"{page}/dashboard"))


def test_learning_curves_are_drawn_and_missing_ones_not_found() -> None:
    study = create_study(OBJECTIVE, seed=0)
    optimize(study, OBJECTIVE, 2, show_progress=False)
    with served(study._storage) as page:
        curve = get(f"{page}/optnas/curves/{study._study_id}/1.svg")
        assert ElementTree.fromstring(curve).tag.endswith("svg")
        for path in ("0/7.svg", "99/0.svg"):
            with pytest.raises(HTTPError, match="404"):
                get(f"{page}/optnas/curves/{path}")
        with pytest.raises(HTTPError, match="404"):
            get(f"{page}/api/studies/99")


def test_plots_of_pairs_return_on_55_decisions() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: sum(t.suggest_float(f"p{i}", 0, i) for i in range(55)), 40)
    with served(study._storage) as page:
        for kind in ("contour", "rank"):
            figure = json.loads(get(f"{page}/api/studies/{study._study_id}/plot/{kind}"))
            assert len([name for name in figure["layout"] if name.startswith("xaxis")]) == 16  # 4 by 4


def test_the_dashboard_is_styled_whatever_the_browser_has() -> None:
    with served(optuna.storages.InMemoryStorage()) as page:
        new = {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}
        assert b"min-width: 0" in get(f"{page}/dashboard", **new)
        assert get(f"{page}/static/bundle.js")[:100]


def test_plots_are_kept_up_to_date_until_stopped() -> None:
    study = create_study(OBJECTIVE, seed=0)
    stop = threading.Event()
    keeper = threading.Thread(target=keep_plots, args=(study._storage, stop, 0.05, 0.0))
    keeper.start()

    def points() -> int:
        with served(study._storage) as page:
            detail = json.loads(get(f"{page}/api/studies/{study._study_id}?after=0"))
        plots = {plot["id"]: plot["graph_object"] for plot in detail["plotly_graph_objects"]}
        if "optnas-history" not in plots:
            return 0
        return sum(
            len(t["x"]) for t in json.loads(plots["optnas-history"])["data"] if t["name"] == "complete"
        )

    try:
        for n_trials in (2, 4):
            optimize(study, OBJECTIVE, n_trials, show_progress=False)
            wait_for(lambda n_trials=n_trials: points() == n_trials)
    finally:
        stop.set()
        keeper.join()
