"""Which parts of two networks stand for each other: a cheapest way from the one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

from optnas.drawing.items import Item
from optnas.drawing.outline import SUM

_SIZES, _FOLLOWERS, _NAME, _KIND = 0.3, 0.5, 0.7, 1.6  # what it costs to change them; to add a layer costs 1


@dataclass(frozen=True)
class Pair:
    """What stands in one place of two networks; None where one of them has nothing there.

    `inner` are the parts of two groups that are not equal.
    """

    old: Item | None
    new: Item | None
    inner: tuple[Pair, ...] = ()


_Way = tuple[float, tuple[int, int], Pair | None]  # cost until here, the last step, what that paired


def align(old: Sequence[Item], new: Sequence[Item]) -> tuple[Pair, ...]:
    """Every item of both, in order: paired, gone (`new` is None) or come (`old` is None)."""
    return _align(tuple(old), tuple(new))[1]


def same(old: Item, new: Item) -> bool:
    """Equal but for where they are."""
    return old.count == new.count and old.look == new.look


@lru_cache(maxsize=4096)
def _align(old: tuple[Item, ...], new: tuple[Item, ...]) -> tuple[float, tuple[Pair, ...]]:
    """Needleman & Wunsch (1970), with groups that are paired aligned in turn."""
    n_equal = len(list(takewhile(lambda two: same(*two), zip(old, new, strict=False))))
    before = tuple(Pair(a, b) for a, b in zip(old[:n_equal], new[:n_equal], strict=True))
    old, new = old[n_equal:], new[n_equal:]
    table: list[list[_Way]] = [[(0.0, (0, 0), None)]]
    for j, b in enumerate(new):
        table[0].append((table[0][j][0] + _size(b), (0, 1), Pair(None, b)))
    for i, a in enumerate(old):
        line: list[_Way] = [(table[i][0][0] + _size(a), (1, 0), Pair(a, None))]
        for j, b in enumerate(new):
            cost, changed = _change(a, b)
            ways: list[_Way] = [
                (table[i][j][0] + cost, (1, 1), changed),
                (table[i][j + 1][0] + _size(a), (1, 0), Pair(a, None)),
                (line[j][0] + _size(b), (0, 1), Pair(None, b)),
            ]
            line.append(min(ways, key=lambda way: way[0]))
        table.append(line)
    i, j = len(old), len(new)
    after: list[Pair] = []
    while (pair := table[i][j][2]) is not None:
        after.append(pair)
        i, j = i - table[i][j][1][0], j - table[i][j][1][1]
    return table[-1][-1][0], (*before, *reversed(after))


def _change(old: Item, new: Item) -> tuple[float, Pair]:
    if same(old, new):
        return 0.0, Pair(old, new)
    cost = 0.0 if old.count == new.count else _SIZES
    if old.inner and new.inner:
        inner_cost, inner = _align(old.inner, new.inner)
        return cost + inner_cost + (old.label != new.label) * _FOLLOWERS, Pair(old, new, inner)
    if old.inner or new.inner or SUM in (old.label, new.label):
        return float("inf"), Pair(old, new)
    if old.label == new.label:
        cost += _SIZES if old.also == new.also else _FOLLOWERS
    else:
        cost += _NAME if old.label.split()[0] == new.label.split()[0] else _KIND
    return cost, Pair(old, new)


def _size(item: Item) -> float:
    return sum(map(_size, item.inner)) if item.inner else 1.0
