"""Tables of numbers and categories, from a file or a data frame."""

from __future__ import annotations

import csv
import numbers as kinds
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from optnas.data.tensors import Split, TensorData

Column: TypeAlias = np.ndarray[Any, Any]

_MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "?", "-"}
"""What stands for a missing number in files, in small letters."""


class TableData(TensorData):
    """Rows of a table as inputs of a model, one column as the target.

        data = TableData("houses.csv", target="price")
        data = TableData(frame, target="species")  # pandas or polars; data.classes names the classes

    Inputs are `numbers`, `(n, n_numbers)` float32, scaled to zero mean and unit variance, and, where there
    are categories, a dict of `numbers` and `categories`, `(n, n_categories)` int64: a model is then called as
    `model(numbers=..., categories=...)`. Means, deviations and categories come from the training rows alone,
    and are computed again in each fold of a cross-validation. A category that the training rows lack becomes
    0, as does a missing one; a missing number becomes the mean.

    A target of text, of true and false or of whole numbers with few values (`classes`) is a class; any other
    is a number, scaled as the inputs are (`target_scale` says by what). Numbers that 32 bits would not tell
    apart, such as seconds since 1970, are stored as differences from their mean.

    Args:
        table: a CSV or Parquet file (Parquet by polars or pandas), a data frame of either, or a dict of
            columns. In a CSV file, a column is of numbers where every entry is one, or empty, or a usual mark
            for what is missing (`NA`, `null`, `?`).
        target: the column to predict.
        ignore: columns that are left out: an identifier for example.
        categories: columns of whole numbers that are categories.
        classes: up to how many values whole numbers in the target are classes.
        **options: of `TensorData`: `val`, `test`, `batch_size`, `seed`, `ordered`, `groups`; `groups` may be
            the name of a column, which is left out of the inputs.

    Attributes:
        number_names, category_names: columns, in the order of the inputs.
        cardinalities: how many codes each column of categories has, 0 included.
        classes: names of the classes of the target, in the order of their numbers; empty: it is a number.

    Raises:
        KeyError: the table lacks a column that is named.
        ValueError: the target is missing in a row or the same in all, a number is infinite, there is no
            input, or a file has no rows, two columns of one name, or a row that is longer than its header.

    Examples:
        >>> rows = {
        ...     "area": [50.0, 80.0, 65.0, 90.0] * 10,
        ...     "town": ["A", "B", "B", "A"] * 10,
        ...     "price": [1.5, 3.1, 2.2, 3.9] * 10,
        ... }
        >>> houses = optnas.data.TableData(rows, target="price")
        >>> houses.number_names, houses.category_names
        (['area'], ['town'])
    """

    def __init__(
        self,
        table: Any,
        target: str,
        *,
        ignore: tuple[str, ...] = (),
        categories: tuple[str, ...] = (),
        classes: int = 20,
        **options: Any,
    ) -> None:
        columns = _columns(table)
        for name in (target, *ignore, *categories):
            if name not in columns:
                raise KeyError(
                    f"The table has no column {name!r}; its columns are {', '.join(map(repr, columns))}."
                )
        groups = options.get("groups")
        if isinstance(groups, str):
            options["groups"] = columns[groups]
            ignore = (*ignore, groups)
        self.classes, y = _target(target, columns[target], classes)
        self._subtracted = 0.0
        if not self.classes:
            y, self._subtracted = _in_32_bits(target, y)
        numbers: dict[str, Column] = {}
        codes: dict[str, Column] = {}
        self.cardinalities: list[int] = []
        for name, column in columns.items():
            if name == target or name in ignore:
                continue
            if column.dtype.kind in "fiub" and name not in categories:
                numbers[name], _ = _in_32_bits(name, column)
            else:
                codes[name], n = _codes(column)
                self.cardinalities.append(n)
        if not numbers and not codes:
            raise ValueError(f"There are no inputs: the table has only {target!r} and ignored columns.")
        self.number_names, self.category_names = list(numbers), list(codes)
        n_rows = len(columns[target])
        x: Any = np.stack(list(numbers.values()), 1) if numbers else np.zeros((n_rows, 0), np.float32)
        if codes:
            x = {"numbers": x, "categories": np.stack(list(codes.values()), 1)}
        super().__init__((x, y), **options)

    @property
    def target_scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the training rows, by which a target of numbers is scaled."""
        if self.classes:
            return 0.0, 1.0
        mean, deviation = _moments(self.train[1])
        return float(mean) + self._subtracted, float(deviation)

    def served(self, split: Split) -> Split:
        """Scaled by the training rows, of which this object may be one fold."""
        x, y = split
        known, _ = self.train
        if isinstance(x, Mapping):
            codes = x["categories"]
            seen = [torch.isin(codes[:, i], known["categories"][:, i]) for i in range(codes.shape[1])]
            scaled: Any = {
                "numbers": _standardized(x["numbers"], known["numbers"]),
                "categories": torch.where(torch.stack(seen, 1), codes, 0),
            }
        else:
            scaled = _standardized(x, known)
        return scaled, y if self.classes else _standardized(y, self.train[1])


def _standardized(x: Tensor, known: Tensor) -> Tensor:
    mean, deviation = _moments(known)
    return ((x - mean) / deviation).nan_to_num(0.0).float()


def _moments(known: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the columns, of what is not missing; 1 of what never varies."""
    known = known.double()
    mean = known.nanmean(0).nan_to_num(0.0)
    deviation = ((known - mean) ** 2).nanmean(0).sqrt()
    varies = deviation > 1e-7 * mean.abs()  # by more than 32 bits round
    return mean, torch.where(varies, deviation, 1.0)


def _in_32_bits(name: str, column: Column) -> tuple[Column, float]:
    """The numbers, and what was subtracted from all of them, without which rounding would make some equal.

    Raises:
        ValueError: one of them is infinite.
    """
    exact, subtracted = column.astype(np.float64), 0.0
    known = exact[~np.isnan(exact)]
    with np.errstate(over="ignore", invalid="ignore"):
        lost = np.abs(known.astype(np.float32) - known).max(initial=0.0)
        if np.isfinite(known).all() and lost > 1e-3 * known.std():
            subtracted = float(known.mean())
        rounded = (exact - subtracted).astype(np.float32)
    if (rows := np.flatnonzero(np.isinf(rounded))).size:
        raise ValueError(
            f"The column {name!r} is {column[rows[0]]} in row {rows[0]}, which has no place among 32-bit "
            "numbers. Leave it empty there, or clip it."
        )
    return rounded, subtracted


def _columns(table: Any) -> dict[str, Column]:
    if isinstance(table, str | Path):
        path = Path(table)
        table = _csv(path) if path.suffix.lower() == ".csv" else _parquet(path)
    names = list(table) if isinstance(table, Mapping) else list(table.columns)
    return {str(name): _array(table[name]) for name in names}


def _array(column: Any) -> Column:
    array = np.asarray(column)
    if array.dtype.kind in "fiub":
        return array
    if array.dtype.kind in "mM":
        return np.where(np.isnat(array), np.nan, array.astype("int64").astype(np.float64))
    values = [None if _is_missing(value) else value for value in array]
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, kinds.Real | Decimal) for value in known):
        plain = np.array(known)
        if len(known) == len(values) and plain.dtype.kind in "iub":
            return plain
        return np.array([np.nan if value is None else float(value) for value in values])
    return np.array([None if value is None else str(value) for value in values], dtype=object)


def _is_missing(value: Any) -> bool:
    try:
        return bool(value is None or value != value or value == "")
    except TypeError:  # pandas.NA is neither equal nor unequal to anything
        return True


def _csv(path: Path) -> dict[str, list[Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True)
        lines = [(reader.line_num, row) for row in reader if row]
    if len(lines) < 2:
        raise ValueError(f"{path} has no rows below a header.")
    (_, header), *rows = lines
    [(name, times)] = Counter(header).most_common(1)
    if times > 1:
        raise ValueError(f"{path} has {times} columns named {name!r}; give each a name of its own.")
    for line, row in rows:
        if len(row) > len(header):
            raise ValueError(
                f"Line {line} of {path} has {len(row)} entries, and the header {len(header)}. Put entries "
                'that hold a comma into quotes, "like, this".'
            )
    columns: dict[str, list[Any]] = {}
    for i, name in enumerate(header):
        entries = [row[i] if i < len(row) else "" for _, row in rows]
        try:
            columns[name] = [
                np.nan if entry.strip().lower() in _MISSING else float(entry) for entry in entries
            ]
        except ValueError:
            columns[name] = entries
        else:
            if all(entry.lstrip("+-").isdigit() for entry in entries):
                columns[name] = [int(entry) for entry in entries]
    return columns


def _parquet(path: Path) -> Any:
    try:
        import polars

        return polars.read_parquet(path)
    except ImportError:
        pass
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"Reading {path} needs polars or pandas: pip install 'optnas[table]'") from error
    return pandas.read_parquet(path)


def _target(name: str, column: Column, most: int) -> tuple[list[Any], Column]:
    """The classes, and the target as numbers; no classes where it is a number itself."""
    missing = [i for i, value in enumerate(column) if _is_missing(value)]
    if missing:
        raise ValueError(f"The target {name!r} is missing in {len(missing)} rows, such as row {missing[0]}.")
    values, codes = np.unique(column.astype(str) if column.dtype == object else column, return_inverse=True)
    if len(values) == 1:
        raise ValueError(f"The target {name!r} is {values[0]!r} in every row, so there is nothing to learn.")
    if column.dtype.kind == "f" or (column.dtype.kind in "iu" and len(values) > most):
        return [], column
    return values.tolist(), codes.astype(np.int64)


def _codes(column: Column) -> tuple[Column, int]:
    """From 1 in the order of the values; 0: missing."""
    missing = np.array([_is_missing(value) for value in column])
    text = np.where(missing, "", column).astype(str)
    values, codes = np.unique(text[~missing], return_inverse=True)
    found = np.zeros(len(column), np.int64)
    found[~missing] = codes + 1
    return found, len(values) + 1
