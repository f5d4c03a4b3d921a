"""What a drawing of a network shows: its layers, with what follows them, and repeats folded."""

from __future__ import annotations

from dataclasses import dataclass, replace

from optnas.drawing.outline import SUM, Call

_DEEPEST = 5  # groups within this many groups are one box
_LONGEST = 8  # sequence of layers whose repeats are looked for


@dataclass(frozen=True)
class Item:
    """A layer, or a group of them where it has `inner` ones; `count` of it in a row.

    Attributes:
        path: of the module in the model.
        label: its class and details such as the kernel size; `outline.SUM` for an addition.
        shape: of its output, without the batch dimension.
        n_params: of one of the `count`.
        reads: where its input comes from, as `outline.Call` has it.
        also: the normalization, activation and dropout after a layer.
    """

    path: str
    label: str
    shape: tuple[int, ...] | None
    n_params: int
    reads: str = "before"
    inner: tuple[Item, ...] = ()
    also: tuple[str, ...] = ()
    count: int = 1

    @property
    def look(self) -> Item:
        """Equal for items that differ only in where they are."""
        return replace(self._without_paths, reads="before", count=1)

    @property
    def _without_paths(self) -> Item:
        return replace(self, path="", inner=tuple(item._without_paths for item in self.inner))


def items(root: Call) -> tuple[Item, ...]:
    """The parts of a network, or the network itself where a part of it is past others."""
    whole = _prune(_item(root), _DEEPEST)
    branches = any(inner.reads == "block" or inner.label == SUM for inner in whole.inner)
    return whole.inner if whole.inner and not branches else (whole,)


def _item(call: Call) -> Item:
    label = f"{call.kind} {call.detail}".strip()
    parts = _folded(_joined(call.calls))
    if call.kind == "Sequential" and len(parts) == 1 and parts[0].count == 1:
        return replace(parts[0], reads=call.reads)
    if call.kind != "Sequential" and parts and parts[0].label == "Sequential" and parts[0].count == 1:
        parts[:1] = parts[0].inner or parts[:1]  # the body of a block needs no frame of its own
    while len(parts) == 1 and parts[0].inner and parts[0].count == 1:
        parts = list(parts[0].inner)  # nor does what a module wraps
    return Item(call.path, label, call.shape, call.n_params, call.reads, tuple(parts))


def _joined(calls: list[Call]) -> list[Item]:
    """Layers, each with its normalization, activation and dropout."""
    found: list[Item] = []
    for call in calls:
        if call.kind == "Identity" and call.reads == "block":
            continue  # the addition that follows shows it
        last = found[-1] if found else None
        if (
            call.follower
            and last
            and not last.inner
            and last.label != SUM
            and call.shape == last.shape
            and call.reads == "before"
        ):
            also = (*last.also, call.kind)
            found[-1] = replace(last, also=also, n_params=last.n_params + call.n_params)
        else:
            found.append(_item(call))
    return found


def _folded(found: list[Item]) -> list[Item]:
    """Equal neighbors become one with a count, and so do equal sequences of layers."""
    single: list[Item] = []
    for item in found:
        if single and single[-1].look == item.look and item.reads == "before":
            single[-1] = replace(single[-1], count=single[-1].count + 1)
        else:
            single.append(item)
    folded: list[Item] = []
    while len(folded) < len(single):
        length, times = _period(single[len(folded) :])
        if times > 1:
            group = single[len(folded) : len(folded) + length]
            n_params = sum(item.n_params * item.count for item in group)
            one = Item("", f"{length} layers", group[-1].shape, n_params, group[0].reads, tuple(group))
            single[len(folded) : len(folded) + length * times] = [replace(one, count=times)]
        folded.append(single[len(folded)])
    return folded


def _period(found: list[Item]) -> tuple[int, int]:
    """The length of the sequence that `found` starts with and repeats, and how often."""
    looks = [(item.look, item.count) for item in found]
    best = 1, 1
    for length in range(2, min(_LONGEST, len(found) // 2) + 1):
        times = 1
        while looks[times * length : (times + 1) * length] == looks[:length]:
            times += 1
        plain = all(i.reads == "before" and i.label != SUM for i in found[1 : length * times])
        if times * length >= 6 and plain and times * length > best[0] * best[1]:
            best = length, times
    return best


def _prune(item: Item, depth: int) -> Item:
    return replace(item, inner=tuple(_prune(inner, depth - 1) for inner in item.inner) if depth else ())
