"""Data held in memory as tensors, served by indexing.

Most data sets of architecture search fit into memory. Indexing whole batches then costs a fraction of a
DataLoader, which collects samples one by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

Split: TypeAlias = tuple[Any, Any]
Augment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]


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
        augment: `(x, generator) -> x` on each batch of training inputs, `random_shift` for example. Draw
            from the generator alone, so that an interrupted training goes on exactly.

    Raises:
        ValueError: inputs and targets differ in length, or a share is not in 0..1 or leaves a split empty.
    """

    def __init__(
        self,
        train: Split,
        val: Split | float = 0.2,
        test: Split | float = 0.2,
        batch_size: int = 128,
        seed: int = 0,
        augment: Augment | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        rest = _tensors("train", train)
        held_out: dict[str, Split] = {}
        for name, part in (("val", val), ("test", test)):
            if not isinstance(part, float | int):
                held_out[name] = _tensors(name, part)
        n_samples = _length(rest)
        for name, share in (("test", test), ("val", val)):
            if name not in held_out:
                assert isinstance(share, float | int)
                rest, held_out[name] = _hold_out(name, rest, share, n_samples, seed)
        self.train: Split = rest
        self.val: Split = held_out["val"]
        self.test: Split = held_out["test"]

    def train_dataloader(self) -> Batches:
        seed = _mix(self.seed, torch.initial_seed())
        return Batches(self.train, self.batch_size, shuffle=seed, augment=self.augment)

    def val_dataloader(self) -> Batches:
        return Batches(self.val, self.batch_size)

    def test_dataloader(self) -> Batches:
        return Batches(self.test, self.batch_size)

    def fingerprint(self) -> str:
        """A hash of all three splits' contents, types and shapes."""
        digest = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            _map(split, lambda part: _digest(digest, part))
        return digest.hexdigest()[:16]


class Batches:
    """Iterates over batches `(x, y)` of tensors, in order or shuffled anew in every epoch.

    The order (and the augmentation) of an epoch is a function of `shuffle`, a seed, and the epoch alone. The
    epoch is set by Lightning through `set_epoch`; without a Trainer it counts the iterations begun.
    """

    def __init__(
        self, split: Split, batch_size: int, shuffle: int | None = None, augment: Augment | None = None
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.augment = augment
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
            yield (x if self.augment is None else self.augment(x, generator)), y


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
        raise ValueError(f"{name} must hold inputs, and tensors whose first dimension is the sample.")
    lengths = [len(part) for part in _leaves((x, y))]
    if len(set(lengths)) != 1:
        raise ValueError(f"{name} holds inputs and targets of different lengths: {lengths}.")
    return x, y


def _tensor(part: Any) -> Tensor:
    tensor = torch.as_tensor(np.asarray(part) if not isinstance(part, Tensor) else part)
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _hold_out(name: str, split: Split, share: float, n_samples: int, seed: int) -> tuple[Split, Split]:
    """Split off `share * n_samples` rows."""
    from sklearn.model_selection import train_test_split

    rows = _length(split)
    size = round(share * n_samples)
    if not 0 < share < 1 or not 0 < size < rows:
        raise ValueError(
            f"{name}={share} of {n_samples} samples leaves a split empty; give a share between 0 and 1, or "
            f"{name}=(x, y)."
        )
    kept, held_out = train_test_split(
        np.arange(rows), test_size=size, random_state=seed, stratify=_strata(split[1], size)
    )
    return _take(split, torch.from_numpy(kept)), _take(split, torch.from_numpy(held_out))


def _strata(y: Any, size: int) -> Any:
    """Class labels to stratify by; None where targets are no labels or a class is too small to share out."""
    if not isinstance(y, Tensor) or y.ndim != 1 or y.dtype.is_floating_point or y.dtype.is_complex:
        return None
    _, counts = torch.unique(y, return_counts=True)
    possible = counts.min() >= 2 and len(counts) <= min(size, len(y) - size)
    return y.numpy() if possible else None


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
