import io
import json
import subprocess
import sys
import textwrap

from optnas.launch.process import Farewell, short_lines


def test_a_farewell_is_what_was_said_and_anything_else_is_a_death():
    said = Farewell("failed", "no luck: ü\nsecond line")
    assert Farewell.load(said.dump(), "exit status 1", "its lines") == Farewell(
        "failed", "no luck: ü\nsecond line", "its lines"
    )
    for told in (b"", b"\n", b"words of a library", b"[1]", b"null", b'{"way": "done"}'):
        assert Farewell.load(told, "exit status 0", "its lines") == Farewell(
            "died", "exit status 0", "its lines"
        )
    assert Farewell.load(b"words of a library\n" + said.dump(), "", "").way == "failed"


def test_long_lines_are_cut_and_redrawn_ones_are_shown_once():
    written = b"short\n" + b"\xff" * 2_000_000 + b"end\n\n" + b"10 %\r50 %\r100 %\n" + b"x" * 2000 + b"\nlast"
    cut, *rest = [line for line in short_lines(io.BytesIO(written)) if line != "short"]
    assert len(cut) < 2050
    assert cut.endswith("more bytes)")
    assert rest == ["100 %", "x" * 2000, "last"]


SEARCH = """
    import logging, optnas, os, sys, time
    from torch import nn
    import {helper}

    class Slow:
        values = {{"score": "maximize"}}
        def __call__(self, model, trial):
            print(json.dumps({{"path": sys.path, "pid": os.getpid()}}), flush=True)
            print("w" * 20_000)
            return {{"score": float({helper}.VALUE)}}

    import json
    def space(trial): return nn.Linear(4, trial.suggest_int("width", 1, 99))
    objective = optnas.Objective(space, Slow(), example=(2, 4))
    study = optnas.create_study(objective, study_name="s", storage="sqlite:///" + sys.argv[1], seed=0)
    optnas.optimize(study, objective, n_trials=2, n_workers=2)
    print(json.dumps({{"path": sys.path, "pid": os.getpid()}}))
"""


def test_a_worker_imports_from_where_its_parent_does_and_nowhere_else(tmp_path):
    """And what it prints comes through, in short lines, on the standard error."""
    home, cwd = tmp_path / "home: with a colon", tmp_path / "cwd"
    home.mkdir()
    cwd.mkdir()
    (home / "helper_of_the_study.py").write_text("VALUE = 0.5")
    (home / "search.py").write_text(textwrap.dedent(SEARCH.format(helper="helper_of_the_study")))
    (cwd / "cloudpickle.py").write_text("raise SystemExit('code of the working directory ran')")
    command = [sys.executable, str(home / "search.py"), str(tmp_path / "s.db")]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [parent] = [json.loads(line) for line in done.stdout.splitlines()]
    told = [line.partition(": ")[2] for line in done.stderr.splitlines() if line.startswith("worker ")]
    workers = [json.loads(line) for line in told if line.startswith("{")]
    assert {tuple(worker["path"]) for worker in workers} == {tuple(parent["path"])}
    assert parent["pid"] not in {worker["pid"] for worker in workers}
    assert len(workers) == 2
    long = [line for line in told if line.startswith("www")]
    assert len(long) == 2
    assert all(2000 <= len(line) < 2050 for line in long)


def test_what_holds_a_worker_stays_small():
    code = "import sys, optnas.launch.ray_holder; print(*{n.partition('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "optuna", "numpy", "sqlalchemy"}.isdisjoint(done.stdout.split())
