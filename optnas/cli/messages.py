"""How commands print and how they fail. Nothing that they print can control the terminal."""

from __future__ import annotations

from typing import Any, NoReturn

import typer

from optnas.printable import Printable, printable


def say(what: Any = "") -> None:
    """Print text as it is, or a rich table, which is 120 wide if the output is no terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 120
    if isinstance(what, str):
        console.print(printable(what), soft_wrap=True)
    else:
        console.print(Printable(what))


def warn(message: str) -> None:
    """Print a message on stderr."""
    typer.echo(printable(message), err=True)


def fail(message: str, code: int = 2) -> NoReturn:
    """End the command with one message on stderr and no traceback."""
    warn(message)
    raise typer.Exit(code)
