"""Kinds of normalization against torch's."""

import pytest
import torch
from torch import nn

from optnas.space.blocks import NORMS, ChannelNorm, GroupNorm, conv
from optnas.testing import check_space


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kind", NORMS)
def test_a_convolution_is_normalized_in_any_way(dims: int, kind: str) -> None:
    model = conv(None, width=6, kernel=3, norm=NORMS[kind], activation=nn.Identity, dims=dims)
    y = model(torch.randn(4, 3, *[5] * dims))
    assert (model.conv.bias is None) == (kind != "none")
    over = {"batch": (0, *range(2, dims + 2)), "instance": (*range(2, dims + 2),), "channel": (1,)}
    if kind in over:
        torch.testing.assert_close(
            y.mean(over[kind]), torch.zeros_like(y.mean(over[kind])), atol=1e-5, rtol=0
        )


def test_groups_divide_the_channels() -> None:
    for channels, groups in [(6, 2), (64, 32), (7, 1), (24, 8)]:
        model, x = GroupNorm(), torch.randn(2, channels, 5)
        model(x)
        assert model.norm.num_groups == groups
        torch.testing.assert_close(model(x), nn.functional.group_norm(x, groups))


def test_channels_are_normalized_at_each_position() -> None:
    x = torch.randn(2, 6, 4, 5)
    torch.testing.assert_close(
        ChannelNorm()(x), nn.functional.layer_norm(x.permute(0, 2, 3, 1), (6,), eps=1e-6).permute(0, 3, 1, 2)
    )


def test_the_kind_is_a_decision() -> None:
    check_space(lambda trial: conv(trial, width=4, kernel=3, norm=NORMS), (2, 3, 5, 5))
