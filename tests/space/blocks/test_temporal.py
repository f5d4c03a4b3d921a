"""Temporal convolution: what an output reads, and the convolution of torch."""

import pytest
import torch
from torch import nn

from optnas.facts import count_params
from optnas.space.blocks import TemporalBlock, TemporalConv, temporal_block
from optnas.testing import check_space


def read(model: nn.Module, length: int, at: int) -> list[int]:
    """The positions that output `at` reads, relative to it."""
    x = torch.randn(1, 2, length, requires_grad=True)
    model(x)[:, :, at].sum().backward()
    return [i - at for i in x.grad.abs().sum((0, 1)).nonzero().flatten().tolist()]


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 3])
def test_an_output_reads_what_the_kernel_reaches(kernel: int, dilation: int) -> None:
    reach = [dilation * i for i in range(kernel)]
    causal, centered = TemporalConv(3, kernel, dilation), TemporalConv(3, kernel, dilation, causal=False)
    assert read(causal, 30, 15) == [i - reach[-1] for i in reach]
    assert read(centered, 30, 15) == [i - reach[-1] // 2 for i in reach]


def test_it_is_the_convolution_of_torch() -> None:
    x = torch.randn(2, 3, 11)
    ours = TemporalConv(4, 3, 2, stride=2, causal=False)
    y = ours(x)
    theirs = nn.Conv1d(3, 4, 3, 2, padding=2, dilation=2)
    theirs.load_state_dict(ours.conv.state_dict())
    torch.testing.assert_close(y, theirs(x))


def test_weights_are_normalized_without_a_change_of_the_output() -> None:
    x = torch.randn(2, 3, 11)
    ours = TemporalConv(4, 3, weight_normalized=True)
    y = ours(x)
    assert count_params(ours) == 4 * 3 * 3 + 4 + 4
    plain = nn.Conv1d(3, 4, 3)
    plain.load_state_dict(ours.conv.state_dict())
    torch.testing.assert_close(y, plain(nn.functional.pad(x, (2, 0))))
    theirs = nn.utils.parametrizations.weight_norm(plain)
    with torch.no_grad():
        ours.scale.mul_(3)
        ours.conv.weight.mul_(5)  # a direction has no length
        theirs.parametrizations.weight.original0.mul_(3)
    torch.testing.assert_close(ours(x), theirs(nn.functional.pad(x, (2, 0))))


@pytest.mark.parametrize("width", [2, 5])
def test_causal_blocks_read_nothing_from_the_future(width: int) -> None:
    model = nn.Sequential(*(TemporalBlock(width, 3, 2**i, activation=nn.Tanh) for i in range(3)))
    assert read(model, 60, 40) == list(range(-28, 1))
    assert model(torch.randn(1, 2, 40)).shape == (1, width, 40)
    centered = TemporalBlock(width, 3, causal=False, activation=nn.Tanh)
    assert read(centered, 40, 20) == [-2, -1, 0, 1, 2]


def test_it_is_a_space() -> None:
    def space(trial):
        return temporal_block(trial, width=(2, 3), causal=(True, False), dropout=(0.0, 0.1))

    check_space(space, (2, 3, 9))
