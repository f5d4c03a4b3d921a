"""Pooling of sequences: padding does not count."""

import pytest
import torch

from optnas.space.blocks import Pool, mask_of, sequence_head
from optnas.testing import check_space


@pytest.mark.parametrize("kind", ["mean", "max", "first", "last"])
def test_padding_does_not_count(kind: str) -> None:
    x, lengths = torch.randn(3, 5, 4), torch.tensor([5, 2, 0])
    pooled = Pool(kind)(x, mask_of(lengths, 5))
    for i, n in enumerate(lengths.tolist()):
        expected = Pool(kind)(x[i : i + 1, :n])[0] if n else torch.zeros(4)
        torch.testing.assert_close(pooled[i], expected)


def test_kinds_are_what_they_are_called() -> None:
    x = torch.randn(2, 5, 4)
    for kind, expected in [("mean", x.mean(1)), ("max", x.amax(1)), ("first", x[:, 0]), ("last", x[:, -1])]:
        torch.testing.assert_close(Pool(kind)(x), expected)
    with pytest.raises(ValueError, match="pool='sum'"):
        Pool("sum")


def test_it_is_a_space() -> None:
    check_space(lambda trial: sequence_head(trial, n_classes=3, dropout=(0.0, 0.1)), (2, 5, 4))
