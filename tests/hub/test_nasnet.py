import pytest
import torch
from fixtures.hub import IMAGES, learns, n_params

from optnas import sample
from optnas.hub import nasnet
from optnas.testing import check_space
from optnas.trial import replay

SMALL = {"cells": 1, "filters": 96, "stem": 4, "classes": 3}


def test_the_published_networks_are_members_of_the_published_size() -> None:
    # Keras documents 5.3 and 88.9 million; its trainable parameters are these, as those of timm are.
    assert n_params(nasnet.network, nasnet.A, IMAGES) == 5_289_978
    assert n_params(nasnet.network, nasnet.A, IMAGES, cells=6, filters=4032, stem=96) == 88_753_150
    cifar = {"cells": 6, "filters": 768, "classes": 10, "large_images": False}
    assert round(n_params(nasnet.network, nasnet.A, (2, 3, 32, 32), **cifar) / 1e6, 1) == 3.3


@pytest.mark.parametrize("seed", range(5))
def test_genotypes_convert_both_ways(seed: int) -> None:
    params = sample(nasnet.genotype, seed)
    genotype = nasnet.genotype_of({**params, "lr": 0.1})
    assert nasnet.params_of(genotype) == params


def test_what_is_no_cell_is_refused() -> None:
    genotype = nasnet.genotype_of(nasnet.A)
    with pytest.raises(ValueError, match="normal has 9 edges"):
        nasnet.params_of(genotype._replace(normal=genotype.normal[:9]))
    with pytest.raises(ValueError, match=r"Block 2 of reduce.*one of 0 to 1"):
        nasnet.params_of(genotype._replace(reduce=[("conv_3x3", 2), *genotype.reduce[1:]]))
    with pytest.raises(ValueError, match="its inputs are larger"):
        nasnet.params_of(genotype._replace(reduce_concat=[0, 6]))


@pytest.mark.parametrize("large_images", [False, True])
def test_it_is_a_space_whose_networks_learn(large_images: bool) -> None:
    def space(trial):
        return nasnet.network(trial, **SMALL, large_images=large_images)

    check_space(space, (2, 3, 13, 12), n_samples=2)
    learns(nasnet.network(replay(nasnet.A), **SMALL, large_images=large_images), torch.randn(6, 3, 16, 16))
