"""Feature pyramids."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.facts import count_params
from optnas.space.blocks import FeaturePyramid, feature_pyramid
from optnas.testing import check_space

SIZES = [(2, 5, 12, 9), (2, 7, 6, 5), (2, 9, 3, 3)]


def maps() -> list[Tensor]:
    return [torch.randn(size) for size in SIZES]


def test_maps_keep_their_sizes_and_extra_ones_halve() -> None:
    ours = FeaturePyramid(4, bottom_up=True, extra=2)(maps())
    assert [tuple(y.shape) for y in ours] == [
        (2, 4, 12, 9),
        (2, 4, 6, 5),
        (2, 4, 3, 3),
        (2, 4, 2, 2),
        (2, 4, 1, 1),
    ]


def test_information_goes_down_and_with_a_second_path_up() -> None:
    def changed(model: nn.Module, which: int) -> list[bool]:
        before = maps()
        after = [x + (i == which) for i, x in enumerate(before)]
        return [not torch.equal(y, z) for y, z in zip(model(before), model(after), strict=True)]

    plain, both = FeaturePyramid(4), FeaturePyramid(4, bottom_up=True)
    assert changed(plain, 0) == [True, False, False]
    assert changed(plain, 2) == [True, True, True]
    assert changed(both, 0) == [True, True, True]


def test_the_top_down_path_is_that_of_the_paper() -> None:
    model, given = FeaturePyramid(4), maps()[1:]
    large, small = model(given)
    lateral = [conv(x) for conv, x in zip(model.lateral, given, strict=True)]
    torch.testing.assert_close(small, model.smooth[1](lateral[1]))
    wide = functional.interpolate(lateral[1], lateral[0].shape[2:])
    torch.testing.assert_close(large, model.smooth[0](lateral[0] + wide))
    assert count_params(model) == (7 * 4 + 4) + (9 * 4 + 4) + 2 * (4 * 4 * 9 + 4)


class OfOne(nn.Module):
    """Three maps of one image."""

    def __init__(self, pyramid: nn.Module) -> None:
        super().__init__()
        self.pyramid = pyramid

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.pyramid([x, functional.avg_pool2d(x, 2), functional.avg_pool2d(x, 4)])


def test_it_is_a_space() -> None:
    def space(trial):
        return OfOne(feature_pyramid(trial, width=(2, 3), bottom_up=(False, True), extra=(0, 1)))

    check_space(space, (2, 3, 8, 8))
