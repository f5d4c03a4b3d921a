"""What others wrote reaches a terminal as text only."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from optnas.printable import Printable, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;OWNED\x07", "\\x1b]0;OWNED\\x07"),
        ("\x9b31m\u202egpj", "\\x9b31m\\u202egpj"),
        ("a\r\x08b\x7f", "a\\r\\x08b\\x7f"),
        ("日本 é\u00a0→\ttab\nline", "日本 é\u00a0→\ttab\nline"),
    ],
)
def test_what_does_not_print_is_told_as_its_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_character_is_left_that_commands_a_terminal() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    left = {letter for letter in printable(every) if not letter.isprintable()} - set("\n\t")
    assert all(letter.isspace() for letter in left)
    assert not left & set(map(chr, [*range(32), *range(127, 160)]))


def test_a_table_keeps_the_colors_that_are_ours() -> None:
    table = Table("name", title=Text("t\x1b[8m"))
    table.add_row(Text("\x1b]0;OWNED\x07", style="red"))
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system="standard")
    console.print(Printable(table))
    written = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "\x1b[31m\\x1b]0;OWNED" in written
    assert "\x1b]" not in written
    assert "\x1b[8m" not in written
