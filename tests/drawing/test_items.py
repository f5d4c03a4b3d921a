"""What a drawing shows says the same as the network, with less."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from optnas.drawing.items import Item, items
from optnas.drawing.outline import outline


def shown(model: nn.Module, *sizes: int) -> tuple[Item, ...]:
    return items(outline(model, sizes))


def layers(parts: tuple[Item, ...]) -> Iterator[str]:
    """Classes of the layers as they run, unfolded."""
    for item in parts:
        for _ in range(item.count):
            if item.inner:
                yield from layers(item.inner)
            else:
                yield item.label.split()[0]
                yield from item.also


def block(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 8))


class Branches(nn.Module):
    def __init__(self, parallel: bool) -> None:
        super().__init__()
        self.one, self.two, self.parallel = nn.Linear(8, 8), nn.Linear(8, 8), parallel

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        return self.two(x) if self.parallel else self.two(y)


def test_equal_neighbors_become_one_and_different_ones_do_not() -> None:
    first, last = shown(nn.Sequential(block(4), block(4), block(4), block(5)), 1, 8)
    assert (first.path, first.count, last.path, last.count) == ("0", 3, "3", 1)
    assert first.n_params == sum(p.numel() for p in block(4).parameters())


def test_blocks_of_equal_layers_but_other_connections_are_different() -> None:
    assert [i.count for i in shown(nn.Sequential(Branches(True), Branches(False)), 1, 8)] == [1, 1]
    assert [i.count for i in shown(nn.Sequential(Branches(True), Branches(True)), 1, 8)] == [2]


def test_blocks_that_repeat_a_layer_not_equally_often_are_different() -> None:
    def twice(n: int) -> nn.Module:
        return nn.Sequential(nn.Linear(8, 8), *[nn.Identity() for _ in range(n)])

    assert [i.count for i in shown(nn.Sequential(twice(2), twice(3)), 1, 8)] == [1, 1]


@pytest.mark.parametrize(("length", "times"), [(2, 3), (3, 2), (4, 5)])
def test_sequences_that_repeat_become_one(length: int, times: int) -> None:
    def sequence() -> list[nn.Module]:
        return [nn.Linear(8, 8), *[nn.AvgPool1d(1 + 2 * k, 1, k) for k in range(1, length)]]

    flat = nn.Sequential(
        nn.AdaptiveAvgPool1d(8), *[layer for _ in range(times) for layer in sequence()], nn.Flatten()
    )
    parts = shown(flat, 1, 8, 8)
    assert [len(item.inner) for item in parts] == [0, length, 0]
    assert parts[1].count == times
    assert sum(item.n_params * item.count for item in parts) == sum(p.numel() for p in flat.parameters())
    assert list(layers(parts)) == [type(layer).__name__ for layer in flat]


def test_every_layer_is_there_in_its_order() -> None:
    generator = torch.Generator().manual_seed(0)
    kinds = (lambda: nn.Linear(8, 8), nn.ReLU, lambda: nn.Dropout(0.1), nn.Flatten, lambda: nn.LayerNorm(8))
    for _ in range(50):
        picks = torch.randint(len(kinds), (12,), generator=generator).tolist()
        model = nn.Sequential(*[kinds[i]() for i in picks])
        assert list(layers(shown(model, 2, 8))) == [type(layer).__name__ for layer in model]


def test_wrappers_get_no_frame_of_their_own() -> None:
    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    wrapped = nn.Sequential(Wrapper(Wrapper(Wrapper(block(4)))), nn.Linear(8, 2))
    assert [item.label for item in shown(wrapped, 1, 8)[0].inner] == ["Linear", "Linear"]
