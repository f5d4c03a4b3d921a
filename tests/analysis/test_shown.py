import io
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.table import Table

from optnas.analysis.shown import Shown


@dataclass(frozen=True)
class Result(Shown):
    words: str

    def _table(self) -> RenderableType:
        table = Table(title="[bold]Result[/bold]")
        table.add_column("words", style="red")
        table.add_row(self.words)
        return table


def test_text_is_plain_wherever_it_is_made(monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = str(Result("one"))
    assert "one" in text
    assert "\x1b" not in text
    console = Console(file=io.StringIO(), force_terminal=True)
    console.print(Result("one"))
    assert "\x1b" in console.file.getvalue()


def test_a_notebook_gets_the_table() -> None:
    shown = Result("one")._repr_mimebundle_([], [])
    assert "one" in shown["text/plain"]
    assert "<pre" in shown["text/html"]
