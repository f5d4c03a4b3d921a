"""DARTS, cells of four nodes (Liu, Simonyan & Yang, ICLR 2019, arXiv:1806.09055).

`genotype` asks for the two cells, `network` builds the network of the paper around them. `V1` and `V2` are
the cells that the paper found with first and second order on CIFAR-10: `network(replay(V2))` has the 3.3
million parameters of its table 1, and around 48 channels and 14 cells the 4.7 million of table 2. The paper
counts without the auxiliary classifier of the training, which is left out here.

Examples:
    >>> from optnas.hub import darts
    >>> darts.genotype(replay(darts.V2)).normal[0]
    ('sep_conv_3x3', 0)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from optnas.hub.cells import FactorizedReduction, pool, relu_conv_bn, separable
from optnas.space.blocks import StochasticDepth
from optnas.trial import Trial, replay, scope

NODES = (2, 3, 4, 5)
"""The nodes of a cell; 0 and 1 are its inputs: what the cell before the last and the last one gave."""


class Genotype(NamedTuple):
    """A pair of cells in the notation of the paper's code.

    `normal` and `reduce` list two edges for each node, (operation, where it comes from), and `..._concat` the
    nodes that make the output, which are all four.
    """

    normal: list[tuple[str, int]]
    normal_concat: list[int]
    reduce: list[tuple[str, int]]
    reduce_concat: list[int]


def genotype(trial: Trial) -> Genotype:
    """Both cells, each one of about 10^9.

    `normal.inputs.<node>` says which two nodes a node reads, `normal.<from>-<to>` which operation is between;
    `reduce` likewise. Edges are listed in the order of where they come from.
    """
    normal, reduce = (_cell(scope(trial, kind)) for kind in ("normal", "reduce"))
    return Genotype(normal, list(NODES), reduce, list(NODES))


def params_of(genotype: Genotype) -> dict[str, Any]:
    """The answers that lead to a genotype, `space(replay(params_of(genotype)))`.

    Raises:
        ValueError: it is not in the space.
    """
    params: dict[str, Any] = {}
    cells: dict[str, Sequence[tuple[str, int]]] = {"normal": genotype.normal, "reduce": genotype.reduce}
    for kind, concat in (("normal", genotype.normal_concat), ("reduce", genotype.reduce_concat)):
        if sorted(concat) != list(NODES) or len(cells[kind]) != 2 * len(NODES):
            raise ValueError(
                f"{kind} has {len(cells[kind])} edges, and nodes {list(concat)} make the output; a cell of "
                f"DARTS "
                f"has {2 * len(NODES)}, and all of its nodes {list(NODES)} make the output."
            )
    for kind, edges in cells.items():
        for node in NODES:
            pair = sorted(edges[2 * (node - 2) : 2 * (node - 1)], key=lambda edge: edge[1])
            (_, first), (_, second) = pair
            if not 0 <= first < second < node or not all(op in OPS for op, _ in pair):
                raise ValueError(
                    f"Node {node} of {kind} reads {pair}; it takes two different nodes before it, each "
                    f"through one of {', '.join(OPS)}."
                )
            if node > 2:
                params[f"{kind}.inputs.{node}"] = f"{first}+{second}"
            params |= {f"{kind}.{start}-{node}": op for op, start in pair}
    return params


def genotype_of(params: Mapping[str, Any]) -> Genotype:
    """The cells of a trial, from its params."""
    names = [f"{kind}.{name}" for kind in ("normal", "reduce") for name in ("inputs.", "")]
    return genotype(
        replay({name: answer for name, answer in params.items() if name.startswith(tuple(names))})
    )


def network(
    trial: Trial,
    *,
    channels: int = 36,
    layers: int = 20,
    classes: int = 10,
    drop_path: float = 0.0,
    large_images: bool = False,
) -> Network:
    """The classifier of the paper: `(n, 3, height, width)` to `(n, classes)`.

    The defaults are those of CIFAR-10. For ImageNet the paper takes `channels=48, layers=14, classes=1000`
    and `large_images`: a stem that divides the sizes by eight. Cells number `layers // 3` and `2 * layers //
    3` halve the sizes and double the channels. `drop_path` is the probability of dropping an operation of a
    sample.
    """
    return Network(genotype(trial), channels, layers, classes, drop_path, large_images)


def _cell(trial: Trial) -> list[tuple[str, int]]:
    edges = []
    for node in NODES:
        pairs = [f"{i}+{j}" for i, j in combinations(range(node), 2)]
        pair = trial.suggest_categorical(f"inputs.{node}", pairs) if len(pairs) > 1 else pairs[0]
        for start in map(int, pair.split("+")):
            edges.append((trial.suggest_categorical(f"{start}-{node}", list(OPS)), start))
    return edges


class Network(nn.Module):
    """Cells in sequence, each of which reads the last two."""

    def __init__(
        self,
        genotype: Genotype,
        channels: int,
        layers: int,
        classes: int,
        drop_path: float,
        large_images: bool,
    ) -> None:
        super().__init__()
        if large_images:
            half = nn.Conv2d(3, channels // 2, 3, 2, 1, bias=False)
            self.stem: nn.Module = nn.Sequential(
                half, nn.BatchNorm2d(channels // 2), relu_conv_bn(channels // 2, channels, 3, 2)
            )
            self.second_stem: nn.Module = relu_conv_bn(channels, channels, 3, 2)
            before, last, halved = channels, channels, True
        else:
            wide = 3 * channels
            self.stem = nn.Sequential(nn.Conv2d(3, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide))
            self.second_stem = nn.Identity()
            before, last, halved = wide, wide, False
        self.cells = nn.ModuleList()
        for i in range(layers):
            reduction = i in (layers // 3, 2 * layers // 3)
            channels *= 1 + reduction
            edges = genotype.reduce if reduction else genotype.normal
            self.cells.append(Cell(edges, before, last, channels, reduction, halved, drop_path))
            before, last, halved = last, len(NODES) * channels, reduction
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        before = self.stem(x)
        last = self.second_stem(before)
        for cell in self.cells:
            before, last = last, cell(before, last)
        scores: Tensor = self.classifier(last.mean((2, 3)))
        return scores


class Cell(nn.Module):
    """Four nodes, each the sum of two operations; all are concatenated.

    Args:
        edges: as in `Genotype`.
        before, last: channels of the two inputs.
        channels: of each node.
        reduction: whether the cell halves the sizes.
        halved: whether the last cell did.
    """

    def __init__(
        self,
        edges: Sequence[tuple[str, int]],
        before: int,
        last: int,
        channels: int,
        reduction: bool,
        halved: bool,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        align = FactorizedReduction if halved else relu_conv_bn
        self.before: nn.Module = align(before, channels)
        self.last = relu_conv_bn(last, channels)
        self.starts = [start for _, start in edges]
        self.edges = nn.ModuleList()
        for op, start in edges:
            layer = OPS[op](channels, 2 if reduction and start < 2 else 1)
            drop = drop_path > 0 and not isinstance(layer, nn.Identity)
            self.edges.append(nn.Sequential(layer, StochasticDepth(drop_path)) if drop else layer)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        nodes = [self.before(before), self.last(last)]
        values = iter(zip(self.edges, self.starts, strict=True))
        for _ in NODES:
            (first, i), (second, j) = next(values), next(values)
            nodes.append(torch.add(first(nodes[i]), second(nodes[j])))
        return torch.cat(nodes[2:], 1)


def _twice(kernel: int) -> Callable[[int, int], nn.Module]:
    def build(width: int, stride: int) -> nn.Module:
        return nn.Sequential(separable(width, width, kernel, stride), separable(width, width, kernel))

    return build


OPS: dict[str, Callable[[int, int], nn.Module]] = {
    "max_pool_3x3": lambda width, stride: pool("max", 3, stride),
    "avg_pool_3x3": lambda width, stride: pool("avg", 3, stride),
    "skip_connect": lambda width, stride: nn.Identity() if stride == 1 else FactorizedReduction(width, width),
    "sep_conv_3x3": _twice(3),
    "sep_conv_5x5": _twice(5),
    "dil_conv_3x3": lambda width, stride: separable(width, width, 3, stride, dilation=2),
    "dil_conv_5x5": lambda width, stride: separable(width, width, 5, stride, dilation=2),
}
"""The operations of an edge by name; "none", which the search weighs, is in no cell that is derived."""

_CONCAT = list(NODES)

V1 = params_of(
    Genotype(
        normal=[
            *[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1)],
            *[("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 2)],
        ],
        normal_concat=_CONCAT,
        reduce=[
            *[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0)],
            *[("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("avg_pool_3x3", 0)],
        ],
        reduce_concat=_CONCAT,
    )
)
"""Found with first-order approximation."""

V2 = params_of(
    Genotype(
        normal=[
            *[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1)],
            *[("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2)],
        ],
        normal_concat=_CONCAT,
        reduce=[
            *[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1)],
            *[("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1)],
        ],
        reduce_concat=_CONCAT,
    )
)
"""Found with second-order approximation."""
