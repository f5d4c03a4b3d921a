import pytest
import torch
from fixtures.hub import learns, n_params
from torch import nn

from optnas import sample
from optnas.hub import unet
from optnas.testing import check_space
from optnas.trial import replay


def by_hand(given: int, classes: int) -> int:
    """The original: two convolutions a level, up-convolutions of kernel 2, all with biases."""

    def conv(a: int, b: int, kernel: int = 9) -> int:
        return a * b * kernel + b

    total = 0
    for width in (64, 128, 256, 512, 1024):
        total += conv(given, width) + conv(width, width)
        given = width
    for width in (512, 256, 128, 64):
        total += conv(2 * width, width, 4) + conv(2 * width, width) + conv(width, width)
    return total + conv(64, classes, 1)


def test_the_published_networks_are_members_of_the_published_size() -> None:
    assert n_params(unet.network, unet.UNET, (1, 1, 32, 32)) == by_hand(1, 2) == 31_030_658
    # Of 3D U-Net: "The architecture has 19069955 parameters in total", without batch normalization.
    volumes = {"dims": 3, "classes": 3}
    channels = 32 + 64 + 64 + 128 + 128 + 256 + 256 + 512 + 2 * (256 + 128 + 64)
    assert n_params(unet.network, unet.UNET_3D, (1, 3, 16, 16, 16), **volumes) - 2 * channels == 19_069_955
    plain = {**unet.UNET_3D, "norm": "none"}
    assert n_params(unet.network, plain, (1, 3, 16, 16, 16), **volumes) == 19_069_955


@pytest.mark.parametrize("shape", [(2, 3, 15), (2, 3, 9, 6), (1, 3, 5, 6, 7)])
def test_the_output_has_the_size_of_the_input(shape: tuple[int, ...]) -> None:
    dims = len(shape) - 2

    def space(trial):
        return unet.network(trial, width=(2, 3), depth=(1, 2), dims=dims, norm={"none": lambda _: None})

    for seed in range(4):
        assert space(replay(sample(space, seed)))(torch.randn(shape)).shape == (shape[0], 2, *shape[2:])


def test_it_is_a_space_whose_networks_learn() -> None:
    small = {"width": (2, 4), "depth": (1, 2), "classes": 3}
    check_space(lambda trial: unet.network(trial, **small), (2, 1, 9, 8), n_samples=2)
    volumes = {"width": (2, 4), "depth": 1, "dims": 3}
    check_space(lambda trial: unet.network(trial, **volumes), (2, 1, 5, 4, 6), n_samples=2)
    model = unet.network(replay(unet.params_of(8, 2, "first", "batch")), classes=3)
    model(torch.randn(2, 1, 8, 8))
    learns(Last(model), torch.randn(2, 1, 8, 8))


class Last(nn.Module):
    """Classes last, as `learns` takes them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x).movedim(1, -1)
