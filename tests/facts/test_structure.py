import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from optnas.facts.flow import FAMILIES, flow
from optnas.facts.structure import COLUMNS, structure
from optnas.hub.nasbench201 import EDGES, OPS, network
from optnas.trial import replay

SHAPE = (2, 3, 8, 8)


def published(*ops, cells=1):
    with torch.device("meta"):
        return network(
            replay({f"edge.{i}-{j}": op for (i, j), op in zip(EDGES, ops, strict=True)}), cells=cells
        )


def test_a_chain() -> None:
    with torch.device("meta"):
        model = nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1)),
            nn.Flatten(),
            nn.Linear(4, 2),
        )
    found = structure(model, SHAPE)
    for family, n in {
        "convolution 3": 1,
        "convolution 1": 1,
        "convolution": 2,
        "weights": 3,
        "pool": 1,
    }.items():
        assert {found[f"{what} {family}"] for what in ("made", "live", "least", "most")} == {n}
    n_params = 3 * 8 * 9 + 8 + 8 * 4 + 4 + 4 * 2 + 2
    flops = 2 * (6 * 6 * 8 * 27 + 6 * 6 * 4 * 8 + 4 * 2)
    assert found["log params"] == pytest.approx(math.log1p(n_params))
    assert found["log flops"] == found["log live flops"] == pytest.approx(math.log1p(flops))
    assert [found[f"log width, {n}"] for n in ("least", "mean", "largest")] == pytest.approx([1, 2, 3])
    assert found["log paths"] == math.log(2)
    assert not any(
        found[f"{what} {c}"] for c in COLUMNS for what in ("leaving", "entering", "without", "only")
    )


def counted(watched):
    """Every path of a flow, as what is on each of its steps."""
    chains = {}
    for edge in watched.edges:
        chains.setdefault(edge.start, []).append(edge)
    paths = [(point, []) for point in watched.inputs]
    for point, steps in paths:
        if point in watched.outputs:
            yield steps
        paths += [(edge.end, [*steps, edge.families]) for edge in chains.get(point, ())]


CELLS = [tuple(np.random.default_rng(seed).choice(OPS, 6)) for seed in range(12)]


@pytest.mark.parametrize("ops", CELLS, ids=range(len(CELLS)))
def test_extremes_are_those_of_all_paths(ops) -> None:
    model = published(*ops)
    paths = [Counter(itertools.chain(*steps)) for steps in counted(flow(model, SHAPE))]
    found = structure(model, SHAPE)
    assert found["log paths"] == math.log(1 + len(paths))
    for family in FAMILIES:
        n = [path[family] for path in paths] or [0]
        assert (found[f"least {family}"], found[f"most {family}"]) == (min(n), max(n))


def test_a_cell_by_hand() -> None:
    """Three cells and two reductions: what the cells add to the reductions, a third each.

    From 0 to 3: a convolution; skip and convolution (over 1); a convolution and a pool (over 2).
    """
    cell = published("skip_connect", "nor_conv_3x3", "none", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    skips = published("none", "none", "none", "skip_connect", "none", "none")
    with_cell, without = structure(cell, SHAPE), structure(skips, SHAPE)

    def difference(name):
        return (with_cell[name] - without[name]) / 3

    assert difference("live convolution 3") == difference("made convolution 3") == 2
    assert difference("most convolution 3") == difference("least convolution") == 1
    assert difference("least convolution 3") == difference("least pool") == 0
    assert difference("leaving convolution") == 3  # 0-2, 0-3, and 1-3: 0 and 1 are one value
    assert (difference("leaving pool"), difference("entering pool")) == (1, 1)  # the chain over 2
    assert difference("only convolution") == pytest.approx(math.log(1 + 3))
    assert difference("without pool") == pytest.approx(math.log(1 + 2))
    assert difference("without convolution 1") == pytest.approx(math.log(1 + 2))
    assert difference("only convolution 3") == pytest.approx(math.log(1 + 2))


def test_repeated_cells_add_up() -> None:
    ops = ("nor_conv_3x3", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "none", "nor_conv_3x3")
    one, two, three = (structure(published(*ops, cells=n), SHAPE) for n in (1, 2, 3))
    for name in one:
        if name not in {"log paths", "log params", "log flops", "log live flops", "log width, mean"}:
            assert two[name] - one[name] == pytest.approx(three[name] - two[name]), name


def test_a_network_without_a_path_is_described_too() -> None:
    found = structure(published(*["none"] * 6), SHAPE)
    assert (found["most weights"], found["live weights"], found["log paths"]) == (0, 0, 0)
    assert found["made convolution 3"] > 0
    assert all(map(math.isfinite, found.values()))


def test_more_paths_than_a_float_can_count() -> None:
    class Dense(nn.Module):
        """Every layer reads all before it: 2 ** 1099 paths."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            total = x
            for _ in range(1100):
                total = total + torch.relu(total)
            return self.layer(total)

    found = structure(Dense(), (2, 4))
    assert found["log paths"] == pytest.approx(1100 * math.log(2))
    assert all(map(math.isfinite, found.values()))
