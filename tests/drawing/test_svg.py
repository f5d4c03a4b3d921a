"""The pieces of drawings are well-formed, whatever words are in them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optnas.drawing import svg

NS = "{http://www.w3.org/2000/svg}"
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]))


@given(WORDS, WORDS)
def test_any_words_can_be_drawn(words: str, title: str) -> None:
    image = svg.image([svg.text(1, 2, words, 10, svg.INK), svg.box(0, 0, 1, 1, "", title)], 50, title)
    root = ElementTree.fromstring(image)
    assert [node.text or "" for node in root.iter(f"{NS}text")] == [words]
    assert [node.text or "" for node in root.iter(f"{NS}title")] == [title, title]


@given(WORDS, st.integers(1, 30))
def test_what_is_cut_fits_and_says_so(words: str, room: int) -> None:
    short = svg.cut(words, room)
    assert len(short) <= room
    assert short == words or (short.endswith("…") and words.startswith(short[:-1]))


@given(st.integers(1, 10**14))
def test_counts_are_short_and_near(n: int) -> None:
    words = svg.count(n)
    assert len(words) <= 6
    unit = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(words[-1])
    number = float(words[:-1]) * unit if unit else float(words)
    assert number == pytest.approx(n, rel=0.005)


def test_nothing_is_not_counted() -> None:
    assert svg.count(0) == ""


@pytest.mark.parametrize("color", [svg.INK, svg.REMOVED.border, svg.ADDED.border, f'"{svg.SHORTCUT}"'])
def test_lines_are_seen_on_light_and_on_dark_pages(color: str) -> None:
    """WCAG 2.2, 1.4.11: graphics have a contrast of at least 3."""

    def luminance(code: str) -> float:
        parts = [int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    own = luminance(color[color.index("#") + 1 :][:6])
    for page in ("ffffff", "111111"):
        low, high = sorted([own, luminance(page)])
        assert (high + 0.05) / (low + 0.05) >= 3
