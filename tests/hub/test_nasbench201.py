from pathlib import Path

import numpy as np
import pytest
import torch

from optnas.benchmarks import tables
from optnas.facts import count_flops, count_params
from optnas.hub import nasbench201
from optnas.trial import replay

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"

OPS = nasbench201.OPS


def params_of(ops):
    return {f"edge.{i}-{j}": op for (i, j), op in zip(nasbench201.EDGES, ops, strict=True)}


def build(ops, **settings):
    with torch.device("meta"):
        return nasbench201.network(replay(params_of(ops)), **settings)


def test_cell_reads_as_edges_and_operations() -> None:
    ops = (*OPS, "none")
    assert nasbench201.cell(replay(params_of(ops))) == ops


@pytest.mark.skipif(not DATA.exists(), reason="the shared folder of reference data is not here")
def test_parameters_and_flops_are_the_published_ones() -> None:
    table = tables.nasbench201_npz(DATA / "nasbench201_cifar10.npz")
    for row in np.random.default_rng(0).integers(len(table.keys), size=15):
        network = build(table.keys[row])
        assert count_params(network) == table.facts["n_params"][row]
        assert count_flops(network, (1, 3, 32, 32)) == table.facts["flops"][row]


@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100), ("imagenet16", 120)])
def test_parameters_are_those_of_the_installed_tables(dataset, classes) -> None:
    table = tables.nasbench201(dataset)
    for row in np.random.default_rng(1).integers(len(table.keys), size=5):
        assert count_params(build(table.keys[row], classes=classes)) == table.facts["n_params"][row]


def test_a_cell_computes_its_graph() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 8)
    pool = torch.nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def cell(*ops):
        return nasbench201.Cell(ops, 4)(x)

    none, skip, avg = "none", "skip_connect", "avg_pool_3x3"
    assert torch.equal(cell(*[none] * 6), torch.zeros_like(x))
    torch.testing.assert_close(cell(*[skip] * 6), 4 * x)  # four paths from the input to the output
    torch.testing.assert_close(cell(avg, none, avg, none, none, skip), pool(pool(x)))
    torch.testing.assert_close(cell(skip, none, none, avg, skip, none), pool(x) + x)


def test_the_network_classifies() -> None:
    network = nasbench201.network(replay(params_of((*OPS, "nor_conv_3x3"))), channels=4, cells=1, classes=7)
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 7)
