"""The figures of the benchmarks: each stands in one file, which says where it comes from."""

from __future__ import annotations

import re
import runpy

from fixtures.pages import ROOT

BENCHMARKS = ROOT / "studies" / "benchmarks"
RESULTS = {path.stem: path.read_text() for path in (BENCHMARKS / "results").glob("*.md")}
PAGE = (BENCHMARKS / "README.md").read_text()


def rows(name: str) -> dict[str, dict[str, str]]:
    """A table by the names of its rows and columns."""
    lines = [line.strip("|\n") for line in RESULTS[name].splitlines() if line.startswith("|")]
    head, _, *body = ([cell.strip() for cell in line.split("|")] for line in lines)
    return {cells[0]: dict(zip(head, cells, strict=True)) for cells in body}


def test_a_page_shows_every_table_once_and_holds_none_itself() -> None:
    assert sorted(re.findall(r"^\[Table: .*\]\(results/(.+)\.md\)$", PAGE, re.MULTILINE)) == sorted(RESULTS)
    assert not re.search(r"^\|[-|]+$", PAGE, re.MULTILINE)


def test_a_table_says_which_command_made_it_and_where() -> None:
    for name, text in RESULTS.items():
        made = re.match(r"<!--\n(.+)\n(.+)\n-->\n\n", text, re.DOTALL)
        assert made, name
        scripts = re.findall(r"studies/\S+\.py", made[1])
        assert scripts, name
        assert [script for script in scripts if not (ROOT / script).is_file()] == [], name
        assert "cores" in made[2], name


def test_the_overview_of_samplers_repeats_the_tables_of_each_space() -> None:
    overview = rows("strategies-100")
    spaces = {
        "CIFAR-10": "nasbench201-cifar10",
        "CIFAR-100": "nasbench201-cifar100",
        "ImageNet16-120": "nasbench201-imagenet16-120",
        "FC-Net": "fcnet",
        "synthetic": "synthetic",
        "NATS size": "natsbench-size",
        "Macro": "nasbench-macro",
    }
    compared = [
        (cells[column], rows(table)[sampler]["- random @100"])
        for sampler, cells in overview.items()
        for column, table in spaces.items()
        if sampler in rows(table)
    ]
    assert len(compared) > 30
    assert [pair for pair in compared if pair[0] != pair[1]] == []


def figures(text: str) -> set[str]:
    """Decimal numbers of four digits or more, beside zeros at the start."""
    return {found for found in re.findall(r"\d+\.\d+", text) if len(found.replace(".", "").lstrip("0")) > 3}


def test_a_figure_stands_on_no_other_page() -> None:
    made = set().union(*(figures(text.partition("-->")[2]) for text in RESULTS.values())) | figures(PAGE)
    pages = [ROOT / "README.md", ROOT / "studies" / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert len(made) > 100
    assert {page.name: found for page in pages if (found := figures(page.read_text()) & made)} == {}


def test_what_a_script_prints_becomes_a_page() -> None:
    write = runpy.run_path(str(BENCHMARKS / "write.py"))
    text = write["page"](["python", "x.py"], "2 cores", "5 seeds\n\n| a |\n|---|\n| 1 |\n\nname      1.0\n")
    assert text == (
        "<!--\npython x.py\n2 cores\n-->\n\n5 seeds\n\n| a |\n|---|\n| 1 |\n\n```text\nname      1.0\n```\n"
    )
    assert "cores" in write["machine"]()
