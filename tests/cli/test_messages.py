"""What is printed is what was said: no markup, no wrapping of text."""

from __future__ import annotations

import pytest
import typer

from optnas.cli.messages import fail, say


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[bold]a :smile: path/of/one/line " + "x" * 200
    say(text)
    assert capsys.readouterr().out == text + "\n"


def test_failing_prints_to_stderr_and_exits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as exit_info:
        fail("what is wrong", code=3)
    assert exit_info.value.exit_code == 3
    assert capsys.readouterr() == ("", "what is wrong\n")
