"""Recurrent cells in the manner of NAS-Bench-NLP (Klyuchnikov et al., IEEE Access 2022, arXiv:2006.07116).

A cell is a graph of linear maps, products, sums, blends and activations with two states; `network` is the
language model that it is tried in, that of AWD-LSTM (Merity et al., 2018, arXiv:1708.02182). Its LSTM is a
member: `network(replay(LSTM))` has 24,221,600 parameters, the 24 million of that paper's table 1 for Penn
Treebank. `GRU` and `RNN` are others.

Examples:
    >>> from optnas.hub import nasbench_nlp
    >>> with torch.device("meta"):
    ...     lstm = nasbench_nlp.network(replay(nasbench_nlp.LSTM))
    >>> optnas.count_params(lstm)
    24221600
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.trial import Trial, scope

OPS = ("linear", "blend", "product", "sum", "sigmoid", "tanh", "leaky_relu")
INPUTS = {"linear": 2, "blend": 3, "product": 2, "sum": 2, "sigmoid": 1, "tanh": 1, "leaky_relu": 1}
"""How many inputs an operation has; `blend` is `a * b + (1 - a) * c`, `linear` has weights for each input."""
X, H, C = 0, 1, 2
"""Nodes that every cell begins with: its input and its two states, of which the first is the output."""


class Cell(NamedTuple):
    """A cell: node 3 + i applies `nodes[i]` = (operation, inputs); `states` are the next two states."""

    nodes: tuple[tuple[str, tuple[int, ...]], ...]
    states: tuple[int, int]


def cell(trial: Trial, max_nodes: int = 24) -> Cell:
    """`nodes` of them, `node.<i>.op` and `node.<i>.<input>` for each, next states `states.<nodes>.<k>`.

    A state may be any node, an input too. What no state depends on has no parameters in the network.
    """
    n = trial.suggest_int("nodes", 1, max_nodes)
    nodes = []
    for i in range(3, 3 + n):
        asked = scope(trial, "node", i)
        op = asked.suggest_categorical("op", OPS)
        nodes.append((op, tuple(asked.suggest_int(str(k), 0, i - 1) for k in range(INPUTS[op]))))
    states = scope(trial, "states", n)  # one name asks with the same choices, and these depend on n
    return Cell(tuple(nodes), (states.suggest_int("0", 0, 2 + n), states.suggest_int("1", 0, 2 + n)))


def params_of(cell: Cell) -> dict[str, Any]:
    """The answers that lead to a cell.

    Raises:
        ValueError: a node reads what does not come before it, or an operation is unknown.
    """
    n = len(cell.nodes)
    params: dict[str, Any] = {"nodes": n}
    for i, (op, inputs) in enumerate(cell.nodes, 3):
        if op not in INPUTS or len(inputs) != INPUTS[op] or not all(0 <= k < i for k in inputs):
            raise ValueError(
                f"Node {i} is ({op!r}, {inputs}); an operation is one of {INPUTS}, with so many inputs, each "
                f"a node below {i}."
            )
        params[f"node.{i}.op"] = op
        params |= {f"node.{i}.{k}": start for k, start in enumerate(inputs)}
    return params | {f"states.{n}.{k}": state for k, state in enumerate(cell.states)}


def network(
    trial: Trial,
    *,
    vocabulary: int = 10_000,
    embedding: int = 400,
    hidden: int = 1150,
    layers: int = 3,
    dropout: float = 0.0,
    max_nodes: int = 24,
) -> LanguageModel:
    """Tokens `(n, length)` to scores of the next one `(n, length, vocabulary)`.

    The last layer is as wide as the embedding, whose vectors the scores are products with. States begin at
    zero.
    """
    return LanguageModel(cell(trial, max_nodes), vocabulary, embedding, hidden, layers, dropout)


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, scores; dropout between them drops a unit in all steps alike."""

    def __init__(
        self, cell: Cell, vocabulary: int, embedding: int, hidden: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        widths = [embedding, *[hidden] * (layers - 1), embedding]
        self.layers = nn.ModuleList(Layer(cell, given, width) for given, width in pairwise(widths))
        self.dropout = nn.Dropout1d(dropout) if dropout else nn.Identity()
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(self.dropout(x.transpose(1, 2)).transpose(1, 2))
        return functional.linear(x, self.embedding.weight, self.bias)


class Sum(nn.Module):
    """The sum of two linear maps, each with a bias."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.add(self.first(x), self.second(y))


class Layer(nn.Module):
    """A cell along a sequence: `(n, length, given)` to `(n, length, width)`."""

    def __init__(self, cell: Cell, given: int, width: int) -> None:
        super().__init__()
        self.cell = cell
        self.width = width
        self.needed = _needed(cell)
        self.weights = nn.ModuleDict()
        reads_x = X in cell.states
        for i, (op, inputs) in enumerate(cell.nodes, 3):
            if i in self.needed and op == "linear":
                self.weights[str(i)] = Sum(*(nn.Linear(given if k == X else width, width) for k in inputs))
            elif i in self.needed:
                reads_x |= X in inputs
        # Where something else reads the input, which is of another width, it is projected first.
        self.project = nn.Linear(given, width) if reads_x and given != width else nn.Identity()
        self.reads_x = reads_x

    def forward(self, x: Tensor) -> Tensor:
        states = [x.new_zeros(x.shape[0], self.width)] * 2
        projected = self.project(x) if self.reads_x else x
        outputs = []
        for t in range(x.shape[1]):
            values: dict[int, Tensor] = {X: projected[:, t], H: states[0], C: states[1]}
            for i, (op, inputs) in enumerate(self.cell.nodes, 3):
                if i not in self.needed:
                    continue
                if op == "linear":
                    given = [x[:, t] if k == X else values[k] for k in inputs]
                    values[i] = self.weights[str(i)](*given)
                else:
                    values[i] = _apply(op, [values[k] for k in inputs])
            states = [
                values[k] if k in self.needed else old
                for k, old in zip(self.cell.states, states, strict=True)
            ]
            outputs.append(states[0])
        return torch.stack(outputs, 1)


def _needed(cell: Cell) -> frozenset[int]:
    """The nodes that the output depends on, in this step or a later one."""
    needed: set[int] = set()
    waiting = [cell.states[0]]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            if node == C:
                waiting.append(cell.states[1])
            elif node > C:
                waiting += cell.nodes[node - 3][1]
    return frozenset(needed)


def _apply(op: str, inputs: Sequence[Tensor]) -> Tensor:
    first = inputs[0]
    if op == "blend":
        return torch.lerp(inputs[2], inputs[1], first)
    if op == "product":
        return first * inputs[1]
    if op == "sum":
        return first + inputs[1]
    if op == "sigmoid":
        return first.sigmoid()
    return first.tanh() if op == "tanh" else functional.leaky_relu(first)


LSTM = params_of(
    Cell(
        nodes=(
            *[("linear", (X, H))] * 4,  # 3 to 6
            *[("sigmoid", (3,)), ("sigmoid", (4,)), ("tanh", (5,)), ("sigmoid", (6,))],  # 7 to 10: i, f, g, o
            *[("product", (8, C)), ("product", (7, 9)), ("sum", (11, 12))],  # 13: the next c
            *[("tanh", (13,)), ("product", (10, 14))],  # 15: the next h
        ),
        states=(15, 13),
    )
)
"""A long short-term memory, with the two biases for each gate that torch's has."""

GRU = params_of(
    Cell(
        nodes=(
            *[("linear", (X, H)), ("linear", (X, H)), ("sigmoid", (3,)), ("sigmoid", (4,))],  # 5, 6: r, z
            *[("product", (5, H)), ("linear", (X, 7)), ("tanh", (8,)), ("blend", (6, H, 9))],
        ),
        states=(10, C),
    )
)
"""A gated recurrent unit, with the reset before the linear map, as in Cho et al., 2014."""

RNN = params_of(Cell(nodes=(("linear", (X, H)), ("tanh", (3,))), states=(4, C)))
"""An Elman network."""

CELLS: Mapping[str, dict[str, Any]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
