"""Stochastic depth, dropout."""

import pytest
import torch
from torch import nn

from optnas.space.blocks import StochasticDepth, dropout, stochastic_depth
from optnas.testing import check_space
from optnas.trial import Draw


def test_a_branch_is_dropped_for_a_whole_sample_and_kept_in_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3)
    y = StochasticDepth(0.25)(x)
    assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert (y == y[:, :1, :1]).all()
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(StochasticDepth(0.25).eval()(x), x)


def test_a_skipped_body_leaves_the_input() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 3)
    model = stochastic_depth(Draw(lambda *_: 0), lambda _: nn.Tanh(), rate=0.5)
    skipped = (model(x) == x).all(1)
    assert 0 < skipped.sum() < 50
    torch.testing.assert_close(model(x.clone()).shape, x.shape)
    torch.testing.assert_close(model.eval()(x), x + x.tanh())


def test_both_are_decisions() -> None:
    check_space(lambda trial: nn.Sequential(nn.LazyLinear(3), dropout(trial)), (2, 4))
    check_space(lambda trial: stochastic_depth(trial, lambda _: nn.LazyLinear(4)), (2, 4))
    with pytest.raises(ValueError, match=r"rate=1\.0"):
        StochasticDepth(1.0)
