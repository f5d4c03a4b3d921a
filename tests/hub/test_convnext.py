import pytest
import torch
from fixtures.hub import IMAGES, learns, n_params

from optnas.hub import convnext
from optnas.testing import check_space
from optnas.trial import replay

# What torchvision documents as num_params of convnext_tiny and so on.
PUBLISHED = {"TINY": 28_589_128, "SMALL": 50_223_688, "BASE": 88_591_464, "LARGE": 197_767_336}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_are_members_of_the_published_size(name: str) -> None:
    assert n_params(convnext.network, getattr(convnext, name), IMAGES) == PUBLISHED[name]


def test_it_is_a_space_whose_networks_learn() -> None:
    small = {"depth": (1, 2), "width": (4, 8), "classes": 3, "patch": 1}
    check_space(lambda trial: convnext.network(trial, **small), (2, 3, 9, 8), n_samples=2)
    model = convnext.network(replay(convnext.TINY), classes=3, drop_path=0.2)
    learns(model, torch.randn(4, 3, 32, 32), lr=1e-3, steps=4)
