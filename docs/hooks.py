"""Pages that show files of the repository, whose links are relative to the file."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

# page of the site -> the file that it includes
INCLUDED = {
    "changelog.md": "CHANGELOG.md",
    "how/architecture.md": "ARCHITECTURE.md",
    "how/contributing.md": "CONTRIBUTING.md",
    "results.md": "studies/benchmarks/README.md",
    "journal.md": "studies/JOURNAL.md",
}
_SITE = {file: page for page, file in INCLUDED.items()}
# A line that stands for a file of results: what is below its comment.
_TABLE = re.compile(r"^\[Table: [^\]]+\]\((results/[^)]+\.md)\)$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    """The picture of the dashboard, which the README shows too."""
    picture = "studies/images/dashboard.png"
    files.append(
        File.generated(config, "images/dashboard.png", abs_src_path=picture)
    )
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The file itself; its links lead to the pages that show what they led to.

    A link to a file that no page shows becomes its text and the file's name.
    """
    source = page.file.src_uri
    if source not in INCLUDED:
        return markdown
    file = INCLUDED[source]

    def lead(found: re.Match[str]) -> str:
        text, target, anchor = found.group(1), found.group(2), found.group(3) or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), target))
        if path in _SITE:
            there = posixpath.relpath(_SITE[path], posixpath.dirname(source) or ".")
            return f"[{text}]({there}{anchor})"
        return (
            text
            if path.endswith(text) or text.startswith("`")
            else f"{text} (`{path}`)"
        )

    def table(found: re.Match[str]) -> str:
        shown = _read(posixpath.join(posixpath.dirname(file), found.group(1)))
        return shown.partition("-->\n")[2].strip()

    return _LINK.sub(lead, _TABLE.sub(table, _read(file)))


def _read(file: str) -> str:
    with open(file, encoding="utf-8") as lines:
        return lines.read()
