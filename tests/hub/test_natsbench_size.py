from pathlib import Path

import numpy as np
import pytest
from fixtures.tables import rows_reached

from optnas.hub import natsbench_size
from optnas.space import count

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def test_a_table_is_read_by_the_widths(tmp_path: Path) -> None:
    channels = np.array([[8, 16, 24, 32, 64], [64] * 5])
    np.savez(
        tmp_path / "t.npz",
        channels=channels,
        c10_test_acc_90=[90.0, 91.0],
        c10_params=[5, 6],
        c10_flops=[7, 8],
    )
    table = natsbench_size.table_from(tmp_path / "t.npz")
    assert table.means[table.row((8, 16, 24, 32, 64))] == 90.0
    assert table.facts["flops"].tolist() == [14, 16]
    assert table.best == 1


@pytest.mark.skipif(not DATA.exists(), reason="the shared folder of reference data is not here")
def test_the_table_has_the_published_optimum() -> None:
    table = natsbench_size.table_from(DATA / "natsbench_size_cifar10.npz")
    assert table.means.max() == pytest.approx(93.65, abs=0.006)
    assert count(table.space) == len(table.keys) == 8**5
    assert len(rows_reached(table)) > 150
