import pytest
import torch
from torch import Tensor, nn

from optnas.facts.layers import DEPTH, N_LAYERS, count_depth, count_layers
from optnas.hub import nasbench201
from optnas.trial import replay

IMAGE = (2, 3, 32, 32)


def network(*ops: str) -> nn.Module:
    params = {f"edge.{i}-{j}": op for (i, j), op in zip(nasbench201.EDGES, ops, strict=True)}
    with torch.device("meta"):
        return nasbench201.network(replay(params))


@pytest.mark.parametrize(
    ("ops", "of_cells", "longest"),
    [
        (["nor_conv_3x3"] * 6, 15 * 6, 15 * 3),
        (["nor_conv_3x3", "none", "none", "skip_connect", "none", "none"], 0, 0),  # a dead convolution
        (["nor_conv_1x1", "skip_connect", "none", "none", "avg_pool_3x3", "nor_conv_3x3"], 15 * 2, 15),
    ],
)
def test_convolutions_of_nas_bench_201(ops, of_cells, longest) -> None:
    """Beside the cells: the stem, two reductions of a body of two and a shortcut, the classifier."""
    assert count_layers(network(*ops), IMAGE) == of_cells + 1 + 2 * 3 + 1
    assert count_depth(network(*ops), IMAGE) == longest + 1 + 2 * 2 + 1


def test_a_network_of_zeros_has_one_layer_that_matters() -> None:
    assert count_layers(network(*["none"] * 6), IMAGE) == 1


class Written(nn.Module):
    """Writes into its tensors, and looks at values."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(2, *x.shape, device=x.device)
        out[0] = self.layers[0](x)
        out[1].add_(self.layers[1](self.layers[2](x)))
        return out.sum(0) if float(out.sum()) > 0 else out.mean(0)


def test_writing_in_place_and_looking_at_values() -> None:
    assert (count_layers(Written(), (2, 3)), count_depth(Written(), (2, 3))) == (3, 2)


def test_as_facts() -> None:
    lstm = nn.LSTM(3, 4, batch_first=True)
    assert DEPTH.of(lstm, (2, 5, 3)) == 5
    assert N_LAYERS.of(nn.Linear(3, 3), (2, 3)) == 1
    assert (DEPTH.needs, N_LAYERS.needs) == ("meta", "meta")
