import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optnas.limits import Limit, Within, in_words


@pytest.mark.parametrize(
    ("bound", "low", "high", "words"),
    [
        (2e6, None, 2e6, "flops <= 2,000,000"),
        (5, None, 5, "flops <= 5"),
        ((0.9, None), 0.9, None, "flops >= 0.9"),
        ([None, 3.5], None, 3.5, "flops <= 3.5"),
        ((1, 2), 1, 2, "1 <= flops <= 2"),
    ],
)
def test_a_number_is_the_most_and_a_pair_the_least_and_the_most(bound, low, high, words):
    limit = Limit.of("flops", bound)
    assert (limit.low, limit.high) == (low, high)
    assert str(limit) == words


@pytest.mark.parametrize(
    "bound", [None, "2e6", True, (), (1,), (1, 2, 3), (None, None), (2, 1), math.nan, math.inf, ("1", None)]
)
def test_what_limits_nothing_is_refused_by_name(bound):
    with pytest.raises(ValueError, match=r"limits=\{'flops'"):
        Limit.of("flops", bound)


numbers = st.floats(-1e9, 1e9)


@given(numbers, numbers, numbers)
def test_the_violation_is_above_zero_exactly_outside(one, other, value):
    low, high = sorted((one, other))
    assert (Limit("x", low, high).violation(value) > 0) == (not low <= value <= high)
    assert (Limit("x", None, high).violation(value) > 0) == (value > high)
    assert (Limit("x", low, None).violation(value) > 0) == (value < low)


def test_a_violation_is_a_share_of_the_bound():
    assert Limit("x", high=200).violation(300) == 0.5
    assert Limit("x", low=-2.0).violation(-3.0) == 0.5
    assert Limit("x", high=0).violation(3) == 3


def test_within_says_how_near_anything_came():
    within = Within(lambda params: {"flops": params["width"] * 100}, [Limit("flops", high=250)])
    assert [within({"width": width}) for width in (5, 3, 4)] == [False] * 3
    assert str(within) == "flops <= 250 (the smallest seen is 300)"
    assert within({"width": 2})
    assert "some keep" in str(within)


def test_of_two_limits_the_one_broken_most_is_the_violation():
    limits = [Limit("a", high=1), Limit("b", low=1)]
    assert Within(lambda params: params, limits).violation({"a": 3, "b": 0.5}) == 2
    assert not Within(lambda params: params, limits)({"a": 0, "b": 0.5})


def test_what_cannot_be_computed_is_left_to_the_trial():
    assert Within(lambda params: {}, [Limit("flops", high=1)])({})


def test_numbers_in_words():
    assert [*map(in_words, (1_234_567, 2e6, 0.123456, 12.0, math.inf))] == [
        *("1,234,567", "2,000,000", "0.12346", "12", "inf")
    ]
