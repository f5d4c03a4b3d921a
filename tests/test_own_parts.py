"""A user's own fact, sampler, estimator and space, each in a file of its own, are seen wherever ours are."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import optuna
import pytest
from rich.console import Console

import optnas
from optnas import record
from optnas.analysis import leaderboard, leaderboard_table, pareto_front
from optnas.dashboard.notes import Notes
from optnas.progress.table import progress_table
from optnas.reports.report import report

OWN = {
    "own_space": """
from torch import nn
from optnas import scope

def towers(trial):
    place = scope(trial, "tower")
    width = place.suggest_int("bricks", 3, 40)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))
""",
    "own_fact": """
from optnas import Fact

ENERGY = Fact(
    "energy", lambda model, example: 0.5 + sum(p.numel() for p in model.parameters()),
    title="energy per inference", unit="mJ", better="lower",
)
""",
    "own_estimator": """
from optnas import Estimator

class Guess(Estimator):
    values = {"hunch": "maximize"}

    def __call__(self, model, run):
        slope = run.suggest_float("slope", 0.5, 1.0)
        for step in range(2):
            run.report(step, {"hunch": slope * step})
        return {"hunch": slope * model[0].out_features, "doubt": 0.25}
""",
    "own_sampler": """
import optuna

class Ladder(optuna.samplers.BaseSampler):
    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, name, distribution):
        study._storage.set_trial_system_attr(trial._trial_id, "ladder", trial.number)
        return min(distribution.high, distribution.low + trial.number)
""",
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ModuleType]]:
    """Imports one of the files, which lie outside of the package."""
    folder = tmp_path_factory.mktemp("own")

    def load(name: str) -> ModuleType:
        (folder / f"{name}.py").write_text(OWN[name])
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
        return sys.modules[name]

    yield load
    for name in OWN:
        sys.modules.pop(name, None)


@pytest.fixture
def study(
    own: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[optuna.Study, list[dict[str, object]]]:
    """A search with all four, and the events that programs were told."""
    objective = optnas.Objective(
        own("own_space").towers,
        own("own_estimator").Guess(),
        example=(1, 4),
        facts=[own("own_fact").ENERGY],
    )
    study = optnas.create_study(
        objective, storage=f"sqlite:///{tmp_path}/nas.db", sampler=own("own_sampler").Ladder(), seed=0
    )
    optnas.optimize(study, objective, 4, show_progress="json")
    return study, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


Searched = tuple[optuna.Study, list[dict[str, object]]]


def table(study: optuna.Study) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(leaderboard_table(leaderboard(study)))
    return console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def reported(study: optuna.Study, tmp_path: Path) -> list[str]:
    """The report in HTML and in Markdown, read as a reader does."""
    html = report(study, tmp_path / "report.html").read_text()
    return [html, report(study, tmp_path / "report.md").read_text().replace("\\", "")]


def test_a_fact_is_shown_with_its_title_and_unit(study: Searched, tmp_path: Path) -> None:
    searched, events = study
    best = searched.best_trial
    energy = best.user_attrs["energy"]
    assert isinstance(energy, float)
    assert leaderboard(searched)[0].facts["energy"] == record.facts(best)["energy"] == energy
    assert "energy per inference (mJ)" in table(searched)
    assert f"{energy:.5g}" in table(searched)
    for text in reported(searched, tmp_path):
        assert f"energy per inference {energy:.5g} mJ" in text
        assert "energy per inference (mJ)" in text
    assert f"energy per inference {energy:.5g} mJ" in Notes(searched).of(best.number)
    told = [event for event in events if event["event"] == "trial"]
    assert [event["facts"]["energy"] for event in told] == [  # type: ignore[index]  # an object
        record.facts(trial)["energy"] for trial in searched.trials
    ]
    console = Console(file=io.StringIO(), width=80)
    console.print(progress_table(searched, 4))
    assert f"energy per inference {energy:.5g} mJ" in console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    figure = optnas.plots.plot_front(searched, x="energy")
    assert figure.layout.xaxis.title.text == "energy per inference (mJ)"
    assert [trial.number for trial in pareto_front(searched, x="energy")] == [0, 1, 2, 3]


def test_a_sampler_answers_and_its_answers_are_shown(study: Searched, tmp_path: Path) -> None:
    searched, events = study
    answers = [trial.params["tower.bricks"] for trial in searched.trials]
    assert answers == [3, 4, 5, 6]
    assert [trial.system_attrs["ladder"] for trial in searched.trials] == [0, 1, 2, 3]
    assert [e["params"]["tower.bricks"] for e in events if e["event"] == "trial"] == answers  # type: ignore[index]  # an object
    assert "tower.bricks=6" in table(searched)
    assert all("tower.bricks=6" in text for text in reported(searched, tmp_path))
    assert "**tower**: bricks `6`" in Notes(searched).of(3)


def test_an_estimator_says_what_is_optimized_and_what_it_measured(study: Searched, tmp_path: Path) -> None:
    searched, events = study
    assert searched.metric_names == ["hunch"]
    assert searched.best_value == 6.0
    assert searched.trials[3].intermediate_values == {0: 0.0, 1: 1.0}
    assert [e["metrics"]["doubt"] for e in events if e["event"] == "trial"] == [0.25] * 4  # type: ignore[index]  # an object
    for text in reported(searched, tmp_path):
        assert "The largest hunch is 6, of trial 3." in text
    assert "slope=1" in table(searched)
    assert "- **Scores**: hunch 6, doubt 0.25" in Notes(searched).of(3)


def test_a_space_is_built_drawn_and_explained(study: Searched, tmp_path: Path) -> None:
    searched, _ = study
    objective = optnas.Objective(
        sys.modules["own_space"].towers, sys.modules["own_estimator"].Guess(), example=(1, 4)
    )
    html = report(searched, tmp_path / "report.html", objective).read_text()
    assert "It could not be drawn" not in html
    assert "<figcaption>The network</figcaption>" in html
    assert searched.study_name == "towers"
    assert len({record.FINGERPRINT.of(trial) for trial in searched.trials}) == 4
    assert [record.facts(trial)["n_params"] for trial in searched.trials] == [7 * n + 2 for n in (3, 4, 5, 6)]
