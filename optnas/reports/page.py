"""A document of a few kinds of parts, written as one HTML file that needs nothing else, or as Markdown."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from optnas.analysis.words import as_markdown
from optnas.printable import printable


@dataclass(frozen=True)
class Sentences:
    """A paragraph, or, where each stands for itself, a list."""

    sentences: Sequence[str]
    listed: bool = False


@dataclass(frozen=True)
class Heading:
    """A title within a section."""

    title: str


@dataclass(frozen=True)
class Table:
    """Cells in words; of `numbers`, all but the first column. `below`: the decisions of each row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    below: Sequence[str] = ()
    numbers: bool = True


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    text: str


@dataclass(frozen=True)
class Drawing:
    """SVG text of our own making, trusted as it is, below its `caption`. Left out of Markdown."""

    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Plot:
    """A plotly figure. Left out of Markdown."""

    figure: Any


Part: TypeAlias = Sentences | Heading | Table | Code | Drawing | Plot


@dataclass(frozen=True)
class Section:
    """Parts under a title."""

    title: str
    parts: Sequence[Part]

    @property
    def anchor(self) -> str:
        """Where links point to."""
        return self.title.lower().replace(" ", "-")


# Nothing may be fetched from anywhere: what the page needs is in it.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1c1c1c; --quiet: #595959; --line: #d0d0d0;
  --raised: #f4f4f4; --link: #005a9c; }
@media (prefers-color-scheme: dark) { :root { --page: #111111; --ink: #e8e8e8; --quiet: #a8a8a8;
  --line: #3c3c3c; --raised: #1d1d1d; --link: #7fc4f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 56rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.5rem; padding-top: 0.6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 0.3rem; }
p, ul { margin: 0.4rem 0; }
ul { padding-left: 1.2rem; }
a { color: var(--link); }
nav a { margin-right: 0.8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th { text-align: left; color: var(--quiet); font-weight: 600; font-size: 0.85rem; }
th, td { padding: 0.25rem 0.7rem 0.25rem 0; vertical-align: top; }
td { border-top: 1px solid var(--line); }
.numbers th + th, .numbers td + td { text-align: right; white-space: nowrap; }
.below td { border: 0; padding-top: 0; color: var(--quiet); font-size: 0.85rem; overflow-wrap: anywhere; }
pre { background: var(--raised); padding: 0.7rem; border-radius: 6px; white-space: pre-wrap; margin: 0.5rem 0;
  font-size: 0.85rem; }
figure { display: inline-block; vertical-align: top; margin: 0.3rem 2rem 0.8rem 0; max-width: 100%; }
figcaption { color: var(--quiet); font-size: 0.85rem; }
figure + .scroll { display: inline-block; vertical-align: top; max-width: 100%; }
svg[role=img] { max-width: 100%; height: auto; }
.plot { width: 100%; }
td:first-child { overflow-wrap: anywhere; }
table:not(.numbers) td { overflow-wrap: anywhere; min-width: 6rem; }
@media (max-width: 30rem) {
  .numbers th + th, .numbers td + td { white-space: normal; }
  .numbers { font-size: 0.85rem; }
  td:first-child { min-width: 5.5rem; }
}
"""


def escape(text: str) -> str:
    """Text as HTML shows it, without characters that do nothing but deceive (as those that turn it round)."""
    return html.escape(printable(text))


def to_html(title: str, sections: Sequence[Section]) -> str:
    """One page without links to anything outside; plotly's JavaScript is in it once, if there is a plot."""
    import plotly.offline

    plots = any(isinstance(part, Plot) for section in sections for part in section.parts)
    script = f"<script>{plotly.offline.get_plotlyjs()}</script>" if plots else ""
    links = "".join(f'<a href="#{escape(s.anchor)}">{escape(s.title)}</a> ' for s in sections)
    body = "".join(
        f'<section id="{escape(section.anchor)}"><h2>{escape(section.title)}</h2>'
        + "".join(_html(part) for part in section.parts)
        + "</section>\n"
        for section in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{script}</head>\n"
        f"<body><h1>{escape(title)}</h1><nav>{links}</nav>\n{body}</body></html>\n"
    )


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """The same in text, without drawings and plots; sections that have nothing else are left out."""
    parts = [f"# {as_markdown(title)}"]
    for section in sections:
        words = [text for part in section.parts if (text := _markdown(part))]
        if words:
            parts += [f"## {section.title}", *words]
    return "\n\n".join(parts) + "\n"


def _html(part: Part) -> str:
    match part:
        case Sentences(sentences, listed=True):
            return "<ul>" + "".join(f"<li>{escape(s)}</li>" for s in sentences) + "</ul>"
        case Sentences(sentences):
            return f"<p>{escape(' '.join(sentences))}</p>"
        case Heading(title):
            return f"<h3>{escape(title)}</h3>"
        case Table():
            return _html_table(part)
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Drawing(svg, caption):
            return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"
        case Plot(figure):
            settings = {"responsive": True, "displaylogo": False, "displayModeBar": False}
            drawn: str = figure.to_html(full_html=False, include_plotlyjs=False, config=settings)
            return f'<div class="plot">{drawn}</div>'


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = []
    for i, row in enumerate(table.rows):
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
        if table.below:
            rows.append(
                f'<tr class="below"><td colspan="{len(table.head)}"><details><summary>decisions</summary>'
                f"{escape(table.below[i])}</details></td></tr>"
            )
    look = ' class="numbers"' if table.numbers else ""
    return f'<div class="scroll"><table{look}><tr>{head}</tr>{"".join(rows)}</table></div>'


def _markdown(part: Part) -> str:
    match part:
        case Sentences(sentences, listed=True):
            return "\n".join(f"- {as_markdown(s)}" for s in sentences)
        case Sentences(sentences):
            return as_markdown(" ".join(sentences))
        case Heading(title):
            return f"### {as_markdown(title)}"
        case Table():
            head = (*part.head, "decisions") if part.below else part.head
            rows = [(*row, part.below[i]) if part.below else row for i, row in enumerate(part.rows)]
            align = ["---" if i == 0 or not part.numbers else "---:" for i in range(len(part.head))]
            lines = [head, [*align, *["---"] * bool(part.below)], *rows]
            return "\n".join(
                "| " + " | ".join(as_markdown(c).replace("|", "\\|") for c in r) + " |" for r in lines
            )
        case Code(text):
            text = printable(text)
            fence = "```"
            while fence in text:
                fence += "`"
            return f"{fence}\n{text}\n{fence}"
        case Drawing() | Plot():
            return ""
