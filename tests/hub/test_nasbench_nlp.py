import pytest
import torch
from fixtures.hub import learns, n_params, tokens
from torch import nn

from optnas import sample
from optnas.hub import nasbench_nlp as nlp
from optnas.testing import check_space
from optnas.trial import replay


def test_the_published_network_is_a_member_of_the_published_size() -> None:
    # The code of AWD-LSTM prints 24221600 for Penn Treebank; the paper's table 1 says 24 million.
    def layer(given: int, width: int) -> int:
        return 4 * (given * width + width * width + 2 * width)

    expected = 10_000 * 400 + 10_000 + layer(400, 1150) + layer(1150, 1150) + layer(1150, 400)
    assert n_params(nlp.network, nlp.LSTM, tokens(1, 2)) == expected == 24_221_600


@pytest.mark.parametrize("given", [5, 6])
def test_its_lstm_is_that_of_torch(given: int) -> None:
    layer, x = nlp.Layer(nlp.cell(replay(nlp.LSTM)), given, 6), torch.randn(3, 7, given)
    theirs = nn.LSTM(given, 6, batch_first=True)
    state = layer.state_dict()
    for theirs_name, ours in (("ih", "first"), ("hh", "second")):
        for what in ("weight", "bias"):
            parts = torch.cat([state[f"weights.{i}.{ours}.{what}"] for i in range(3, 7)])
            theirs.get_parameter(f"{what}_{theirs_name}_l0").data.copy_(parts)
    torch.testing.assert_close(layer(x), theirs(x)[0])


def test_its_elman_network_is_that_of_torch() -> None:
    layer, x = nlp.Layer(nlp.cell(replay(nlp.RNN)), 5, 6), torch.randn(3, 7, 5)
    theirs = nn.RNN(5, 6, batch_first=True)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), swapped(layer.state_dict()), strict=True)))
    torch.testing.assert_close(layer(x), theirs(x)[0])


def swapped(state):
    """Weights first, then biases, as torch has them."""
    weights, biases = ([v for k, v in state.items() if k.endswith(what)] for what in ("weight", "bias"))
    return [*weights, *biases]


def test_a_gated_unit_mixes_the_old_state_and_a_new_one() -> None:
    layer, x = nlp.Layer(nlp.cell(replay(nlp.GRU)), 5, 6), torch.randn(2, 4, 5)
    reset, keep, new = (layer.weights[i] for i in ("3", "4", "8"))
    h, expected = torch.zeros(2, 6), []
    for t in range(4):
        r, z = reset(x[:, t], h).sigmoid(), keep(x[:, t], h).sigmoid()
        h = z * h + (1 - z) * new(x[:, t], r * h).tanh()
        expected.append(h)
    torch.testing.assert_close(layer(x), torch.stack(expected, 1))


@pytest.mark.parametrize("seed", range(8))
def test_cells_convert_both_ways_and_have_no_dead_weights(seed: int) -> None:
    params = sample(nlp.cell, seed)
    cell = nlp.cell(replay(params))
    assert nlp.params_of(cell) == params
    layer = nlp.Layer(cell, 3, 4)
    y = layer(torch.randn(2, 5, 3))
    assert y.shape == (2, 5, 4)
    if y.requires_grad:
        y.sum().backward()
        assert all(parameter.grad is not None for parameter in layer.parameters())
    with pytest.raises(ValueError, match=r"Node 3 is \('tanh', \(3,\)\)"):
        nlp.params_of(nlp.Cell((("tanh", (3,)),), (3, 2)))


def test_it_is_a_space_whose_networks_learn() -> None:
    small = {"vocabulary": 9, "embedding": 6, "hidden": 8, "layers": 2}
    # Nodes that nothing reads make no difference, on purpose.
    with pytest.warns(UserWarning, match="build a network that another one builds"):
        check_space(lambda trial: nlp.network(trial, **small, max_nodes=3), tokens(2, 3), n_samples=30)
    for cell in nlp.CELLS.values():
        learns(nlp.network(replay(cell), **small, dropout=0.1), tokens(2, 5))
