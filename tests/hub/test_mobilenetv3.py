import torch
from fixtures.hub import IMAGES, learns, n_params

from optnas.hub import mobilenetv3
from optnas.hub.mobilenetv3 import divisible
from optnas.testing import check_space
from optnas.trial import replay


def test_the_published_network_is_a_member_of_the_published_size() -> None:
    # torchvision documents 5483032 for mobilenet_v3_large; the paper's table 3 says 5.4 million.
    assert n_params(mobilenetv3.network, mobilenetv3.LARGE, IMAGES) == 5_483_032


def test_widths_are_multiples_of_eight_near_what_was_meant() -> None:
    assert [divisible(width) for width in (3, 16, 19.9, 44, 184, 200)] == [8, 16, 24, 48, 184, 200]


def test_it_is_a_space_whose_networks_learn() -> None:
    def space(trial):
        return mobilenetv3.network(trial, depth=(1, 2), width_multiplier=0.1, classes=3)

    check_space(space, (2, 3, 17, 16), n_samples=2)
    small = mobilenetv3.network(replay(mobilenetv3.LARGE), width_multiplier=0.1, classes=3)
    learns(small, torch.randn(6, 3, 16, 16), steps=8)
