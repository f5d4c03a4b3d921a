import pytest
import torch
from fixtures.hub import IMAGES, learns, n_params

from optnas.hub import resnet
from optnas.testing import check_space
from optnas.trial import replay

# What torchvision documents as num_params of resnet18 and so on.
PUBLISHED = {
    "R18": 11_689_512,
    "R34": 21_797_672,
    "R50": 25_557_032,
    "R101": 44_549_160,
    "R152": 60_192_808,
    "X50": 25_028_904,
    "WIDE50": 68_883_240,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_are_members_of_the_published_size(name: str) -> None:
    assert n_params(resnet.network, getattr(resnet, name), IMAGES) == PUBLISHED[name]


def test_features_of_every_stage_shrink_by_two() -> None:
    model = resnet.Features(replay(resnet.R18), width=4, every=True)
    assert [tuple(x.shape) for x in model(torch.randn(2, 3, 65, 64))] == [
        (2, 4, 17, 16),
        (2, 8, 9, 8),
        (2, 16, 5, 4),
        (2, 32, 3, 2),
    ]


def test_it_is_a_space_whose_networks_learn() -> None:
    def space(trial):
        return resnet.network(trial, depth=(1, 2), width=8, classes=3, small_images=True)

    check_space(space, (2, 3, 9, 8), n_samples=2)
    learns(resnet.network(replay(resnet.X50), width=8, classes=3), torch.randn(6, 3, 32, 32))
