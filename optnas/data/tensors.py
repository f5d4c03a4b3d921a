"""Data held in memory as tensors, served by indexing.

Most data sets of architecture search fit into memory. Indexing whole batches then costs a fraction of a
DataLoader, which collects samples one by one.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from optnas.data.folds import fold, hold_out

Split: TypeAlias = tuple[Any, Any]
Augment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
Mix: TypeAlias = Callable[[Any, Any, torch.Generator], tuple[Any, Any]]

PARTS = {"train": "train", "test": "test", **dict.fromkeys(("val", "validation", "valid", "dev"), "val")}
"""What the parts of data sets and folders are called, and which argument of `TensorData` each is."""

_BY_CHANCE = 8
"""Fewer rows may well have one target."""


class TensorData(LightningDataModule):
    """Tensors `(x, y)` split into training, validation and test data.

    Args:
        train: inputs and targets, equally long; tensors or arrays (64-bit floats become 32-bit). Inputs may
            be a tuple or a dict of tensors too: a model is then called with several arguments. So may
            targets.
        val: the same, or the share of `train` to hold out, in 0..1.
        test: the same. What is held out for one is not in the other.
        batch_size: samples per batch; the last batch of an epoch may be smaller, but in training not a single
            sample, on which BatchNorm cannot train: that joins the batch before.
        seed: of the splits and, with torch's initial seed at the time `train_dataloader` is called, of the
            order of the samples. Splits of class labels (one-dimensional integer targets) are stratified.
        groups: one entry for each row of `train` (and after these, of `val` where it is given): rows of one
            group, images of one patient for example, stay in one split.
        ordered: rows come in the order of time: the last are held out, `test` after `val`.
        augment: `(x, generator) -> x` on each batch of training inputs, `random_shift` for example. Draw
            from the generator alone, so that an interrupted training goes on exactly. Whole numbers must
            stay whole ones: the other parts are not augmented.
        mix: `(x, y, generator) -> (x, y)` on each of these batches after it, for changes that targets follow:
            `partial(random_mixup, n_classes=10)`. It draws from the same generator.

    Raises:
        ValueError: inputs and targets differ in length, a share is not in 0..1 or leaves a split empty, or
            one part has whole numbers for inputs and another real ones.

    Examples:
        >>> rows, labels = torch.randn(100, 4), torch.arange(100) % 2
        >>> parts = optnas.TensorData((rows, labels), val=0.2, test=0.1)
        >>> parts.setup("fit")
        >>> sum(len(y) for x, y in parts.train_dataloader())
        70
    """

    def __init__(
        self,
        train: Split,
        val: Split | float = 0.2,
        test: Split | float = 0.2,
        batch_size: int = 128,
        seed: int = 0,
        augment: Augment | None = None,
        groups: Any = None,
        ordered: bool = False,
        mix: Mix | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        self.mix = mix
        self.groups = None if groups is None else np.asarray(groups)
        self.ordered = ordered
        rest = _tensors("train", train)
        held_out: dict[str, Split] = {}
        for name, part in (("val", val), ("test", test)):
            if not isinstance(part, float | int):
                held_out[name] = _tensors(name, part)
        for name, part in held_out.items():
            _check_alike(f"{name} holds", rest[0], part[0])
        n_samples = _length(rest)
        n_grouped = n_samples + (_length(held_out["val"]) if "val" in held_out else 0)
        if self.groups is not None and len(self.groups) != n_grouped:
            raise ValueError(
                f"groups has {len(self.groups)} entries for {n_grouped} rows; give one for each."
            )
        if self.groups is not None and (
            none := [i for i, g in enumerate(self.groups) if g is None or g != g]
        ):
            raise ValueError(
                f"groups says of {len(none)} rows, such as row {none[0]}, no group; give each one."
            )
        kept = np.arange(n_samples)  # of which rows of `train` the rest consists
        # In which row of `train`, continued by a given `val`, the rows of both lie.
        validated = n_samples + np.arange(n_grouped - n_samples)
        for name, share in (("test", test), ("val", val)):
            if name not in held_out:
                assert isinstance(share, float | int)
                size = round(share * n_samples)
                if not 0 < share < 1 or not 0 < size < len(kept):
                    raise ValueError(
                        f"{name}={share} of {n_samples} samples leaves a split empty; give a share between 0 "
                        f"and 1, or {name}=(x, y)."
                    )
                among = None if self.groups is None else self.groups[kept]
                stay, leave = hold_out(rest[1], len(kept), size, seed, among, ordered)
                held_out[name] = _take(rest, torch.from_numpy(leave))
                rest = _take(rest, torch.from_numpy(stay))
                validated = kept[leave] if name == "val" else validated
                kept = kept[stay]
        self.train: Split = rest
        self.val: Split = held_out["val"]
        self.test: Split = held_out["test"]
        self._rows = np.concatenate([kept, validated])
        for name in ("train", "val", "test"):
            _warn_of_no_numbers(name, self.served(getattr(self, name)))
        self._warn_of_one_target()

    def _warn_of_one_target(self) -> None:
        """Warn of a part in which all targets are the same, where those of the training data are not."""
        if _is_one(self.train[1]):
            return
        for name in ("val", "test"):
            y = getattr(self, name)[1]
            if _is_one(y):
                warnings.warn(
                    f"All {len(y)} rows of the {name} data have the target {y.flatten()[0].item()}, and rows "
                    "of the training data have others: an accuracy, an AUROC or an R2 on them tells no good "
                    "network from one that always says the same. Give a share, which divides classes evenly "
                    f"({name}=0.2 without ordered=True), or with groups a larger one.",
                    stacklevel=3,
                )

    def fold(self, i: int, k: int, repeat: int = 0) -> Self:
        """The same data, of which fold `i` of `k` validates and the others train; the test data stay.

        Training and validation rows are divided together: stratified where targets are class labels (and
        each class has `k` rows), in whole `groups`, or, where they are `ordered`, so that each fold trains
        on what comes before. `repeat`: another division.

        Raises:
            ValueError: there is no such fold, or there are fewer rows or groups than folds.
        """
        order = np.argsort(self._rows)
        x, y = (_joined(a, b, torch.from_numpy(order)) for a, b in zip(self.train, self.val, strict=True))
        rows = self._rows[order]
        groups = None if self.groups is None else self.groups[rows]
        seed = _mix(self.seed, repeat) % 2**32
        train, val = fold(y, len(rows), i, k, seed, groups, self.ordered)
        other = copy(self)
        other.train, other.val = (_take((x, y), torch.from_numpy(part)) for part in (train, val))
        other._rows = np.concatenate([rows[train], rows[val]])
        other._warn_of_one_target()
        return other

    def served(self, split: Split) -> Split:
        """What batches are taken from: the split itself; a class of its own may scale it by `self.train`."""
        return split

    def train_dataloader(self) -> Batches:
        seed = _mix(self.seed, torch.initial_seed())
        split = self.served(self.train)
        return Batches(split, self.batch_size, shuffle=seed, augment=self.augment, mix=self.mix)

    def val_dataloader(self) -> Batches:
        return Batches(self.served(self.val), self.batch_size)

    def test_dataloader(self) -> Batches:
        return Batches(self.served(self.test), self.batch_size)

    def fingerprint(self) -> str:
        """A hash of all three splits' contents, types and shapes."""
        digest = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            _map(split, lambda part: _digest(digest, part))
        return digest.hexdigest()[:16]


class Batches:
    """Iterates over batches `(x, y)` of tensors, in order or shuffled anew in every epoch.

    The order of an epoch, and how its rows are changed and mixed, is a function of `shuffle`, a seed, and the
    epoch alone. The epoch is set by Lightning through `set_epoch`; without a Trainer it counts the iterations
    begun.

    Examples:
        >>> from optnas.data import Batches
        >>> batches = Batches((torch.arange(5), torch.arange(5)), batch_size=2)
        >>> [x.tolist() for x, y in batches]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        shuffle: int | None = None,
        augment: Augment | None = None,
        mix: Mix | None = None,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.augment = augment
        self.mix = mix
        self.batch_sampler = _Epoch()

    def __len__(self) -> int:
        n_samples, size = _length(self.split), self.batch_size
        left_alone = self.shuffle is not None and n_samples > size > 1 and n_samples % size == 1
        return -(-n_samples // size) - left_alone

    def __iter__(self) -> Iterator[Split]:
        # A generator: the epoch is read at the first batch, after Lightning has set it.
        generator = torch.Generator()
        n_samples = _length(self.split)
        order = None
        if self.shuffle is not None:
            generator.manual_seed(_mix(self.shuffle, self.batch_sampler.epoch))
            order = torch.randperm(n_samples, generator=generator)
        self.batch_sampler.epoch += 1
        n_batches = len(self)
        for i in range(n_batches):
            end = (i + 1) * self.batch_size if i < n_batches - 1 else n_samples
            rows = slice(i * self.batch_size, end)
            x, y = _take(self.split, rows if order is None else order[rows])
            if self.augment is not None:
                before, x = x, self.augment(x, generator)
                _check_alike("augment returns", before, x)
            if self.mix is not None:
                x, y = self.mix(x, y, generator)
            yield x, y


class _Epoch:
    """The number of the epoch, where Lightning looks for `set_epoch`: at `loader.batch_sampler.sampler`."""

    def __init__(self) -> None:
        self.epoch = 0

    @property
    def sampler(self) -> _Epoch:
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def _tensors(name: str, split: Split) -> Split:
    if not isinstance(split, tuple | list) or len(split) != 2:
        raise ValueError(f"{name} must be a pair of inputs and targets, as in TensorData((x, y)).")
    x, y = (_map(part, _tensor) for part in split)
    if not _leaves(x) or not all(part.ndim for part in _leaves((x, y))):
        raise ValueError(f"{name} must hold tensors whose first dimension counts the samples.")
    lengths = [len(part) for part in _leaves((x, y))]
    if len(set(lengths)) != 1:
        raise ValueError(f"{name} holds inputs and targets of different lengths: {lengths}.")
    return x, y


def _is_one(y: Any) -> bool:
    """Whether targets, one a row, are all the same number."""
    single = isinstance(y, Tensor) and y.numel() == len(y) >= _BY_CHANCE
    return single and bool((y == y[0]).all())


def _check_alike(what: str, train: Any, other: Any) -> None:
    """Raises ValueError where one has whole numbers and one real ones, as of pixels in 0..255 and 0..1."""
    kinds = [[leaf.dtype for leaf in _leaves(x) if isinstance(leaf, Tensor)] for x in (train, other)]
    one, another = (sum(kind.is_floating_point for kind in found) for found in kinds)
    if one != another and len(kinds[0]) == len(kinds[1]):
        ours, theirs = (", ".join(sorted({str(kind) for kind in found})) for found in kinds)
        raise ValueError(
            f"{what} inputs of {theirs}, and train holds {ours}: a network would be trained on other numbers "
            "than it is validated on. Convert those of all parts in the same way before, as in "
            "TensorData((x.float() / 255, y))."
        )


def _warn_of_no_numbers(name: str, split: Split) -> None:
    for what, part in zip(("inputs", "targets"), split, strict=True):
        finite = [
            leaf.isfinite().reshape(len(leaf), -1).all(1)
            for leaf in _leaves(part)
            if leaf.is_floating_point()
        ]
        if finite and (rows := (~torch.stack(finite).all(0)).nonzero().flatten()).numel():
            warnings.warn(
                f"In {len(rows)} rows of the {name} data, such as row {rows[0]}, {what} are infinite or no "
                "number. A network that meets them learns nothing, unless it was made for that: fill the "
                "gaps, or leave the rows out.",
                stacklevel=3,
            )


def _tensor(part: Any) -> Tensor:
    array = part if isinstance(part, Tensor) else np.asarray(part)
    if isinstance(array, np.ndarray) and array.dtype.kind not in "fiubc":
        raise TypeError(
            f"TensorData holds an array of {array.dtype}, and tensors are of numbers. Number classes that "
            "are texts: np.unique(y, return_inverse=True)[1]; or use optnas.data.TableData."
        )
    tensor = torch.as_tensor(array)
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _length(split: Split) -> int:
    """Rows; every tensor of a split has as many."""
    return len(_leaves(split)[0])


def _take(split: Split, rows: Tensor | slice) -> Split:
    x, y = _map(split, lambda part: part[rows])
    return x, y


def _map(part: Any, function: Callable[[Any], Any]) -> Any:
    """Apply `function` to every tensor or array in a tuple or dict of them."""
    if isinstance(part, tuple):
        parts = [_map(p, function) for p in part]
        return tuple(parts) if type(part) is tuple else type(part)(*parts)  # or a named tuple
    if isinstance(part, dict):
        return {name: _map(p, function) for name, p in part.items()}
    return function(part)


def _joined(one: Any, other: Any, order: Tensor) -> Any:
    """The rows of both, in this order."""
    if isinstance(one, tuple):
        parts = [_joined(a, b, order) for a, b in zip(one, other, strict=True)]
        return tuple(parts) if type(one) is tuple else type(one)(*parts)
    if isinstance(one, dict):
        return {name: _joined(part, other[name], order) for name, part in one.items()}
    return torch.cat([one, other])[order]


def _leaves(part: Any) -> list[Any]:
    leaves: list[Any] = []
    _map(part, leaves.append)
    return leaves


def _mix(*numbers: int) -> int:
    """One seed from several numbers, without the collisions of a sum."""
    state = np.random.SeedSequence([number % 2**64 for number in numbers]).generate_state(2, np.uint32)
    return int(state[0]) << 32 | int(state[1])


def _digest(digest: Any, tensor: Tensor) -> None:
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor.contiguous().view(torch.uint8).numpy())
