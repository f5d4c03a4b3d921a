"""NASNet, cells of five blocks (Zoph, Vasudevan, Shlens & Le, CVPR 2018, arXiv:1707.07012).

`genotype` asks for the two cells, `network` builds the network of the paper around them. `A` are the cells of
NASNet-A: `network(replay(A))` is NASNet-A (4 @ 1056), whose 5.3 million parameters (paper, table 3) are
exactly 5,289,978, the trainable ones of Keras's NASNetMobile; with `cells=6, filters=4032, stem=96` it is
NASNet-A (6 @ 4032), 88.9 million, exactly 88,753,150 (NASNetLarge). On CIFAR-10, `cells=6, filters=768,
classes=10, large_images=False` has 3.3 million (table 1). All without the auxiliary classifier of the
training.

Examples:
    >>> from optnas.hub import nasnet
    >>> nasnet.genotype(replay(nasnet.A)).normal[0]
    ('sep_conv_5x5', 1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from optnas.hub.cells import FactorizedReduction, pool, relu_conv_bn, separable, two_steps
from optnas.trial import Trial, replay, scope

BLOCKS = (2, 3, 4, 5, 6)
"""The blocks of a cell; 0 and 1 are its inputs: what the cell before the last and the last one gave."""


class Genotype(NamedTuple):
    """A pair of cells, as `optnas.hub.darts.Genotype`: two edges (operation, where from) for each block."""

    normal: list[tuple[str, int]]
    normal_concat: list[int]
    reduce: list[tuple[str, int]]
    reduce_concat: list[int]


def genotype(trial: Trial) -> Genotype:
    """Both cells. Each block adds two operations on any two of what is before it, twice the same allowed.

    `normal.<block>.first.input` and `.op`, `.second` likewise; `normal.concat.<i>` says whether input or
    block i is part of the output, as the last block always is. The paper concatenates what no block reads,
    its published cells more than that, and lets blocks concatenate their two operations, which no published
    cell does.
    """
    normal, normal_concat = _cell(scope(trial, "normal"))
    reduce, reduce_concat = _cell(scope(trial, "reduce"), inputs_too=False)
    return Genotype(normal, normal_concat, reduce, reduce_concat)


def params_of(genotype: Genotype) -> dict[str, Any]:
    """The answers that lead to a genotype.

    Raises:
        ValueError: it is not in the space.
    """
    params: dict[str, Any] = {}
    for kind, edges, concat in (
        ("normal", genotype.normal, genotype.normal_concat),
        ("reduce", genotype.reduce, genotype.reduce_concat),
    ):
        if len(edges) != 2 * len(BLOCKS) or BLOCKS[-1] not in concat:
            raise ValueError(
                f"{kind} has {len(edges)} edges and concatenates {list(concat)}; a cell of NASNet has "
                f"{2 * len(BLOCKS)} edges, and its last block, {BLOCKS[-1]}, is part of the output."
            )
        for i, (op, start) in enumerate(edges):
            block, side = BLOCKS[i // 2], ("first", "second")[i % 2]
            if op not in OPS or not 0 <= start < block:
                raise ValueError(
                    f"Block {block} of {kind} has ({op!r}, {start}); it reads one of 0 to {block - 1} "
                    f"through one of {', '.join(OPS)}."
                )
            params |= {f"{kind}.{block}.{side}.input": start, f"{kind}.{block}.{side}.op": op}
        lowest = 0 if kind == "normal" else 2
        if min(concat) < lowest:
            raise ValueError(f"{kind} concatenates {list(concat)}; its inputs are larger than its blocks.")
        params |= {f"{kind}.concat.{i}": i in concat for i in range(lowest, BLOCKS[-1])}
    return params


def genotype_of(params: Mapping[str, Any]) -> Genotype:
    """The cells of a trial, from its params."""
    return genotype(
        replay({name: answer for name, answer in params.items() if name.startswith(("normal.", "reduce."))})
    )


def network(
    trial: Trial,
    *,
    cells: int = 4,
    filters: int = 1056,
    stem: int = 32,
    classes: int = 1000,
    large_images: bool = True,
) -> Network:
    """The classifier of the paper: `(n, 3, height, width)` to `(n, classes)`.

    NASNet (cells @ filters): three times `cells` normal cells, with a reduction cell between; the last ones
    have `filters` channels together where six parts are concatenated, as in NASNet-A, so that a block has
    `filters / 24` in the beginning. `large_images`: a strided convolution of `stem` channels and two
    reduction cells come first; otherwise a convolution of three times as many channels as a block has.
    """
    return Network(genotype(trial), cells, filters // 24, stem, classes, large_images)


def _cell(trial: Trial, inputs_too: bool = True) -> tuple[list[tuple[str, int]], list[int]]:
    edges = []
    for block in BLOCKS:
        for side in ("first", "second"):
            asked = scope(trial, block, side)
            start = asked.suggest_int("input", 0, block - 1)
            edges.append((asked.suggest_categorical("op", list(OPS)), start))
    asked = scope(trial, "concat")
    parts = range(0 if inputs_too else 2, BLOCKS[-1])
    concat = [i for i in parts if asked.suggest_categorical(str(i), [False, True])]
    return edges, [*concat, BLOCKS[-1]]


class Network(nn.Module):
    """Cells in sequence, each of which reads the last two."""

    def __init__(
        self, genotype: Genotype, cells: int, width: int, stem: int, classes: int, large_images: bool
    ) -> None:
        super().__init__()
        stem = stem if large_images else 3 * width
        stride, pad = (2, 0) if large_images else (1, 1)
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, stride, pad, bias=False), nn.BatchNorm2d(stem))
        plan = [(width // 4, True), (width // 2, True)] if large_images else []
        for stage in range(3):
            plan += [(width * 2**stage, True)] if stage else []
            plan += [(width * 2**stage, False)] * cells
        self.cells = nn.ModuleList()
        # Channels of the cell before the last and of the last one, and how often each halved the sizes.
        before: tuple[int, int] | None = None
        last = (stem, 0)
        for channels, reduction in plan:
            edges = genotype.reduce if reduction else genotype.normal
            concat = genotype.reduce_concat if reduction else genotype.normal_concat
            halved = before is not None and before[1] < last[1]
            self.cells.append(
                Cell(
                    edges, concat, None if before is None else before[0], last[0], channels, reduction, halved
                )
            )
            before, last = last, (len(concat) * channels, last[1] + reduction)
        self.classifier = nn.Linear(last[0], classes)

    def forward(self, x: Tensor) -> Tensor:
        before = last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last)
        scores: Tensor = self.classifier(last.relu().mean((2, 3)))
        return scores


class Cell(nn.Module):
    """Five blocks, each the sum of two operations; what `concat` lists is the output.

    Args:
        edges, concat: as in `Genotype`.
        before, last: channels of the two inputs; None where there is no cell before the last, so that the
            last one's output is read as it is.
        channels: of each block.
        reduction: whether the cell halves the sizes.
        halved: whether the last cell did.
    """

    def __init__(
        self,
        edges: Sequence[tuple[str, int]],
        concat: Sequence[int],
        before: int | None,
        last: int,
        channels: int,
        reduction: bool,
        halved: bool,
    ) -> None:
        super().__init__()
        self.before: nn.Module
        widths = {0: channels}
        if before is None:
            self.before = nn.Identity()
            widths[0] = last
        elif halved:
            self.before = FactorizedReduction(before, channels)
        else:
            self.before = relu_conv_bn(before, channels)
        if before is None and 0 in concat and widths[0] != channels:
            self.before, widths[0] = relu_conv_bn(last, channels), channels
        self.last = relu_conv_bn(last, channels)
        self.starts = [start for _, start in edges]
        self.concat = list(concat)
        self.edges = nn.ModuleList(
            OPS[op](widths.get(start, channels), channels, 2 if reduction and start < 2 else 1)
            for op, start in edges
        )

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        parts = [self.before(before), self.last(last)]
        values = iter(zip(self.edges, self.starts, strict=True))
        for _ in BLOCKS:
            (first, i), (second, j) = next(values), next(values)
            parts.append(torch.add(first(parts[i]), second(parts[j])))
        return torch.cat([parts[i] for i in self.concat], 1)


Build = Callable[[int, int, int], nn.Module]


def _identity(width: int, out: int, stride: int) -> nn.Module:
    if stride > 1:
        return FactorizedReduction(width, out)
    return nn.Identity() if width == out else relu_conv_bn(width, out)


def _pool(kind: str, kernel: int) -> Build:
    def build(width: int, out: int, stride: int) -> nn.Module:
        layer = pool(kind, kernel, stride)
        return layer if width == out else nn.Sequential(layer, relu_conv_bn(width, out))

    return build


def _separable(kernel: int) -> Build:
    def build(width: int, out: int, stride: int) -> nn.Module:
        return nn.Sequential(separable(width, out, kernel, stride), separable(out, out, kernel))

    return build


OPS: dict[str, Build] = {
    "skip_connect": _identity,
    "conv_1x3_3x1": lambda width, out, stride: two_steps(width, out, 3, stride),
    "conv_1x7_7x1": lambda width, out, stride: two_steps(width, out, 7, stride),
    "dil_conv_3x3": lambda width, out, stride: relu_conv_bn(width, out, 3, stride, dilation=2),
    "avg_pool_3x3": _pool("avg", 3),
    "max_pool_3x3": _pool("max", 3),
    "max_pool_5x5": _pool("max", 5),
    "max_pool_7x7": _pool("max", 7),
    "conv_1x1": lambda width, out, stride: relu_conv_bn(width, out, 1, stride),
    "conv_3x3": lambda width, out, stride: relu_conv_bn(width, out, 3, stride),
    "sep_conv_3x3": _separable(3),
    "sep_conv_5x5": _separable(5),
    "sep_conv_7x7": _separable(7),
}
"""The thirteen operations of the paper by name. Each makes a module for widths in and out and a stride."""

A = params_of(
    Genotype(
        normal=[
            *[("sep_conv_5x5", 1), ("sep_conv_3x3", 0)],
            *[("sep_conv_5x5", 0), ("sep_conv_3x3", 0)],
            *[("avg_pool_3x3", 1), ("skip_connect", 0)],
            *[("avg_pool_3x3", 0), ("avg_pool_3x3", 0)],
            *[("sep_conv_3x3", 1), ("skip_connect", 1)],
        ],
        normal_concat=[0, 2, 3, 4, 5, 6],
        reduce=[
            *[("sep_conv_5x5", 1), ("sep_conv_7x7", 0)],
            *[("max_pool_3x3", 1), ("sep_conv_7x7", 0)],
            *[("avg_pool_3x3", 1), ("sep_conv_5x5", 0)],
            *[("skip_connect", 3), ("avg_pool_3x3", 2)],
            *[("sep_conv_3x3", 2), ("max_pool_3x3", 1)],
        ],
        reduce_concat=[3, 4, 5, 6],
    )
)
"""The cells of NASNet-A."""
