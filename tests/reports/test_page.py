"""What is written into a page is read back by parsers that know nothing of ours."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest

from optnas.reports.page import (
    Code,
    Drawing,
    Heading,
    Part,
    Plot,
    Section,
    Sentences,
    Table,
    to_html,
    to_markdown,
)

NASTY = '<b>&amp;"</b> a|b *c* `d` _e_ [f](g) # \\'
VOID = {"meta", "link"}


class Reader(HTMLParser):
    """Texts by tag, and whether every tag that opens also closes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, str, str | None]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data


def read(*parts: Part, title: str = "A page") -> Reader:
    reader = Reader(to_html(title, [Section("One two", parts)]))
    assert reader.open == []
    return reader


def test_everything_said_is_read_as_it_was_meant() -> None:
    table = Table(("name", NASTY), [(NASTY, "1"), ("x", "2")], below=["first", NASTY])
    page = read(
        Heading(NASTY),
        Sentences(["A.", NASTY]),
        Sentences(["one", NASTY], listed=True),
        table,
        Code(f"a\n{NASTY}"),
        title=NASTY,
    )
    assert page.texts["title"] == page.texts["h1"] == [NASTY]
    assert page.texts["h3"] == [NASTY]
    assert page.texts["p"] == [f"A. {NASTY}"]
    assert page.texts["li"] == ["one", NASTY]
    assert page.texts["th"] == ["name", NASTY]
    assert [cell for cell in page.texts["td"] if cell] == [NASTY, "1", "x", "2"]
    assert page.texts["details"] == ["first", NASTY]
    assert page.texts["pre"] == [f"a\n{NASTY}"]
    assert "b" not in page.texts


def test_links_lead_to_sections_and_nowhere_else() -> None:
    page = read(Sentences(["A."]))
    targets = [value for tag, name, value in page.attributes if name == "href" and tag == "a"]
    assert targets == ["#one-two"]
    assert ("section", "id", "one-two") in page.attributes
    assert "script" not in page.texts
    elsewhere = [value for _, name, value in page.attributes if name in ("href", "src") and value]
    assert all(value.startswith(("#", "data:")) for value in elsewhere)


def test_drawings_and_plots_are_whole_and_the_script_is_there_once() -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" role="img"><text>x</text></svg>'
    html = to_html("p", [Section("s", [Drawing(svg, "A <cell>"), Plot(go.Figure()), Plot(go.Figure())])])
    figure = html[html.index("<figure>") : html.index("</figure>") + len("</figure>")]
    assert ElementTree.fromstring(figure)[0].text == "A <cell>"
    assert svg in figure
    assert html.count("Plotly.newPlot(") == 2
    assert html.count("plotly.js v") == 1


@pytest.mark.parametrize("numbers", [True, False])
def test_markdown_tables_have_a_cell_for_each_column(numbers: bool) -> None:
    table = Table(("name", "n"), [(NASTY, "1")], below=[NASTY], numbers=numbers)
    [title, section, *rows] = [
        line for line in to_markdown("t", [Section("s", [table])]).splitlines() if line
    ]
    assert (title, section) == ("# t", "## s")
    assert [cells(row) for row in rows] == [4 - 1] * 3
    assert rows[1] == ("| --- | ---: | --- |" if numbers else "| --- | --- | --- |")


def cells(row: str) -> int:
    """Bars that are not escaped part them."""
    return len(row.replace("\\\\", "").replace("\\|", "").strip("|").split("|"))


def test_markdown_escapes_marks_and_fences_code() -> None:
    text = to_markdown("*t*", [Section("s", [Sentences([NASTY, "~~x~~"]), Code("a\n```\nb")])])
    assert "# \\*t\\*" in text
    assert "\\<b>\\&amp;" in text
    assert "\\~\\~x\\~\\~" in text
    assert "\\*c\\* \\`d\\` \\_e\\_ \\[f](g)" in text
    assert "````\na\n```\nb\n````" in text


@pytest.mark.parametrize("parts", [[], [Drawing("<svg/>")], [Plot(go.Figure())]])
def test_markdown_leaves_out_what_cannot_be_words(parts: Sequence[Part]) -> None:
    assert to_markdown("t", [Section("s", parts)]) == "# t\n"
