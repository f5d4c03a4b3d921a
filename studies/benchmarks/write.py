"""Run a benchmark and keep what it prints as a page of results/, with the command and the machine.

    python studies/benchmarks/write.py digits studies/benchmarks/digits.py --seeds 10

writes `results/digits.md`, which [README.md](README.md) and the site show. Tables in Markdown stay as they
are; tables of fixed width become blocks of text. A run that fails writes nothing.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """The class of this machine, and what it computes with, in one line."""
    try:
        facts = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in facts if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    packages = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in ("optuna", "torch"))
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model}); Python {platform.python_version()}, {packages}; "
        f"{date.today():%B %Y}; OMP_NUM_THREADS={threads}"
    )


def page(command: list[str], made: str, printed: str) -> str:
    """What the command printed, below a comment that says where it comes from."""
    parts = []
    for blank, group in groupby(printed.splitlines(), key=lambda line: not line.strip()):
        lines = list(group)
        if blank:
            continue
        fixed = not lines[0].startswith("|") and any("  " in line.strip() for line in lines)
        parts.append("\n".join(["```text", *lines, "```"] if fixed else lines))
    return "\n\n".join([f"<!--\n{' '.join(command)}\n{made}\n-->", *parts]) + "\n"


def main() -> None:
    name, *command = sys.argv[1:]
    done = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    printed = ""
    for line in done.stdout or ():
        print(line, end="", flush=True)
        printed += line
    if done.wait():
        sys.exit(f"{command[0]} ended with {done.returncode}; nothing was written.")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(page(["python", *command], machine(), printed))


if __name__ == "__main__":
    main()
