from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.tables import rows_reached

from optnas.facts import count_flops, count_params
from optnas.hub import nasbench201
from optnas.space import count
from optnas.trial import replay

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"

needs_data = pytest.mark.skipif(not DATA.exists(), reason="the shared folder of reference data is not here")

OPS = nasbench201.OPS
OPTIMA = {"cifar10": 91.61, "cifar100": 73.49, "imagenet16": 46.73}  # Dong & Yang 2020, table 4


def params_of(ops):
    return {f"edge.{i}-{j}": op for (i, j), op in zip(nasbench201.EDGES, ops, strict=True)}


def build(ops, **settings):
    with torch.device("meta"):
        return nasbench201.network(replay(params_of(ops)), **settings)


def test_cell_reads_as_edges_and_operations() -> None:
    ops = (*OPS, "none")
    assert nasbench201.cell(replay(params_of(ops))) == ops


def test_the_notation_of_the_paper_converts_both_ways() -> None:
    ops = (*OPS, "none")
    text = "|none~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_3x3~0|avg_pool_3x3~1|none~2|"
    assert nasbench201.notation_of(params_of(ops)) == text
    assert nasbench201.params_of(text) == params_of(ops)
    with pytest.raises(ValueError, match="is not like"):
        nasbench201.params_of("|none~0|+|none~0|none~1|")
    with pytest.raises(ValueError, match="'conv'; an operation is one of none, skip_connect"):
        nasbench201.params_of(text.replace("nor_conv_1x1", "conv"))


@needs_data
def test_parameters_and_flops_are_the_published_ones() -> None:
    table = nasbench201.table_from(DATA / "nasbench201_cifar10.npz")
    for row in np.random.default_rng(0).integers(len(table.keys), size=15):
        network = build(table.keys[row])
        assert count_params(network) == table.facts["n_params"][row]
        assert count_flops(network, (1, 3, 32, 32)) == table.facts["flops"][row]


@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100), ("imagenet16", 120)])
def test_parameters_are_those_of_the_installed_tables(dataset, classes) -> None:
    table = nasbench201.table(dataset)
    for row in np.random.default_rng(1).integers(len(table.keys), size=5):
        assert count_params(build(table.keys[row], classes=classes)) == table.facts["n_params"][row]


def test_a_cell_computes_its_graph() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 8)
    pool = torch.nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def cell(*ops):
        return nasbench201.Cell.of(ops, 4)(x)

    none, skip, avg = "none", "skip_connect", "avg_pool_3x3"
    assert torch.equal(cell(*[none] * 6), torch.zeros_like(x))
    torch.testing.assert_close(cell(*[skip] * 6), 4 * x)  # four paths from the input to the output
    torch.testing.assert_close(cell(avg, none, avg, none, none, skip), pool(pool(x)))
    torch.testing.assert_close(cell(skip, none, none, avg, skip, none), pool(x) + x)


def test_the_network_classifies() -> None:
    network = nasbench201.network(replay(params_of((*OPS, "nor_conv_3x3"))), channels=4, cells=1, classes=7)
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 7)


@pytest.mark.parametrize("dataset", OPTIMA)
def test_the_table_has_the_published_optimum(dataset: str) -> None:
    table = nasbench201.table(dataset)
    assert table.means[table.best] == pytest.approx(OPTIMA[dataset], abs=0.006)
    assert count(table.space) == len(table.keys) == 5**6


@needs_data
def test_two_sources_of_the_table_agree() -> None:
    package, file = nasbench201.table(), nasbench201.table_from(DATA / "nasbench201_cifar10.npz")
    ours = np.array([package.means[package.row(key)] for key in file.keys])
    np.testing.assert_allclose(ours, file.means, atol=1e-4)
    assert file.test is not None
    assert file.test.max() == pytest.approx(94.37, abs=0.006)


def test_every_drawn_cell_is_in_the_table_and_an_unknown_data_set_is_refused() -> None:
    assert len(rows_reached(nasbench201.table())) > 150
    with pytest.raises(ValueError, match=r"dataset='svhn'.*cifar100"):
        nasbench201.table("svhn")
