from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.tables import rows_reached
from torch import nn

from optnas.facts import count_flops, count_params
from optnas.hub import nasbench_macro
from optnas.space import count
from optnas.trial import replay

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"

needs_data = pytest.mark.skipif(not DATA.exists(), reason="the shared folder of reference data is not here")


def test_a_table_is_read_by_the_blocks(tmp_path: Path) -> None:
    arch = np.array([[0] * 8, [2, 1] * 4])
    accuracy = np.array([[90.0, 91.0, 92.0], [93.0, 93.0, 93.0]])
    np.savez(tmp_path / "t.npz", arch=arch, test_acc=accuracy, params=[5, 6], flops=[7, 8])
    table = nasbench_macro.table_from(tmp_path / "t.npz")
    assert table.means[table.row(("identity",) * 8)] == 91.0
    assert table.means[table.row(("mb6_k5", "mb3_k3") * 4)] == 93.0
    assert table.facts["flops"].tolist() == [14, 16]


@needs_data
def test_the_table_has_the_published_optimum() -> None:
    table = nasbench_macro.table_from(DATA / "nasbench_macro.npz")
    assert table.means[table.best] == pytest.approx(93.13, abs=0.006)
    # Two keys are the same network: an identity before the last group's block or after it.
    published = tuple(nasbench_macro.BLOCKS[int(digit)] for digit in "22212220")
    assert table.means[table.row(published)] == table.means[table.best]
    assert count(table.space) == len(table.keys) == 3**8
    assert len(rows_reached(table)) > 150


def build(arch, **settings):
    with torch.device("meta"):
        params = {f"layer.{i}.block": nasbench_macro.BLOCKS[block] for i, block in enumerate(arch)}
        return nasbench_macro.network(replay(params), **settings)


@needs_data
def test_parameters_and_flops_are_the_published_ones() -> None:
    with np.load(DATA / "nasbench_macro.npz") as file:
        archs, n_params, flops = file["arch"], file["params"], 2 * file["flops"]
    for row in np.random.default_rng(0).integers(len(archs), size=15):
        network = build(archs[row])
        assert count_params(network) == n_params[row]
        assert count_flops(network, (1, 3, 32, 32)) == flops[row]


def test_a_network_reads_images_and_identities_do_nothing() -> None:
    network = build([2, 0, 0, 0, 0, 1, 1, 2], channels=4, classes=7)
    assert network(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 7)
    assert sum(isinstance(module, nn.Identity) for module in network) == 3
    fewer = build([2, 0, 0, 0, 0, 1, 1, 0], channels=4, classes=7)
    [last] = [module for module in network if isinstance(module, nasbench_macro.Residual)][-1:]
    assert count_params(network) - count_params(fewer) == count_params(last)
