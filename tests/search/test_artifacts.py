"""Every finished trial of a search that keeps files has a drawing, which the dashboard serves and shows."""

from __future__ import annotations

import io
import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import optuna
import pytest
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.dashboard.serve import make_server
from optnas.estimation.artifacts import DRAWING, StudyArtifacts, drawing_id
from optnas.objective import Objective
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.trial import Trial


def space(trial: Trial) -> nn.Module:
    width = trial.suggest_int("width", 3, 99)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))


def estimate(model: nn.Module, trial: optuna.Trial) -> dict[str, float]:
    if trial.number == 1:
        raise optuna.TrialPruned
    if trial.number == 2:
        raise RuntimeError("no luck")
    return {"score": float(trial.params["width"])}


@pytest.fixture
def searched(tmp_path: Path) -> optuna.Study:
    objective = Objective(space, estimate, values={"score": "maximize"}, example=(2, 4))
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/nas.db", seed=0)
    study.set_user_attr(record.FOLDER.name, str(tmp_path / "files"))  # as Training does
    optimize(study, objective, 3, show_progress=False)
    return study


@pytest.fixture
def url(searched: optuna.Study) -> Iterator[str]:
    with make_server(searched._storage, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def get(url: str) -> tuple[str, bytes]:
    with urllib.request.urlopen(url, timeout=600) as answer:
        return answer.headers["Content-Type"], answer.read()


def test_the_dashboard_lists_and_serves_the_drawing_of_every_trial(searched: optuna.Study, url: str) -> None:
    detail: dict[str, Any] = json.loads(get(f"{url}/api/studies/{searched._study_id}?after=0")[1])
    trials = detail["trials"]
    assert {trial["state"] for trial in trials} == {"Complete", "Pruned", "Fail"}
    for trial in trials:
        [artifact] = trial["artifacts"]
        assert artifact["filename"] == DRAWING
        path = f"/artifacts/{searched._study_id}/{trial['trial_id']}/{artifact['artifact_id']}"
        kind, svg = get(url + path)
        assert kind == "image/svg+xml"
        width = searched.trials[trial["number"]].params["width"]
        shown = [node.text for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
        assert str(width) in shown
        assert f"{5 * width + 2 * width + 2:,} parameters" in shown


def test_an_artifact_that_nobody_has_is_not_found(searched: optuna.Study) -> None:
    with pytest.raises(optuna.artifacts.exceptions.ArtifactNotFound):
        StudyArtifacts(searched._storage).open_reader("0-0")


def test_what_users_add_on_a_page_can_be_read_and_removed(
    searched: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = StudyArtifacts(searched._storage)
    store.write("abc", io.BytesIO(b"note"))
    with store.open_reader("abc") as file:
        assert file.read() == b"note"
    store.remove("abc")
    with pytest.raises(optuna.artifacts.exceptions.ArtifactNotFound):
        store.open_reader("abc")


def test_a_search_that_keeps_no_files_or_cannot_draw_runs_as_before(tmp_path: Path) -> None:
    def lazy(trial: Trial) -> nn.Module:
        return nn.Linear(4, trial.suggest_int("width", 3, 99))

    objective = Objective(lazy, estimate, values={"score": "maximize"}, example=(2, 4))
    without = create_study(objective, seed=0)
    optimize(without, objective, 1, show_progress=False)
    blocked = create_study(objective, seed=0)
    (tmp_path / "file").write_text("where the folder should be")
    blocked.set_user_attr(record.FOLDER.name, str(tmp_path / "file"))
    optimize(blocked, objective, 1, show_progress=False)
    for study in (without, blocked):
        assert study.trials[0].state == TrialState.COMPLETE
        assert not [name for name in study.trials[0].system_attrs if name.startswith("artifacts:")]


def test_a_browser_shows_the_drawing_and_the_note_on_the_page_of_a_trial(
    searched: optuna.Study, url: str, browse: Callable[[str], tuple[str, list[str]]]
) -> None:
    dom, console = browse(f"{url}/dashboard/studies/{searched._study_id}/trials?numbers=0")
    trial = searched.trials[0]
    image = f"/artifacts/{searched._study_id}/{trial._trial_id}/{drawing_id(trial)}"
    images = re.findall(r'<img[^>]* src="([^"]*)"', dom)
    assert images.count(image) == 2  # in the note, and small among the artifacts
    assert f"{trial.user_attrs['n_params']:,} parameters" in dom
    assert re.search(rf"width <code[^>]*>{trial.params['width']}</code>", dom)
    assert not [line for line in console if "Content Security Policy" in line]
