from itertools import product

import pytest
import torch
from fixtures.hub import IMAGES, learns, n_params

from optnas import sample
from optnas.hub import vit
from optnas.testing import check_space
from optnas.trial import replay

# BASE and LARGE: num_params of torchvision's vit_b_16 and vit_l_16; TINY and SMALL: timm's DeiT of that name.
PUBLISHED = {"TINY": 5_717_416, "SMALL": 22_050_664, "BASE": 86_567_656, "LARGE": 304_326_632}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_are_members_of_the_published_size(name: str) -> None:
    assert n_params(vit.network, getattr(vit, name), IMAGES) == PUBLISHED[name]


def by_hand(width: int, heads: list[int], ratios: list[float], classes: int, patch: int, size: int) -> int:
    total = 3 * patch**2 * width + width + width + ((size // patch) ** 2 + 1) * width
    for n, ratio in zip(heads, ratios, strict=True):
        inner, hidden = 64 * n, int(ratio * width)
        total += 3 * (width * inner + inner) + inner * width + width
        total += 2 * width * hidden + hidden + width + 4 * width
    return total + 2 * width + width * classes + classes


@pytest.mark.parametrize(
    ("space", "seed"),
    list(product([vit.AUTOFORMER_TINY, vit.AUTOFORMER_SMALL, vit.AUTOFORMER_BASE], range(2))),
)
def test_sizes_are_those_by_hand(space, seed: int) -> None:
    params = sample(lambda trial: vit.network(trial, **space), seed)
    n = params["depth"]
    heads, ratios = ([params[f"block.{i}.{what}"] for i in range(n)] for what in ("heads", "ratio"))
    expected = by_hand(params["width"], heads, ratios, 1000, 16, 224)
    assert n_params(lambda trial: vit.network(trial, **space), params, IMAGES) == expected


def test_it_is_a_space_whose_networks_learn() -> None:
    small = {"depth": (1, 2), "width": (8, 12), "heads": (1, 2), "head_width": 4, "patch": 4, "classes": 3}
    check_space(lambda trial: vit.network(trial, **small), (2, 3, 9, 8), n_samples=2)
    fixed = {"depth": 2, "width": 16, "heads": 2, "head_width": 4, "patch": 4, "classes": 3}
    ratios = replay({"block.0.ratio": 3.0, "block.1.ratio": 3.5})
    learns(vit.network(ratios, **fixed, drop_path=0.1), torch.randn(6, 3, 8, 8))
