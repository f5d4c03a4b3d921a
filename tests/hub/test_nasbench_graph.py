from itertools import product

import pytest
import torch
from fixtures.hub import learns, n_params
from torch import Tensor

from optnas.hub import nasbench_graph as graph
from optnas.space import count
from optnas.testing import check_space
from optnas.trial import replay

EDGES = torch.tensor([[0, 1, 1, 2, 3, 0, 4], [1, 0, 2, 1, 0, 3, 4]])


def adjacency(loops: bool = False) -> Tensor:
    matrix = torch.zeros(6, 6)
    matrix[EDGES[1], EDGES[0]] = 1.0
    return matrix + torch.eye(6) if loops else matrix


def test_there_are_as_many_architectures_as_published() -> None:
    # "covering 26,206 unique graph neural network (GNN) architectures"
    found = {
        graph.canonical(graph.Architecture(tuple(map(int, links)), ops))
        for links in graph.LINKS
        for ops in product(graph.OPS, repeat=4)
        if set(ops) != {"skip"}
    }
    assert len(found) == 26_206
    assert count(graph.architecture) == 9 * 9**4


@pytest.mark.parametrize(
    ("op", "layer"),
    [
        ("gcn", lambda a, b: a * b + b),
        ("gat", lambda a, b: a * b + 3 * b),
        ("gin", lambda a, b: a * b + b),
        ("sage", lambda a, b: 2 * a * b + b),
        ("graph", lambda a, b: 2 * a * b + b),
        ("cheb", lambda a, b: 2 * a * b + b),
        ("arma", lambda a, b: 2 * a * b + b),
    ],
)
def test_networks_of_two_layers_have_the_size_by_hand(op: str, layer) -> None:
    size = n_params(graph.network, graph.two_layers(op), (5, 1433), torch.zeros(2, 4).long())
    assert size == layer(1433, 64) + layer(64, 64) + 64 * 7 + 7


def made(op: str) -> tuple[torch.nn.Module, Tensor]:
    torch.manual_seed(0)
    layer, x = graph.OPS[op](4), torch.randn(6, 3)
    layer(x, EDGES)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer, x


def test_operations_are_products_with_the_adjacency_matrix() -> None:
    a, loops = adjacency(), adjacency(loops=True)
    layer, x = made("gcn")
    root = loops.sum(1).rsqrt()
    torch.testing.assert_close(layer(x, EDGES), (root[:, None] * loops * root) @ layer.linear(x) + layer.bias)
    layer, x = made("gin")
    torch.testing.assert_close(layer(x, EDGES), layer.linear(x + a @ x))
    layer, x = made("sage")
    mean = a / a.sum(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(layer(x, EDGES), layer.own(x) + layer.neighbors(mean @ x))
    layer, x = made("graph")
    torch.testing.assert_close(layer(x, EDGES), layer.own(x) + layer.neighbors(a @ x))
    root = a.sum(1).clamp(min=1).rsqrt()
    scaled = root[:, None] * a * root
    layer, x = made("cheb")
    torch.testing.assert_close(layer(x, EDGES), layer.own(x) - layer.neighbors(scaled @ x))
    layer, x = made("arma")
    torch.testing.assert_close(layer(x, EDGES), (layer.own(x) + layer.neighbors(scaled @ x)).relu())
    layer, x = made("fc")
    torch.testing.assert_close(layer(x, EDGES), layer.linear(x))


def test_attention_is_a_softmax_over_neighbors() -> None:
    layer, x = made("gat")
    loops = adjacency(loops=True)
    loops[4, 4] = 2.0  # its own edge and the one that is added
    y = layer.linear(x).unflatten(1, (2, 2))
    heads = []
    for h in range(2):
        score = (y[:, h] @ layer.target[h])[:, None] + (y[:, h] @ layer.source[h])[None]
        weight = torch.nn.functional.leaky_relu(score, 0.2).exp() * loops
        heads.append(weight / weight.sum(1, keepdim=True) @ y[:, h])
    torch.testing.assert_close(layer(x, EDGES), torch.cat(heads, 1) + layer.bias)


def test_leaves_make_the_output() -> None:
    def net(links: str, *ops: str) -> torch.nn.Module:
        params = graph.params_of(graph.Architecture(tuple(map(int, links)), ops))
        model = graph.network(replay(params), width=4, classes=2, dropout=0.0)
        model(torch.randn(6, 3), EDGES)
        return model

    assert net("0123", "gcn", "fc", "gin", "sage").classifier.in_features == 4
    assert net("0012", "gcn", "fc", "gin", "sage").classifier.in_features == 8
    assert net("0001", "gcn", "fc", "skip", "skip").classifier.in_features == 8  # a raw input is left out
    assert net("0123", "skip", "skip", "skip", "skip").classifier.in_features == 3
    with pytest.raises(ValueError, match=r"links are one of 0000, 0001"):
        net("0002", "gcn", "fc", "gin", "sage")


def test_it_is_a_space_whose_networks_learn() -> None:
    space = (torch.randn(6, 3), EDGES)
    check_space(lambda trial: graph.network(trial, width=4, dropout=0.1), space, n_samples=2)
    for op in graph.MEMBERS:
        model = graph.network(replay(graph.two_layers(op)), width=8, classes=3, dropout=0.0)
        learns(model, torch.randn(6, 3), EDGES)
