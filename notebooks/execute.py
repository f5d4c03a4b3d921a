"""Run the notebooks and keep what they show.

    python notebooks/execute.py                 # all of them, in place
    python notebooks/execute.py 03 05           # those whose names begin so

Each runs in an empty folder. Beside every plotly figure a picture of it is stored, made with Chromium:
GitHub and other viewers run no scripts.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
import plotly.io
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

PLOT = "application/vnd.plotly.v1+json"
_ENVIRONMENT = {
    "PLOTLY_RENDERER": "plotly_mimetype",  # the default adds five megabytes of script
    # Optuna's tqdm and rich would like ipywidgets, whose displays cannot be stored.
    "PYTHONWARNINGS": 'ignore:IProgress not found,ignore:install "ipywidgets"',
}
_WIDTH = 760


def execute(file: Path, **parameters: int) -> NotebookNode:
    """The notebook with outputs, run in an empty folder, the numbers of its cell `parameters` replaced.

    Raises:
        ValueError: the cell does not set one of them.
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(file, as_version=4)
    source = [cell.source for cell in notebook.cells]
    [place] = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    notebook.cells[place].source = _replace(source[place], parameters)
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as sockets:
            resources = {"metadata": {"path": folder}}
            # By files: of ports that are free now, another program may take one before the kernel does.
            talk = Config({"ConnectionFileMixin": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
            waits = {"timeout": 3600, "startup_timeout": 600, "iopub_timeout": 600}
            NotebookClient(notebook, resources=resources, record_timing=False, config=talk, **waits).execute()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    notebook.cells[place].source = source[place]
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def _replace(source: str, parameters: Mapping[str, int]) -> str:
    for name, value in parameters.items():
        source, n_changed = re.subn(rf"^{name} = \d+", f"{name} = {value}", source, flags=re.MULTILINE)
        if n_changed != 1:
            raise ValueError(f"The cell `parameters` does not set {name}.")
    return source


def add_pictures(notebook: NotebookNode) -> None:
    """A PNG beside every plotly figure."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if PLOT in output.get("data", {}):
                output.data["image/png"] = base64.b64encode(_picture(output.data[PLOT])).decode()


def _picture(plot: NotebookNode) -> bytes:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("Pictures of plots need Chromium (Debian: apt install chromium).")
    figure = plotly.io.from_json(json.dumps({name: plot[name] for name in ("data", "layout")}))
    height = int(figure.layout.height)
    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder) / "plot.html", Path(folder) / "plot.png"
        style = "<style>body { margin: 0; background: transparent; }</style>"
        config = {"displayModeBar": False}
        page.write_text(style + figure.to_html(full_html=False, include_plotlyjs=True, config=config))
        command = [chromium, "--headless", "--disable-gpu", "--no-sandbox", "--hide-scrollbars"]
        command += ["--default-background-color=00000000", "--virtual-time-budget=20000"]
        command += ["--run-all-compositor-stages-before-draw"]
        command += [f"--window-size={_WIDTH},{height}", f"--user-data-dir={folder}/profile"]
        subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)
        return picture.read_bytes()


def main(names: list[str]) -> None:
    for file in sorted(Path(__file__).parent.glob("*.ipynb")):
        if not names or file.name.startswith(tuple(names)):
            text = nbformat.writes(execute(file))
            notebook = nbformat.reads(
                re.sub(rf"\b{socket.gethostname()}:(?=\d)", "host:", text), as_version=4
            )
            add_pictures(notebook)
            text = nbformat.writes(notebook)
            file.write_text(text + "\n", encoding="utf-8")
            print(f"{file.name}: {len(text) / 1e6:.2f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
