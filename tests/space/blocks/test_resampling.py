"""Down, up, and levels that nest."""

import math

import pytest
import torch
from torch import nn

from optnas import sample
from optnas.space.blocks import NORMS, Upsample, UShape, conv, downsample, upsample
from optnas.space.blocks.resampling import fit
from optnas.testing import check_space
from optnas.trial import Draw, Trial, replay, scope


def fixed(block, **settings):
    return block(Draw(lambda name, _: pytest.fail(f"{name} was asked")), **settings)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("how", ["max", "average", "conv"])
@pytest.mark.parametrize("factor", [2, 3])
def test_sizes_shrink_and_round_up(dims: int, how: str, factor: int) -> None:
    model = fixed(downsample, how=how, factor=factor, dims=dims)
    for size in range(1, 8):
        y = model(torch.randn(2, 3, *[size] * dims))
        assert y.shape == (2, 3, *[math.ceil(size / factor)] * dims)


def test_an_average_counts_no_padding() -> None:
    model = fixed(downsample, how="average")
    torch.testing.assert_close(model(torch.ones(1, 1, 3, 5)), torch.ones(1, 1, 2, 3))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("how", ["transposed", "nearest", "linear"])
@pytest.mark.parametrize("width", [None, 5])
def test_sizes_grow_to_those_of_what_is_beside(dims: int, how: str, width: int | None) -> None:
    model, x = Upsample(how, width), torch.randn(2, 3, *[3] * dims)
    assert model(x).shape == (2, width or 3, *[6] * dims)
    for size in (5, 6, 7):
        assert model(x, torch.randn(2, 9, *[size] * dims)).shape[2:] == (size,) * dims


def test_interpolation_is_that_of_torch() -> None:
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(Upsample("linear")(x), nn.Upsample(scale_factor=2, mode="bilinear")(x))
    torch.testing.assert_close(Upsample("nearest")(x), nn.Upsample(scale_factor=2)(x))


def test_fitting_cuts_and_pads_at_the_end() -> None:
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert fit(x, [3, 2])[0, 0].tolist() == [[0, 1], [3, 4], [0, 0]]


def level(trial: Trial, depth: int, dims: int) -> nn.Module:
    def block(name: str, width: int) -> nn.Module:
        return conv(scope(trial, name), width=width, kernel=3, norm=NORMS, dims=dims)

    if depth == 0:
        return block("bottom", 4)
    return UShape(
        block("encoder", 3),
        downsample(scope(trial, "down"), dims=dims),
        level(scope(trial, "inner"), depth - 1, dims),
        upsample(scope(trial, "up"), width=3),
        block("decoder", 2),
    )


@pytest.mark.parametrize("shape", [(2, 3, 13), (2, 3, 7, 6), (2, 3, 5, 6, 7)])
def test_levels_nest_at_any_size(shape: tuple[int, ...]) -> None:
    dims = len(shape) - 2
    check_space(lambda trial: level(trial, 2, dims), shape, n_samples=2)
    for seed in range(4):
        model = level(replay(sample(lambda trial: level(trial, 2, dims), seed)), 2, dims)
        assert model(torch.randn(shape)).shape == (2, 2, *shape[2:])


def test_a_level_concatenates_the_side_first_or_adds() -> None:
    x = torch.randn(1, 2, 4, 4)
    parts = (nn.Identity(), nn.MaxPool2d(2), nn.Identity(), Upsample("nearest"), nn.Identity())
    deep = nn.functional.interpolate(nn.functional.max_pool2d(x, 2), scale_factor=2)
    torch.testing.assert_close(UShape(*parts)(x), torch.cat([x, deep], 1))
    torch.testing.assert_close(UShape(*parts, add=True)(x), x + deep)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="how='maximum' is unknown"):
        fixed(downsample, how="maximum")
    with pytest.raises(ValueError, match="how='cubic' is unknown"):
        Upsample("cubic")
