"""Alignments keep everything of both networks, and no alignment is cheaper."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optnas.drawing.align import Pair, align, same
from optnas.drawing.items import Item


def layer(kind: str, width: int) -> Item:
    return Item(f"{kind}{width}", kind, (width,), width)


LAYERS = st.builds(layer, st.sampled_from(["A 1", "A 2", "B"]), st.integers(1, 2))
NETWORKS = st.lists(LAYERS, max_size=5)


def cost(pair: Pair) -> float:
    """The stated price of one pair of layers."""
    if pair.old is None or pair.new is None:
        return 1.0
    if pair.old.label == pair.new.label:
        return 0.0 if pair.old.shape == pair.new.shape else 0.3
    return 0.7 if pair.old.label[0] == pair.new.label[0] else 1.6


def cheapest(old: tuple[Item, ...], new: tuple[Item, ...]) -> float:
    """By trying every way."""

    @cache
    def rest(i: int, j: int) -> float:
        if i == len(old) or j == len(new):
            return float(len(old) - i + len(new) - j)
        paired = cost(Pair(old[i], new[j])) + rest(i + 1, j + 1)
        return min(paired, 1 + rest(i + 1, j), 1 + rest(i, j + 1))

    return rest(0, 0)


@given(NETWORKS, NETWORKS)
def test_nothing_is_lost_and_nothing_is_cheaper(old: list[Item], new: list[Item]) -> None:
    pairs = align(old, new)
    assert [pair.old for pair in pairs if pair.old is not None] == old
    assert [pair.new for pair in pairs if pair.new is not None] == new
    assert sum(map(cost, pairs)) == pytest.approx(cheapest(tuple(old), tuple(new)))


@given(NETWORKS, LAYERS, st.integers(0, 5))
def test_one_layer_more_is_one_layer_that_comes(network: list[Item], more: Item, place: int) -> None:
    longer = [*network[:place], more, *network[place:]]
    changed = [p for p in align(network, longer) if not (p.old and p.new and same(p.old, p.new))]
    assert len(changed) == 1
    assert changed[0].old is None


def test_groups_are_paired_with_groups_and_aligned_within() -> None:
    def group(*inner: Item) -> Item:
        return Item("0", "Block", None, 0, inner=inner)

    a, b, c = layer("A 1", 1), layer("B", 1), layer("C", 1)
    [pair] = align([group(a, b)], [group(a, c, b)])
    assert [(p.old, p.new) for p in pair.inner] == [(a, a), (None, c), (b, b)]
    assert len(align([group(a)], [a])) == 2  # a layer never stands for a group
