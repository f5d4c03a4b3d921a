import numpy as np
import pytest
import torch

from optnas.data import ColumnData, padded

LENGTHS = np.arange(30) % 4 + 1
COLUMNS = {
    "input_ids": [list(range(1, n + 1)) for n in LENGTHS],
    "attention_mask": [[1] * n for n in LENGTHS],
    "label": (LENGTHS > 2).astype(int),
}


class Columns:
    """As Hugging Face `datasets` has them."""

    def __init__(self, columns):
        self.columns = columns

    def __getitem__(self, name):
        return iter(self.columns[name])


def test_sequences_are_padded_and_columns_come_by_name():
    data = ColumnData(Columns(COLUMNS), ("input_ids", "attention_mask"), "label", batch_size=100)
    x, y = next(iter(data.val_dataloader()))
    assert x.keys() == {"input_ids", "attention_mask"}
    assert x["input_ids"].shape == (6, 4)
    lengths = x["attention_mask"].sum(1)
    assert torch.equal(y, (lengths > 2).long())
    assert torch.equal((x["input_ids"] > 0).sum(1), lengths)


def test_one_input_comes_alone_and_parts_are_taken():
    part = {name: column[:8] for name, column in COLUMNS.items()}
    data = ColumnData({"train": COLUMNS, "valid": part, "test": part}, "input_ids", "label")
    assert [len(split[1]) for split in (data.train, data.val, data.test)] == [30, 8, 8]
    assert data.train[0].shape == (30, 4)


def test_targets_may_be_sequences_padded_with_what_does_not_count():
    tags = {**COLUMNS, "tags": [[2] * n for n in LENGTHS]}
    data = ColumnData(tags, ("input_ids",), "tags")
    assert torch.equal(data.train[1] == 2, data.train[0] > 0)
    assert (data.train[1] == -100).any()
    other = ColumnData(tags, ("input_ids",), "tags", padding={"tags": 7})
    assert other.train[1].unique().tolist() == [2, 7]
    numbers = {**COLUMNS, "tags": [[2.5] * n for n in LENGTHS]}
    with pytest.raises(ValueError, match=r"targets 'tags' differ in length.*padding={'tags': \.\.\.}"):
        ColumnData(numbers, ("input_ids",), "tags")
    assert (ColumnData(numbers, ("input_ids",), "tags", padding={"tags": -1}).train[1] == -1).any()


def test_padding():
    assert padded([[1, 2], [3]]).tolist() == [[1, 2], [3, 0]]
    assert padded([[1.5], []], value=-1, length=3).tolist() == [[1.5, -1, -1], [-1, -1, -1]]
    assert padded([np.ones((2, 3)), np.ones((1, 3))]).shape == (2, 2, 3)
    assert padded([3, 4]).tolist() == [3, 4]
