"""Answers and names in words that a reader can tell apart, of a length that there is room for."""

from __future__ import annotations

from typing import Any

from optnas.printable import printable


def answer_in_words(value: Any) -> str:
    """Numbers with four digits; text as it is, in quotes where nothing of it could be seen."""
    if isinstance(value, float):
        return f"{value:.4g}"
    words = str(value)
    return words if words.strip() and words.isprintable() else repr(value)


def shorten(name: str, length: int = 26) -> str:
    """The name with its middle left out where it is longer than `length` characters."""
    keep = length - 1
    return name if len(name) <= length else f"{name[: keep // 2]}…{name[-(keep - keep // 2) :]}"


def as_markdown(words: str) -> str:
    """Words on one line that Markdown shows as they are, and a terminal too."""
    line = printable(" ".join(words.split()))
    for mark in ("\\", "`", "*", "_", "<", "[", "#", "&", "~"):
        line = line.replace(mark, f"\\{mark}")
    return line
