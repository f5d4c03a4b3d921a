"""Every notebook runs from top to bottom with a small budget, and is stored with what it showed."""

from __future__ import annotations

import base64
import json
import re
import runpy
import socket
from pathlib import Path
from typing import Any

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SCRIPT: dict[str, Any] = runpy.run_path(str(FOLDER / "execute.py"))
SMALL = {
    "01_quick_start": {"n_trials": 12, "max_epochs": 1},
    "02_write_a_space": {"n_samples": 3},
    "03_strategies_compared": {"n_trials": 16, "n_seeds": 2},
    "04_resume_and_parallel": {"n_trials": 7, "max_epochs": 3},
    "05_read_and_explain": {"n_trials": 12, "max_epochs": 1},
    "06_pick_from_a_front": {"n_trials": 12, "max_epochs": 1},
    "07_cheap_estimates": {"n_trained": 5, "max_epochs": 1, "supernet_epochs": 2},
}
PNG = b"\x89PNG\r\n\x1a\n"


def shown(notebook: Any) -> str:
    """All text that the code cells put out."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(
        str(output.get("text") or output.get("data", {}).get("text/plain")) for output in outputs
    )


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_runs(file: Path) -> None:
    text = shown(SCRIPT["execute"](file, **SMALL[file.stem]))  # raises where a cell fails
    if file.stem.startswith("04"):
        assert "2 WAITING epochs reported: [0, 1]" in text
        rows = [line for line in text.splitlines() if "attempts:" in line]
        assert [row.split()[-1] for row in rows] == ["1", "1", "2", "1", "1", "2", "1"]
    if file.stem.startswith("06"):  # the exported file computes what the picked network does
        [tested] = re.findall(r"'test_acc': ([0-9.]+)", text)
        [exported] = re.findall(r"([0-9.]+) of \d+ test images", text)
        assert float(exported) == pytest.approx(float(tested), abs=1e-4)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_is_stored_with_what_it_showed(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert len(text) < 1_500_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs
    for output in outputs:
        assert output.output_type != "error"
        if SCRIPT["PLOT"] in output.get("data", {}):  # a picture beside it, for viewers without scripts
            assert base64.b64decode(output.data["image/png"]).startswith(PNG)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_says_nothing_of_the_machine_that_ran_it(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    text = json.dumps([cell.get("outputs") for cell in notebook.cells])
    for words in ("/tmp/", "/root/", "/home/", "site-packages", f"{socket.gethostname()}:"):
        assert words not in text
    assert not re.search(r"[a-z]{2}Warning", text)  # of Python; rank_correlation warns of an estimate, too


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_has_no_classes_of_its_own(file: Path) -> None:
    """They belong into the package; a space is the user's own function."""
    notebook = nbformat.read(file, as_version=4)
    assert not any(line.startswith("class ") for cell in notebook.cells for line in cell.source.splitlines())
