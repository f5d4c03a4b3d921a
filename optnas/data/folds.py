"""Rows held out of a data set: at random, by class, by group, by time; once, or in folds."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import pytorch_lightning as pl
from torch import Tensor

Rows = np.ndarray[Any, np.dtype[np.int64]]


@runtime_checkable
class Foldable(Protocol):
    """A data module that can be divided for cross-validation."""

    def fold(self, i: int, k: int, repeat: int = 0) -> pl.LightningDataModule: ...


def hold_out(
    y: Any, n: int, size: int, seed: int, groups: Any = None, ordered: bool = False
) -> tuple[Rows, Rows]:
    """`n` rows in two parts, of which the second has `size` rows, or about as many in whole groups.

    The last ones where rows are `ordered`; else drawn at random, stratified where `y` holds class labels.
    """
    from sklearn.model_selection import GroupShuffleSplit, train_test_split

    rows = np.arange(n)
    if ordered:
        return rows[: n - size], rows[n - size :]
    if groups is not None:
        [(kept, held_out)] = GroupShuffleSplit(1, test_size=size / n, random_state=seed).split(
            rows, groups=groups
        )
        return kept, held_out
    kept, held_out = train_test_split(rows, test_size=size, random_state=seed, stratify=_strata(y, size))
    return kept, held_out


def fold(
    y: Any, n: int, i: int, k: int, seed: int, groups: Any = None, ordered: bool = False
) -> tuple[Rows, Rows]:
    """The rows to train and to validate on in fold `i` of `k`.

    Every row is validated on once. Only in order of time, where each fold validates on what comes after all
    that it trains on, are the first rows never.

    Raises:
        ValueError: there is no such fold, or there are fewer rows or groups than folds.
    """
    from sklearn import model_selection as ms

    if not 0 <= i < k:
        raise ValueError(f"fold({i}, {k}): there are folds 0 to {k - 1}.")
    labels = _labels(y)
    counts = None if labels is None else np.unique(labels, return_counts=True)[1]
    stratified = counts is not None and counts.min() >= k
    if ordered:
        splitter: Any = ms.TimeSeriesSplit(k)
    elif groups is not None and stratified:
        splitter = ms.StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    elif groups is not None:
        splitter = ms.GroupKFold(k, shuffle=True, random_state=seed)
    elif stratified:
        splitter = ms.StratifiedKFold(k, shuffle=True, random_state=seed)
    else:
        splitter = ms.KFold(k, shuffle=True, random_state=seed)
    kept, held_out = list(splitter.split(np.zeros(n), labels, groups))[i]
    return kept, held_out


def _labels(y: Any) -> Any:
    """Class labels, one a row; None where targets are something else."""
    if not isinstance(y, Tensor) or y.ndim != 1 or y.dtype.is_floating_point or y.dtype.is_complex:
        return None
    return y.numpy()


def _strata(y: Any, size: int) -> Any:
    """Class labels to stratify by; None where targets are no labels or a class is too small to share out."""
    labels = _labels(y)
    if labels is None:
        return None
    _, counts = np.unique(labels, return_counts=True)
    possible = counts.min() >= 2 and len(counts) <= min(size, len(y) - size)
    return labels if possible else None
