"""Recurrent blocks against torch's, and against packed sequences."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from optnas.space.blocks import CELLS, Recurrent, recurrent
from optnas.space.blocks.recurrence import reverse
from optnas.testing import check_space


def pair(cell, layers: int, bidirectional: bool, x: torch.Tensor) -> tuple[nn.Module, nn.Module]:
    ours = Recurrent(6, cell=cell, layers=layers, bidirectional=bidirectional)
    ours(x)
    each = 3 if bidirectional else 6
    theirs = cell(x.shape[-1], each, layers, batch_first=True, bidirectional=bidirectional)
    state = {}
    for side, suffix in (("forwards", ""), ("backwards", "_reverse")):
        for i, layer in enumerate(getattr(ours, side)):
            for name, value in layer.state_dict().items():
                state[name.replace("_l0", f"_l{i}") + suffix] = value
    theirs.load_state_dict(state)
    return ours, theirs


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_it_is_the_layer_of_torch_packed_or_not(cell, layers: int, bidirectional: bool) -> None:
    x, lengths = torch.randn(4, 7, 5), torch.tensor([3, 7, 1, 5])
    ours, theirs = pair(cell, layers, bidirectional, x)
    torch.testing.assert_close(ours(x), theirs(x)[0])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    torch.testing.assert_close(ours(x, lengths), expected)


def test_padding_has_no_influence_on_values_and_gradients() -> None:
    x, lengths = torch.randn(2, 5, 3), torch.tensor([5, 2])
    model = Recurrent(4, layers=2, bidirectional=True)
    model(x)
    grads = []
    for padding in (0.0, torch.nan):
        filled = x.clone()
        filled[1, 2:] = padding
        model.zero_grad()
        y = model(filled, lengths)
        assert (y[1, 2:] == 0).all()
        y.square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*grads)


def test_a_sequence_is_reversed_within_its_length() -> None:
    x = torch.arange(4.0).expand(2, 4)[:, :, None]
    assert reverse(x, torch.tensor([3, 0])).squeeze(-1).tolist() == [[2, 1, 0, 3], [0, 1, 2, 3]]
    assert reverse(x).squeeze(-1)[0].tolist() == [3, 2, 1, 0]


def test_lengths_run_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = Recurrent(6, bidirectional=True)
        assert model(torch.randn(2, 4, 3), torch.ones(2, dtype=torch.long)).shape == (2, 4, 6)


def test_it_is_a_space() -> None:
    def space(trial):
        return recurrent(trial, width=(3, 4), layers=(1, 2), bidirectional=(False, True), dropout=0.1)

    check_space(space, (2, 5, 3), n_samples=5)
    check_space(space, {"x": torch.randn(2, 5, 3), "lengths": torch.tensor([5, 2])}, n_samples=5)
    with pytest.raises(ValueError, match="width=1 leaves a direction without"):
        Recurrent(1, bidirectional=True)
