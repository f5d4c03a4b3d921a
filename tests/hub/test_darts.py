import pytest
import torch
from fixtures.hub import IMAGES, learns, n_params
from torch import nn

from optnas import sample
from optnas.analysis.cells import cells
from optnas.hub import darts
from optnas.hub.cells import FactorizedReduction
from optnas.testing import check_space
from optnas.trial import replay

SMALL = {"channels": 4, "layers": 3, "classes": 3}


def test_the_published_networks_are_members_of_the_published_size() -> None:
    # The authors' code prints "param size = 3.349342MB" for V2 on CIFAR-10; tables 1 and 2 say 3.3 and 4.7.
    assert n_params(darts.network, darts.V2, (2, 3, 32, 32)) == 3_349_342
    large = {"channels": 48, "layers": 14, "classes": 1000, "large_images": True}
    assert n_params(darts.network, darts.V2, IMAGES, **large) == 4_718_752
    assert round(n_params(darts.network, darts.V1, (2, 3, 32, 32)) / 1e6, 1) == 3.2


def by_hand(genotype: darts.Genotype, channels: int, layers: int, classes: int) -> int:
    """Layers of convolutions and normalizations, one by one."""

    def op(name: str, c: int, stride: int) -> int:
        kind, size = name.rsplit("_", 1) if name[-1].isdigit() else (name, "0x0")
        k = int(size[0])
        if kind == "sep_conv":
            return 2 * (c * k * k + c * c + 2 * c)
        if kind == "dil_conv":
            return c * k * k + c * c + 2 * c
        return c * c + 2 * c if kind == "skip_connect" and stride == 2 else 0

    total = 3 * 3 * channels * 9 + 2 * 3 * channels
    before = last = 3 * channels
    for i in range(layers):
        reduction = i in (layers // 3, 2 * layers // 3)
        channels *= 2 if reduction else 1
        total += (before + last) * channels + 2 * 2 * channels
        for name, start in genotype.reduce if reduction else genotype.normal:
            total += op(name, channels, 2 if reduction and start < 2 else 1)
        before, last = last, 4 * channels
    return total + last * classes + classes


@pytest.mark.parametrize("seed", range(5))
def test_sizes_are_those_by_hand(seed: int) -> None:
    params = sample(darts.genotype, seed)
    expected = by_hand(darts.genotype_of(params), 6, 5, 4)
    assert n_params(darts.network, params, (2, 3, 8, 8), channels=6, layers=5, classes=4) == expected
    assert by_hand(darts.genotype_of(darts.V2), 36, 20, 10) == 3_349_342


@pytest.mark.parametrize("seed", range(5))
def test_genotypes_convert_both_ways(seed: int) -> None:
    params = sample(darts.genotype, seed)
    genotype = darts.genotype_of({**params, "lr": 0.1})
    assert darts.params_of(genotype) == params
    assert genotype == darts.genotype(replay(params))
    turned = [edge for i in range(0, 8, 2) for edge in (genotype.normal[i + 1], genotype.normal[i])]
    assert darts.params_of(genotype._replace(normal=turned)) == params


def test_what_is_no_cell_is_refused() -> None:
    genotype = darts.genotype_of(darts.V2)
    with pytest.raises(ValueError, match=r"nodes \[3, 4, 5\] make the output"):
        darts.params_of(genotype._replace(reduce_concat=[3, 4, 5]))
    with pytest.raises(ValueError, match=r"Node 2 of normal.*two different nodes before it"):
        darts.params_of(
            genotype._replace(normal=[("sep_conv_3x3", 0), *genotype.normal[:1], *genotype.normal[2:]])
        )
    with pytest.raises(ValueError, match=r"Node 5 of normal.*sep_conv_3x3"):
        darts.params_of(genotype._replace(normal=[*genotype.normal[:7], ("conv_1x1", 4)]))


def test_a_cell_computes_its_graph() -> None:
    edges = [("skip_connect", 0), ("avg_pool_3x3", 1), *[("skip_connect", 0), ("max_pool_3x3", 2)] * 3]
    cell = darts.Cell(edges, 3, 3, 3, reduction=False, halved=False)
    cell.before, cell.last = nn.Identity(), nn.Identity()
    a, b = torch.randn(2, 2, 3, 5, 5)
    first = a + nn.functional.avg_pool2d(b, 3, 1, 1, count_include_pad=False)
    other = a + nn.functional.max_pool2d(first, 3, 1, 1)
    torch.testing.assert_close(cell(a, b), torch.cat([first, other, other, other], 1))


def test_reductions_halve_any_size_and_see_every_other_pixel() -> None:
    for size in (1, 2, 5, 8):
        assert FactorizedReduction(3, 5)(torch.randn(2, 3, size, size)).shape == (
            2,
            5,
            -(-size // 2),
            -(-size // 2),
        )


def test_cells_are_recognized_by_their_names() -> None:
    found = cells(darts.V2)
    assert set(found) == {"normal", "reduce"}
    assert found["normal"][0, 2] == "sep_conv_3x3"
    assert len(found["normal"]) == 8


def test_it_is_a_space_whose_networks_learn() -> None:
    def space(trial):
        return darts.network(trial, **SMALL)

    check_space(space, (2, 3, 9, 9), n_samples=2)
    learns(darts.network(replay(darts.V2), **SMALL, drop_path=0.2), torch.randn(6, 3, 8, 8))
