"""Data sets whose columns are asked for by name, as those of Hugging Face `datasets` are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optnas.data.tensors import PARTS, Split, TensorData


class ColumnData(TensorData):
    """Columns of a data set by name as the inputs of a model, one column as the target.

        dataset = load_dataset("rotten_tomatoes").map(lambda row: tokenizer(row["text"]), batched=True)
        data = ColumnData(dataset, inputs=("input_ids", "attention_mask"), target="label")

    A `DatasetDict` is taken by its parts train, validation (or val, valid, dev) and test. Sequences of
    different lengths are padded at their ends to the longest of all, with what `padding` says; by default
    inputs with zeros, and targets of whole numbers with -100, which counts in no task. With one input a model
    gets it alone, with several by their names.

    Args:
        dataset: a mapping from names to columns, something whose `dataset[name]` is a column, or a mapping
            of such parts.
        inputs: columns of numbers, or of sequences or images of numbers.
        target: the column to predict.
        padding: values for columns that are padded with others, such as `{"input_ids": 1}`.
        **options: of `TensorData`: `val`, `test`, `batch_size`, `seed`, `augment`, `mix`, `groups`,
            `ordered`.

    Raises:
        ValueError: targets of real numbers differ in length, and `padding` does not say what fills them up.

    Examples:
        >>> columns = {"ids": [[1, 2], [3], [4, 5, 6]] * 10, "label": [0, 1, 2] * 10}
        >>> texts = optnas.data.ColumnData(columns, inputs=["ids"], target="label")
        >>> texts.setup("fit")
        >>> x, y = next(iter(texts.train_dataloader()))
        >>> x.shape[1]
        3
    """

    def __init__(
        self,
        dataset: Any,
        inputs: Sequence[str],
        target: str,
        *,
        padding: Mapping[str, int] | None = None,
        **options: Any,
    ) -> None:
        names = [inputs] if isinstance(inputs, str) else list(inputs)
        parts = {}
        if isinstance(dataset, Mapping) and "train" in dataset:
            parts = {PARTS[name]: part for name, part in dataset.items() if name in PARTS}
        parts = parts or {"train": dataset}
        every = (*names, target)
        rows = {part: {name: _rows(columns[name]) for name in every} for part, columns in parts.items()}
        longest = {
            name: max((len(row) for part in rows.values() for row in part[name] if np.ndim(row)), default=0)
            for name in every
        }

        given = dict(padding or {})
        filled = given if target in given else {**given, **_of_target(target, rows)}

        def split(part: Mapping[str, Any]) -> Split:
            made = {name: padded(part[name], filled.get(name, 0), longest[name]) for name in every}
            x: Any = {name: made[name] for name in names}
            return x if len(names) > 1 else made[names[0]], made[target]

        made = {name: split(part) for name, part in rows.items()}
        super().__init__(made.pop("train"), **{**options, **made})


def _of_target(target: str, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """What fills up targets that differ in length; nothing where none do."""
    rows = [row for part in parts.values() for row in part[target] if np.ndim(row)]
    if len({len(row) for row in rows}) < 2:
        return {}
    if any(row.dtype.kind != "i" for row in rows if len(row)):
        raise ValueError(
            f"The targets {target!r} differ in length, and filled up with zeros these would count. Give them "
            f"one length, or say padding={{{target!r}: ...}} and let the loss leave that out."
        )
    return {target: -100}


def padded(rows: Sequence[Any], value: int = 0, length: int = 0) -> Tensor:
    """Sequences of different lengths as one tensor, in which `value` fills up the shorter ones.

    Args:
        rows: sequences of numbers, or of rows of numbers; or numbers, which stay as they are.
        value: the number that is added.
        length: the least length of the result.

    Examples:
        >>> optnas.data.padded([[1, 2, 3], [4]])
        tensor([[1, 2, 3],
                [4, 0, 0]])
    """
    arrays = [np.asarray(row) for row in rows]
    if not arrays or not arrays[0].ndim:
        return torch.as_tensor(np.asarray(arrays))
    longest = max(length, *(len(array) for array in arrays))
    dtype = np.result_type(*{array.dtype for array in arrays if len(array)}) if any(map(len, arrays)) else int
    shape = next((array.shape[1:] for array in arrays if len(array)), ())
    whole = np.full((len(arrays), longest, *shape), value, dtype)
    for i, array in enumerate(arrays):
        if len(array):
            whole[i, : len(array)] = array
    return torch.from_numpy(whole)


def _rows(column: Any) -> list[Any]:
    return [np.asarray(row) for row in column]
