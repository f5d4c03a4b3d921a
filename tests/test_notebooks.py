"""Every notebook runs from top to bottom, with the numbers of its cell `parameters` made small."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SMALL = {"n_trials": 25, "max_epochs": 1}  # importance needs a few finished trials


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_notebook_runs(file: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for name, value in SMALL.items():
        parameters.source, n_changed = re.subn(
            rf"^{name} = \d+", f"{name} = {value}", parameters.source, flags=re.M
        )
        assert n_changed == 1, f"the cell `parameters` does not set {name}"
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises CellExecutionError, which shows the cell


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_notebook_has_no_logic_of_its_own_and_no_stored_output(file: Path) -> None:
    """Functions belong into the package, numbers come from running it; a space is the user's own."""
    notebook = nbformat.read(file, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert not re.search(r"^class ", "\n".join(cell.source for cell in code), re.MULTILINE)
