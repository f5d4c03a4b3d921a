"""What commands print, and how they give up."""

from __future__ import annotations

from typing import Any, NoReturn

import typer


def say(what: Any = "") -> None:
    """Print text as it is, or a rich table, which gets room where nobody's terminal limits it."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 120
    console.print(what, soft_wrap=isinstance(what, str))


def fail(message: str, code: int = 2) -> NoReturn:
    """End the command with one message on stderr and no traceback."""
    typer.echo(message, err=True)
    raise typer.Exit(code)
