"""NAS-Bench-Macro: eight layers, each skipped or an inverted bottleneck (Su et al., CVPR 2021)."""

from __future__ import annotations

from os import PathLike

import numpy as np

from optnas.benchmarks.tabular import Table
from optnas.trial import Trial, scope

LAYERS = 8
BLOCKS = ("identity", "mb3_k3", "mb6_k5")


def blocks(trial: Trial) -> tuple[str, ...]:
    """The block of each layer, one of 6,561 networks. `mb6_k5`: expansion 6, kernel 5."""
    return tuple(scope(trial, "layer", i).suggest_categorical("block", BLOCKS) for i in range(LAYERS))


def table_from(path: str | PathLike[str]) -> Table:
    """NAS-Bench-Macro on CIFAR-10 from an `.npz` file: test accuracy in % of three trainings.

    The source has no validation accuracy, so the searched metric is called what it is, `test_acc`.

    Fields: `arch` (6561, 8) indices into the three blocks, `test_acc` (6561, 3), `params`, `flops` in
    multiply-adds.
    """
    with np.load(path, allow_pickle=False) as file:
        return Table(
            name="nasbench-macro",
            space=blocks,
            keys=[tuple(BLOCKS[block] for block in arch) for arch in file["arch"]],
            metric="test_acc",
            direction="maximize",
            values=file["test_acc"].astype(float),
            facts={"n_params": file["params"], "flops": 2 * file["flops"]},
        )
