import pytest
import torch
from torch import nn

from optnas.space import count
from optnas.space.blocks import GRAPH_CONVS, GraphBlock, Stack, graph_conv, pool_graphs
from optnas.testing import check_space
from optnas.trial import replay, scope

EDGES = torch.tensor([[0, 1, 1, 2, 3, 0], [1, 0, 2, 1, 0, 3]])


def network(trial):
    first, second = scope(trial, 0), scope(trial, 1)
    return Stack(
        graph_conv(first, width=(4, 8), shortcut=(False, True)), graph_conv(second, width=2, dropout=0.1)
    )


def test_it_is_a_space_of_every_convolution():
    assert count(network) == (2 * 2 * 7) * 7
    check_space(network, (torch.randn(6, 3), EDGES), n_samples=8)


@pytest.mark.parametrize("name", GRAPH_CONVS)
def test_numbering_the_nodes_otherwise_gives_the_same_rows(name):
    torch.manual_seed(0)
    block, x = GraphBlock(GRAPH_CONVS[name](4)), torch.randn(6, 3)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    rows = block(x, EDGES)
    place = order.argsort()
    torch.testing.assert_close(block(x[order], place[EDGES]), rows[order])
    assert (rows[3] - block(x.index_fill(0, torch.tensor([0]), 9.0), EDGES)[3]).abs().max() > 0  # a neighbor
    torch.testing.assert_close(rows[5], block(x.index_fill(0, torch.tensor([0]), 9.0), EDGES)[5])


def test_a_shortcut_adds_the_input_where_it_fits():
    torch.manual_seed(0)
    with_it = graph_conv(replay({}), width=3, conv=GRAPH_CONVS["gcn"], shortcut=True)
    x = torch.randn(6, 3)
    alone = with_it(x, EDGES) - x
    with_it.shortcut = False
    torch.testing.assert_close(with_it(x, EDGES), alone)
    wider = graph_conv(replay({}), width=5, conv=GRAPH_CONVS["gcn"], shortcut=True)
    assert wider(x, EDGES).shape == (6, 5)


def test_a_layer_of_another_package_gets_what_it_takes():
    class Weighted(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.linear = nn.LazyLinear(width)

        def forward(self, x, edge_index, edge_weight):
            brought = self.linear(x)[edge_index[0]] * edge_weight[:, None]
            return x.new_zeros(len(x), brought.shape[1]).index_add(0, edge_index[1], brought)

    def space(trial):
        return graph_conv(trial, width=(2, 4), conv={"weighted": Weighted, "heavier": Weighted})

    assert count(space) == 4
    block = space(replay({"width": 4, "conv": "weighted"}))
    x = torch.randn(6, 3)
    assert block(x, EDGES, torch.zeros(6)).abs().max() == 0
    assert block(x, EDGES, torch.ones(6)).shape == (6, 4)


def test_graphs_of_a_batch_are_pooled_one_by_one():
    x, graph_of = torch.randn(7, 3), torch.tensor([0, 0, 3, 1, 1, 1, 3])
    for how, by_hand in (("mean", torch.mean), ("sum", torch.sum), ("max", torch.amax)):
        rows = pool_graphs(x, graph_of, 4, how)
        for i in (0, 1, 3):
            torch.testing.assert_close(rows[i], by_hand(x[graph_of == i], 0))
        assert rows[2].abs().max() == 0
    with pytest.raises(ValueError, match="how='median': give one of mean, sum, max"):
        pool_graphs(x, graph_of, 4, "median")
