from pathlib import Path

import numpy as np
import pytest
from fixtures.tables import rows_reached

from optnas.hub import nasbench_macro
from optnas.space import count

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def test_a_table_is_read_by_the_blocks(tmp_path: Path) -> None:
    arch = np.array([[0] * 8, [2, 1] * 4])
    accuracy = np.array([[90.0, 91.0, 92.0], [93.0, 93.0, 93.0]])
    np.savez(tmp_path / "t.npz", arch=arch, test_acc=accuracy, params=[5, 6], flops=[7, 8])
    table = nasbench_macro.table_from(tmp_path / "t.npz")
    assert table.means[table.row(("identity",) * 8)] == 91.0
    assert table.means[table.row(("mb6_k5", "mb3_k3") * 4)] == 93.0
    assert table.facts["flops"].tolist() == [14, 16]


@pytest.mark.skipif(not DATA.exists(), reason="the shared folder of reference data is not here")
def test_the_table_has_the_published_optimum() -> None:
    table = nasbench_macro.table_from(DATA / "nasbench_macro.npz")
    assert table.means[table.best] == pytest.approx(93.13, abs=0.006)
    # Two keys are the same network: an identity before the last group's block or after it.
    published = tuple(nasbench_macro.BLOCKS[int(digit)] for digit in "22212220")
    assert table.means[table.row(published)] == table.means[table.best]
    assert count(table.space) == len(table.keys) == 3**8
    assert len(rows_reached(table)) > 150
