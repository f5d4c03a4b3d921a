"""Build the wheel and the sdist, or try what is installed: `python tests/built.py FOLDER`, `... --try`.

Trying it needs nothing but what the wheel brings along: the command line answers, and the first example of
the README runs, in a folder of its own, with fewer trials.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build(folder: Path) -> list[Path]:
    """Build both, from a copy, so that neither takes or leaves anything in the working tree."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as copy:
        for name in filter(None, files.stdout.split("\0")):
            if (ROOT / name).is_file():
                (Path(copy) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(copy) / name).write_bytes((ROOT / name).read_bytes())
        for hook in ("build_sdist", "build_wheel"):
            code = f"import sys; from setuptools import build_meta; build_meta.{hook}(sys.argv[1])"
            command = [sys.executable, "-c", code, str(folder)]
            subprocess.run(command, cwd=copy, stdout=subprocess.DEVNULL, check=True)
    return sorted(folder.glob("optnas-*"))


def first_example() -> str:
    """The README's first program, for two trials of one epoch."""
    example = re.search(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert example is not None
    text = example[1]
    for old, new in (("max_epochs=5", "max_epochs=1"), ("n_trials=50", "n_trials=2")):
        assert old in text
        text = text.replace(old, new)
    return text


def try_installed(environment: dict[str, str] | None = None) -> str:
    """Run the example with what is installed, and not with the checkout. Returns what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "nas.py").write_text(first_example())

        def run(*arguments: str) -> str:
            command = [sys.executable, *arguments]
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        home = run("-c", "import optnas; print(optnas.__file__)").strip()
        assert not Path(home).is_relative_to(ROOT / "optnas"), f"this is the checkout: {home}"
        said = [home, run("nas.py")]
        main = "import sys; from optnas.cli import main; sys.argv[0] = 'optnas'; main()"
        said += [
            run("-c", main, *words)
            for words in (["--version"], ["ls", "sqlite:///nas.db"], ["new", "table", "t.py"])
        ]
        return "\n".join(said)


if __name__ == "__main__":
    if sys.argv[1:] == ["--try"]:
        os.environ.pop("PYTHONPATH", None)
        print(try_installed())
        print(f"with Python {sysconfig.get_python_version()}")
    else:
        for path in build(Path(sys.argv[1])):
            print(path)
