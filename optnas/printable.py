"""Text that others chose, as a terminal may show it: nothing in it moves the cursor or sets a title.

Names, answers and errors of a shared database come from whoever can write to it, and a terminal obeys the
escape sequences that it is sent.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RichCast
from rich.segment import Segment


def printable(text: str) -> str:
    """The text with every character that does not print as its escape, such as `\\x1b`.

    Lines, tabs and all kinds of spaces stay.
    """
    if text.isprintable():
        return text
    return "".join(letter if _prints(letter) else _escape(letter) for letter in text)


def _prints(letter: str) -> bool:
    return letter.isprintable() or letter in "\n\t" or unicodedata.category(letter) == "Zs"


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


@dataclass(frozen=True)
class Printable:
    """Whatever rich can show, with all text in it made `printable`; rich's own colors stay."""

    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        content: ConsoleRenderable | RichCast | str = self.content
        for segment in console.render(content, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)
