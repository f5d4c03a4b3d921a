"""To who watches, a search shows a table that stays in its place; elsewhere a line per trial, or nothing."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from datetime import timedelta
from pathlib import Path

import nbformat
import optuna
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

from optnas.progress.progress import Progress

WIDTH, HEIGHT = 80, 24
SCRIPT = """
import os, signal, sys, time
import optnas, optuna
from torch import nn

def space(trial):
    return nn.Linear(4, trial.suggest_int("width", 1, 10_000))

def estimate(model, trial):
    for step in range(3):
        trial.report(step / 10, step)
    while "watched" in sys.argv and not os.path.exists("seen"):
        time.sleep(0.05)
    if trial.number == 1:
        raise optuna.TrialPruned("a reason that is much longer than the line of a terminal, " * 3)
    if trial.number == 3 and "stop" in sys.argv:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(3600)
    print("words of the user's own code")
    return {"score": trial.params["width"]}

if __name__ == "__main__":
    objective = optnas.Objective(space, estimate, values={"score": "maximize"}, example=(2, 4))
    study = optnas.create_study(objective, storage="sqlite:///nas.db", seed=0)
    optnas.optimize(study, objective, 5, n_workers=int(sys.argv[1]))
"""


class Screen:
    """As much of a terminal as a table needs; a line that wraps, or a screen that scrolls, is an error."""

    def __init__(self) -> None:
        self.rows: list[str] = [""]
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        for control, letter in re.findall(r"(\x1b\[[?\d;]*[A-Za-z])|([^\x1b])", text):
            if control:
                self._control(control)
            elif letter == "\n":
                self.row += 1
                self.rows += [""] * (self.row + 1 - len(self.rows))
                assert len(self.rows) < HEIGHT, "the screen scrolls"
            elif letter == "\r":
                self.column = 0
            else:
                line = self.rows[self.row].ljust(self.column)
                self.rows[self.row] = line[: self.column] + letter + line[self.column + 1 :]
                self.column += 1
                assert self.column <= WIDTH, f"a line wraps: {line}"

    def _control(self, control: str) -> None:
        if control.endswith("A"):
            self.row -= int(control[2:-1] or 1)
            assert self.row >= 0
        elif control == "\x1b[2K":
            self.rows[self.row] = ""
        else:
            assert control[-1] in "mhl", f"{control!r} is not known"


def in_terminal(folder: Path, n_workers: int, *arguments: str) -> tuple[str, int]:
    """What a search writes to a terminal of 80 by 24, and its exit status.

    Where it is `watched`, no trial ends before the table has shown a running one of each worker.
    """
    (folder / "search.py").write_text(SCRIPT)
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "search.py", str(n_workers), *arguments],
        cwd=folder,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**environ, "TERM": "xterm", "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    os.close(follower)
    written = b""
    try:
        while block := os.read(leader, 65536):
            written += block
            if len(running_workers(written.decode(errors="ignore"))) == n_workers:
                (folder / "seen").touch()
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(leader)
    return written.decode(), process.wait()


def running_workers(written: str) -> set[str]:
    return set(re.findall(r" running .*, process (\d+)\s", written))


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_table_stays_in_its_place(tmp_path: Path, n_workers: int) -> None:
    written, status = in_terminal(tmp_path, n_workers, "watched")
    assert status == 0
    screen = Screen()
    screen.feed(written)
    text = "\n".join(screen.rows)
    assert len(re.findall(r"^trial +state +step +value +time +worker or note", text, re.MULTILINE)) == 1
    assert re.search(r"5/5 in \d+:\d\d", text)
    assert "4 complete, 1 pruned, 0 failed, 0 twin; best " in text
    assert len(re.findall(r"^ +\d  (complete|pruned)", text, re.MULTILINE)) == 5
    assert len(running_workers(written)) == n_workers  # seen on the way
    assert written.index("\x1b[?25l") < written.index("\x1b[?25h")  # the cursor comes back
    if n_workers == 1:  # those of workers are kept for their errors
        assert text.count("words of the user's own code") == 4


def test_an_interrupted_search_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    written, status = in_terminal(tmp_path, 1, "stop")
    assert status != 0
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert "which is queued again" in written


def test_a_notebook_shows_one_table(tmp_path: Path) -> None:
    code = SCRIPT.partition("if __name__")[0].replace("sys.argv", "[]") + (
        'objective = optnas.Objective(space, estimate, values={"score": "maximize"}, example=(2, 4))\n'
        "study = optnas.create_study(objective, seed=0)\n"
        "optnas.optimize(study, objective, 2)\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    # By files, whose names must be short; a port that is free now may be taken before the kernel has it.
    with tempfile.TemporaryDirectory() as sockets:
        talk = Config({"ConnectionFileMixin": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        waits = {"timeout": 600, "startup_timeout": 600, "iopub_timeout": 600}
        resources = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(notebook, resources=resources, config=talk, **waits).execute()
    shown = [o for o in notebook.cells[0].outputs if o.output_type == "display_data"]
    assert len(shown) == 1
    assert re.search(r"2/2 in \d+:\d\d", shown[0].data["text/html"])
    assert "worker or note" in shown[0].data["text/html"]


def test_nobody_watches_so_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    study = optuna.create_study()
    for show in (None, False):
        with Progress(study, 1, show) as progress:
            progress.show(study.ask())
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "trial" not in captured.err


def test_a_log_gets_a_line_per_trial(capfd: pytest.CaptureFixture[str]) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    with Progress(study, 2, True) as progress:
        for values in ([1.0, 2.0], [3.0, 1.0]):
            trial = optuna.create_trial(values=values)
            assert trial.datetime_start is not None
            trial.datetime_complete = trial.datetime_start + timedelta(seconds=2.5)
            study.add_trial(trial)
            progress.show(study.trials[-1])
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("trial")]
    assert [re.sub(r" +", " ", line) for line in lines] == [
        "trial 0 COMPLETE 1; 2 2.5 s 1 on the front",
        "trial 1 COMPLETE 3; 1 2.5 s 1 on the front",
    ]


def test_a_study_that_goes_on_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    study = optuna.create_study(study_name="mine")
    study.tell(study.ask(), 1.0)
    with Progress(study, 2, True):
        pass
    assert "Study 'mine' goes on: 1 trials are done and kept." in capfd.readouterr().err
