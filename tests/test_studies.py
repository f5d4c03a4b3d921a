"""Every study runs as it stands, with its own space, data, sampler and pruner, on a tiny budget."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from optnas import best, optimize, record
from optnas.cli.job import load_job
from optnas.cli.results import train_baseline
from optnas.facts.cost import materialize
from optnas.search import counts
from optnas.trial import replay

STUDIES = Path(__file__).parents[1] / "studies"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of its own; what a study file imports from its folder is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(STUDIES)):
            del sys.modules[name]


JOBS = [file for file in sorted(STUDIES.glob("*.py")) if "\nobjective = " in file.read_text()]
SCRIPTS = [*(set(STUDIES.glob("*.py")) - set(JOBS)), *STUDIES.glob("benchmarks/*.py")]


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.name)
def test_study_runs(file: Path, elsewhere: Path) -> None:
    job = load_job(file, "sqlite:///tiny.db", None)
    if hasattr(job.objective.estimator, "max_epochs"):
        job.objective.estimator.max_epochs = 1
    study = job.create_study()
    optimize(study, job.objective, 2)
    trials = study.get_trials()
    assert sum(map(counts, trials)) == 2
    assert [record.why(trial) for trial in trials if not counts(trial) and not trial.values] == []
    if job.baseline is not None:
        [run] = train_baseline(job, best(study, job.objective), n_seeds=1, max_epochs=None)
        assert set(job.objective.values) <= set(run)


SHARED = [file for file in sorted(STUDIES.glob("*.py")) if '"shared"' in file.read_text()]


@pytest.mark.parametrize("file", SHARED, ids=lambda file: file.name)
def test_study_runs_where_no_data_is_beside_the_repository(file: Path, elsewhere: Path) -> None:
    copy = elsewhere / "repository" / "studies" / file.name
    copy.parent.mkdir(parents=True)
    copy.write_text(file.read_text())
    job = load_job(copy, "sqlite:///tiny.db", None)
    training = job.objective.estimator
    training.max_epochs = 1
    x, _ = next(iter(training.data.train_dataloader()))
    model = materialize(job.baseline(replay({})), x)
    assert set(job.objective.values) <= set(training(model, job.create_study().ask()))


@pytest.mark.parametrize("file", sorted(STUDIES.rglob("*.py")), ids=lambda file: file.name)
def test_study_says_how_to_run_it(file: Path) -> None:
    text = ast.get_docstring(ast.parse(file.read_text()))
    assert text is not None
    assert str(file.relative_to(STUDIES.parent)) in text


@pytest.mark.parametrize("file", sorted(SCRIPTS), ids=lambda file: file.name)
def test_script_finds_what_it_imports_and_runs_only_when_asked(
    file: Path, elsewhere: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A script takes minutes; the gate does not."""
    runpy.run_path(str(file), run_name="imported")
    assert capfd.readouterr().out == ""
    assert list(elsewhere.iterdir()) == []


def test_every_study_has_a_row_in_the_table() -> None:
    table = (STUDIES / "README.md").read_text()
    assert [file.name for file in sorted(STUDIES.glob("*.py")) if file.name not in table] == []
