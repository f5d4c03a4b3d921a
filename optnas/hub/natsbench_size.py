"""NATS-Bench size space: five widths of a residual network (Dong et al., TPAMI 44(7), 2021).

Examples:
    >>> from optnas.hub import natsbench_size
    >>> natsbench_size.widths(replay(optnas.sample(natsbench_size.widths, 0)))
    (56, 48, 40, 24, 24)
"""

from __future__ import annotations

from os import PathLike

import numpy as np

from optnas.benchmarks.tabular import Table
from optnas.trial import Trial, scope

LAYERS = 5
WIDTHS = range(8, 65, 8)


def widths(trial: Trial) -> tuple[int, ...]:
    """The output channels of the stem and of the four groups, one of 32,768 combinations."""
    return tuple(
        scope(trial, "layer", i).suggest_int("channels", WIDTHS[0], WIDTHS[-1], step=WIDTHS.step)
        for i in range(LAYERS)
    )


def table_from(path: str | PathLike[str]) -> Table:
    """NATS-Bench size on CIFAR-10 from an `.npz` file: test accuracy in % after 90 epochs.

    The source has no validation accuracy, so the searched metric is called what it is, `test_acc`.

    Fields: `channels` (32768, 5), `c10_test_acc_90`, `c10_params`, `c10_flops` in multiply-adds.
    """
    with np.load(path, allow_pickle=False) as file:
        return Table(
            name="natsbench-size",
            space=widths,
            keys=[tuple(key) for key in file["channels"].tolist()],
            metric="test_acc",
            direction="maximize",
            values=file["c10_test_acc_90"].astype(float)[:, None],
            facts={"n_params": file["c10_params"], "flops": 2 * file["c10_flops"]},
        )
