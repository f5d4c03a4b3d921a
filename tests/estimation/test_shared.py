"""A mark on a network, and on what it is a part of."""

from __future__ import annotations

from torch import nn

from optnas.estimation.shared import is_shared, mark_shared, take_shared


def test_a_part_marks_the_whole_until_it_is_taken() -> None:
    part, other = mark_shared(nn.Linear(2, 2)), nn.Linear(2, 2)
    whole = nn.Sequential(nn.ReLU(), nn.Sequential(part))
    assert [is_shared(m) for m in (part, other, whole)] == [True, False, True]
    take_shared(whole)
    assert not is_shared(whole)
    assert not is_shared(part)
