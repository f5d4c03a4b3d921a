"""Words that a reader can tell apart."""

import math

import pytest

from optnas.analysis.words import answer_in_words, shorten


def test_answers_that_cannot_be_seen_are_quoted() -> None:
    given = [0.00123456, True, None, "conv", "größe", "", " ", "a\nb", "\u202eltr", (1, 2)]
    words = ["0.001235", "True", "None", "conv", "größe", "''", "' '", "'a\\nb'", "'\\u202eltr'", "(1, 2)"]
    assert list(map(answer_in_words, given)) == words


@pytest.mark.parametrize("length", [4, 7, 26])
def test_shorten_keeps_both_ends(length: int) -> None:
    name = "block.0.op.separable_conv_5x5.width"
    short = shorten(name, length)
    assert len(short) == length
    start, end = short.split("…")
    assert name.startswith(start)
    assert name.endswith(end)
    assert math.isclose(len(start), len(end), abs_tol=1)
    assert shorten("lr", length) == "lr"
