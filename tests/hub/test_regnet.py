import pytest
import torch
from fixtures.hub import IMAGES, learns, n_params

from optnas.hub import regnet
from optnas.testing import check_space
from optnas.trial import replay

# What torchvision documents as num_params, and the stages of the paper: width to depth.
PUBLISHED = {
    "X_400MF": (5_495_976, {32: 1, 64: 2, 160: 7, 400: 12}),
    "X_800MF": (7_259_656, {64: 1, 128: 3, 288: 7, 672: 5}),
    "X_1_6GF": (9_190_136, {72: 2, 168: 4, 408: 10, 912: 2}),
    "Y_400MF": (4_344_144, {48: 1, 104: 3, 208: 6, 440: 6}),
    "Y_800MF": (6_432_512, {64: 1, 144: 3, 320: 8, 784: 2}),
    "Y_1_6GF": (11_202_430, {48: 2, 120: 6, 336: 17, 888: 2}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_are_members_of_the_published_size(name: str) -> None:
    params = getattr(regnet, name)
    size, stages = PUBLISHED[name]
    assert n_params(regnet.network, params, IMAGES) == size
    found = regnet.widths(*list(params.values())[:5])
    assert {width: found.count(width) for width in found} == stages


def test_it_is_a_space_whose_networks_learn() -> None:
    def space(trial):
        return regnet.network(trial, classes=3, max_depth=4, max_width=8, max_slope=10.0)

    check_space(space, (2, 3, 9, 8), n_samples=2)
    small = regnet.params_of(4, 8, 8.0, 2.0, 8, squeeze=True)
    learns(regnet.network(replay(small), classes=3), torch.randn(6, 3, 16, 16))
