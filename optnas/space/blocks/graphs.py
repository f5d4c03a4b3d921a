"""Graph convolutions of `(nodes, any)` along edges `(2, edges)`, in plain torch; others fit in, too.

An edge leads from the node of the first row to that of the second; an undirected edge is two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.space.blocks.decisions import Activation, OneOf, decide
from optnas.trial import Trial

GraphConv = Callable[[int], nn.Module]
"""Makes a layer of the given width, called `layer(features, edges)`: those of PyTorch Geometric are such."""


def gather(x: Tensor, edges: Tensor, weights: Tensor | None = None) -> Tensor:
    """For each node the sum of what its incoming edges bring, each times its weight."""
    brought = x[edges[0]] if weights is None else x[edges[0]] * weights[:, None]
    return torch.zeros_like(x).index_add(0, edges[1], brought)


def degrees(x: Tensor, edges: Tensor) -> Tensor:
    """How many edges lead to each node, `(nodes,)`."""
    return x.new_zeros(len(x)).index_add(0, edges[1], x.new_ones(edges.shape[1]))


def symmetric(x: Tensor, edges: Tensor) -> Tensor:
    """A weight for each edge: one through the roots of both nodes' degrees, 0 where one has none."""
    root = degrees(x, edges).clamp(min=1).rsqrt()
    return root[edges[0]] * root[edges[1]]


def with_loops(x: Tensor, edges: Tensor) -> Tensor:
    """The edges, and one from each node to itself."""
    own = torch.arange(len(x), device=edges.device)
    return torch.cat([edges, torch.stack([own, own])], 1)


class GCN(nn.Module):
    """Kipf & Welling, 2017 (arXiv:1609.02907)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(width, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        edges = with_loops(x, edges)
        x = self.linear(x)
        return gather(x, edges, symmetric(x, edges)) + self.bias


class GAT(nn.Module):
    """Veličković et al., 2018 (arXiv:1710.10903), with two heads."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.linear = nn.LazyLinear(width, bias=False)
        self.source = nn.Parameter(torch.empty(heads, width // heads))
        self.target = nn.Parameter(torch.empty(heads, width // heads))
        self.bias = nn.Parameter(torch.zeros(width))
        for vector in (self.source, self.target):
            nn.init.xavier_uniform_(vector)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        edges = with_loops(x, edges)
        y = self.linear(x).unflatten(1, (self.heads, -1))
        source, target = (y * self.source).sum(-1), (y * self.target).sum(-1)
        score = functional.leaky_relu(source[edges[0]] + target[edges[1]], 0.2)
        index = edges[1][:, None].expand_as(score)
        highest = score.new_full((len(x), self.heads), float("-inf")).scatter_reduce(0, index, score, "amax")
        weight = (score - highest.detach()[edges[1]]).exp()
        total = torch.zeros_like(highest).index_add(0, edges[1], weight)
        share = weight / total[edges[1]]
        sums = torch.zeros_like(y).index_add(0, edges[1], y[edges[0]] * share[:, :, None])
        return sums.flatten(1) + self.bias


class GIN(nn.Module):
    """Xu et al., 2019 (arXiv:1810.00826), with one linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(width)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        y: Tensor = self.linear(x + gather(x, edges))
        return y


class Cheb(nn.Module):
    """Defferrard et al., 2016 (arXiv:1606.09375), of order two: the node itself and its neighbors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.LazyLinear(width)
        self.neighbors = nn.LazyLinear(width, bias=False)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        y: Tensor = self.own(x) - self.neighbors(gather(x, edges, symmetric(x, edges)))
        return y


class SAGE(nn.Module):
    """Hamilton et al., 2017 (arXiv:1706.02216), with means."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.LazyLinear(width, bias=False)
        self.neighbors = nn.LazyLinear(width)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        mean = gather(x, edges) / degrees(x, edges).clamp(min=1)[:, None]
        y: Tensor = self.own(x) + self.neighbors(mean)
        return y


class ARMA(nn.Module):
    """Bianchi et al., 2019 (arXiv:1901.01343), one stack of one layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.LazyLinear(width)
        self.neighbors = nn.LazyLinear(width, bias=False)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        y: Tensor = functional.relu(self.own(x) + self.neighbors(gather(x, edges, symmetric(x, edges))))
        return y


class Graph(nn.Module):
    """Morris et al., 2019 (arXiv:1810.02244): the node and the sum of its neighbors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.LazyLinear(width, bias=False)
        self.neighbors = nn.LazyLinear(width)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        y: Tensor = self.own(x) + self.neighbors(gather(x, edges))
        return y


GRAPH_CONVS: Mapping[str, GraphConv] = {
    "gat": GAT,
    "gcn": GCN,
    "gin": GIN,
    "cheb": Cheb,
    "sage": SAGE,
    "arma": ARMA,
    "graph": Graph,
}
"""Graph convolutions by name, as NAS-Bench-Graph has them (Qin et al., NeurIPS 2022, arXiv:2206.09166).

Examples:
    >>> layer = blocks.GRAPH_CONVS["sage"](8)
    >>> layer(torch.zeros(5, 3), torch.tensor([[0, 1], [1, 0]])).shape
    torch.Size([5, 8])
"""


def graph_conv(
    trial: Trial,
    *,
    width: OneOf[int] = (16, 32, 64),
    conv: OneOf[GraphConv] = GRAPH_CONVS,
    dropout: OneOf[float] = 0.0,
    activation: OneOf[Activation] = nn.ReLU,
    shortcut: OneOf[bool] = False,
) -> GraphBlock:
    """A graph convolution, its activation and dropout: `(nodes, any)` to `(nodes, width)`; see `GraphBlock`.

    Several in a `Stack` share the edges: `stack(features, edges)`.

    Args:
        conv: makes the layer of a width. One of PyTorch Geometric is made so, too:
            `conv={"gcn": GRAPH_CONVS["gcn"], "transformer": lambda width: TransformerConv(-1, width)}`.
        shortcut: whether the input is added where it has the same width.

    Examples:
        >>> layers = blocks.Stack(
        ...     blocks.graph_conv(optnas.scope(trial, "first"), width=8),
        ...     blocks.graph_conv(optnas.scope(trial, "second"), width=4),
        ... )
        >>> layers(torch.zeros(5, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([5, 4])
    """
    make = decide(trial, "conv", conv)
    return GraphBlock(
        make(decide(trial, "width", width)),
        dropout=decide(trial, "dropout", dropout),
        activation=decide(trial, "activation", activation),
        shortcut=decide(trial, "shortcut", shortcut),
    )


class GraphBlock(nn.Module):
    """`dropout(activation(conv(features, edges)))`, with the input added where that is asked and fits.

    Further arguments, such as the weights of the edges, go to the convolution.

    Examples:
        >>> block = blocks.GraphBlock(blocks.GRAPH_CONVS["gcn"](8))
        >>> block(torch.zeros(5, 3), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        conv: nn.Module,
        *,
        dropout: float = 0.0,
        activation: Activation = nn.ReLU,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.conv = conv
        self.activation = activation()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.shortcut = shortcut

    def forward(self, x: Tensor, edges: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = self.dropout(self.activation(self.conv(x, edges, *args, **kwargs)))
        return x + y if self.shortcut and x.shape == y.shape else y


def pool_graphs(x: Tensor, graph_of: Tensor, n_graphs: int, how: str = "mean") -> Tensor:
    """One row for each graph of a batch, `(n_graphs, width)`, from those of its nodes, `(nodes, width)`.

    Args:
        graph_of: of each node the number of its graph, `(nodes,)`, as `batch` of PyTorch Geometric.
        how: "mean", "sum" or "max"; a graph without nodes has zeros.

    Raises:
        ValueError: `how` is none of these.

    Examples:
        >>> blocks.pool_graphs(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]), 2)
        tensor([[2.],
                [5.]])
    """
    reductions = {"mean": "mean", "sum": "sum", "max": "amax"}
    if how not in reductions:
        raise ValueError(f"how={how!r}: give one of {', '.join(reductions)}.")
    index = graph_of[:, None].expand_as(x)
    zeros = x.new_zeros(n_graphs, x.shape[1])
    return zeros.scatter_reduce(0, index, x, reductions[how], include_self=False)
