"""What is printed is what was said: no markup, no wrapping of text."""

from __future__ import annotations

import pytest
import typer
from rich.table import Table
from rich.text import Text

from optnas.cli.messages import fail, say, warn


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[bold]a :smile: path/of/one/line " + "x" * 200
    say(text)
    assert capsys.readouterr().out == text + "\n"


def test_failing_prints_to_stderr_and_exits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as exit_info:
        fail("what is wrong", code=3)
    assert exit_info.value.exit_code == 3
    assert capsys.readouterr() == ("", "what is wrong\n")


def test_what_others_wrote_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;OWNED\x07\u202e"
    table = Table()
    table.add_column(Text(evil))
    table.add_row(evil)
    say(evil)
    say(table)
    warn(evil)
    with pytest.raises(typer.Exit):
        fail(evil)
    captured = capsys.readouterr()
    assert captured.err == "\\x1b]0;OWNED\\x07\\u202e\n" * 2
    assert "\\x1b]0;OWNED" in captured.out
    assert (captured.out + captured.err).replace("\n", "").isprintable()
