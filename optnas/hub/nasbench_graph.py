"""Graph networks as in NAS-Bench-Graph (Qin et al., NeurIPS 2022, arXiv:2206.09166), in plain torch.

Four nodes, each of which reads one node before it through one of nine operations; leaves make the output.
`canonical` tells architectures apart as the paper does, which counts 26,206 of them. The benchmark publishes
the size of each in tables that are not here; counts of the members `GCN`, `GAT`, `GIN`, `SAGE` and `GRAPH`,
its two-layer networks of one operation, are made by hand in the tests.

Examples:
    >>> from optnas.hub import nasbench_graph
    >>> nasbench_graph.architecture(replay(nasbench_graph.two_layers("gcn")))
    Architecture(links=(0, 1, 2, 3), ops=('skip', 'skip', 'gcn', 'gcn'))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.space.blocks import GRAPH_CONVS
from optnas.trial import Trial

LINKS = ("0000", "0001", "0011", "0012", "0013", "0111", "0112", "0122", "0123")
"""Which node each of the four nodes reads, 0 being the input: the nine shapes of the paper."""


class Architecture(NamedTuple):
    """Node i + 1 applies `ops[i]` to node `links[i]`; the paper's `Arch(links, ops)`."""

    links: tuple[int, ...]
    ops: tuple[str, ...]


def architecture(trial: Trial) -> Architecture:
    """`links` and `op.1` to `op.4`. (All four skipped would be no network; the input then goes on.)"""
    links = trial.suggest_categorical("links", LINKS)
    ops = tuple(trial.suggest_categorical(f"op.{i}", list(OPS)) for i in range(1, 5))
    return Architecture(tuple(map(int, links)), ops)


def params_of(architecture: Architecture) -> dict[str, Any]:
    """The answers that lead to an architecture whose links are one of the nine shapes.

    Raises:
        ValueError: they are not, or an operation is unknown.
    """
    links, ops = "".join(map(str, architecture.links)), architecture.ops
    if links not in LINKS or len(ops) != 4 or not all(op in OPS for op in ops):
        raise ValueError(
            f"{architecture} is not in the space: links are one of {', '.join(LINKS)}, operations four of "
            f"{', '.join(OPS)}."
        )
    return {"links": links, **{f"op.{i}": op for i, op in enumerate(ops, 1)}}


def canonical(architecture: Architecture) -> str:
    """Equal for architectures that the paper counts as one: the same tree when skips are taken out.

    What leads from the input to the output without an operation does not count.
    """

    def tree(node: int) -> list[str]:
        parts: list[str] = []
        readers = [i for i, link in enumerate(architecture.links, 1) if link == node]
        for reader in readers:
            below = tree(reader)
            op = architecture.ops[reader - 1]
            parts += below if op == "skip" else [f"{op}({','.join(below)})"]
        return sorted(parts) if readers else ["out"]

    return ",".join(part for part in tree(0) if part != "out")


def network(trial: Trial, *, width: int = 64, classes: int = 7, dropout: float = 0.5) -> GraphNet:
    """A classifier of nodes, called `network(features, edges)`, to `(nodes, classes)`; see `GraphNet`."""
    return GraphNet(architecture(trial), width, classes, dropout)


class GraphNet(nn.Module):
    """Features `(nodes, any)` and edges `(2, edges)`, from row to row, to `(nodes, classes)`.

    An undirected edge is two. Every operation but a skip gives `width` features and is followed by ReLU and
    dropout; leaves are concatenated, and a linear layer follows. A leaf that is the input itself is left out.
    """

    def __init__(self, architecture: Architecture, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.architecture = architecture
        self.ops = nn.ModuleList(OPS[op](width) for op in architecture.ops)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.LazyLinear(classes)

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        links = self.architecture.links
        values, raw = [features], [True]
        for link, op, name in zip(links, self.ops, self.architecture.ops, strict=True):
            skips = name == "skip"
            y = values[link] if skips else self.dropout(functional.relu(op(values[link], edges)))
            values.append(y)
            raw.append(skips and raw[link])
        leaves = [values[i] for i in range(1, 5) if i not in links and not raw[i]]
        scores: Tensor = self.classifier(torch.cat(leaves or [features], 1))
        return scores


class Alone(nn.Module):
    """A linear layer of each node by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(width)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y


OPS: dict[str, Callable[[int], nn.Module]] = {
    **GRAPH_CONVS,
    "fc": Alone,
    "skip": lambda width: nn.Identity(),
}


def two_layers(op: str) -> dict[str, Any]:
    """The answers for the paper's network of two layers of one operation."""
    return params_of(Architecture((0, 1, 2, 3), ("skip", "skip", op, op)))


MEMBERS: Sequence[str] = ("gcn", "gat", "gin", "sage", "graph")
"""Operations of which the paper's code lists networks of two layers; `two_layers(op)` are their answers."""
