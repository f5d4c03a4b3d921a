"""The examples for clusters start workers as they should; what would start them elsewhere is a shell here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml

from optnas.cli.commands import app

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "studies" / "cluster"
URL = "postgresql://me@db.example.org/nas?sslmode=require&application_name=a b"
Run = Callable[..., tuple[list[str], str]]


def check(arguments: list[str]) -> None:
    """That `optnas` understands its arguments, and that they name a study that is there."""
    name, *rest = arguments
    assert name == "worker"
    commands = typer.main.get_command(app).commands
    options = commands[name].make_context(name, rest).params
    assert (ROOT / options["file"]).is_file()
    assert options["trials"] is not None
    assert options["study_name"] is not None


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a script with an `optnas` that only writes down its arguments and storage."""
    home, bin_ = tmp_path / "home", tmp_path / "bin"
    told = tmp_path / "told"
    optnas = f'#!/bin/bash\nprintf "%s\\n" "$OPTNAS_STORAGE" "$@" > {told}.part; mv {told}.part {told}\n'
    programs = {
        bin_ / "optnas": optnas,
        home / "optnas/.venv/bin/optnas": optnas,
        bin_ / "srun": '#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done\nexec "$@"\n',
        bin_ / "ssh": f'#!/bin/bash\ncd {home}; shift; exec bash -c "$*"\n',
    }
    for file, text in programs.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)

    def call(script: str, *arguments: str, **environment: str) -> tuple[list[str], str]:
        env = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", **environment}
        command = [str(CLUSTER / script), *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if pid := [*home.glob("optnas/worker.pid")]:
            subprocess.run(
                ["tail", "--pid", pid[0].read_text().strip(), "-f", "/dev/null"], timeout=600, check=True
            )
        return told.read_text().splitlines() if told.exists() else [], done.stderr

    return call


@pytest.mark.parametrize(
    ("script", "arguments", "environment"),
    [
        ("slurm.sh", (), {"SLURM_CPUS_PER_TASK": "4", "SLURM_SUBMIT_DIR": str(ROOT)}),
        ("ssh.sh", ("one.example.org",), {}),
    ],
)
def test_script_starts_a_worker_with_the_storage_of_the_environment(
    script: str, arguments: tuple[str, ...], environment: dict[str, str], run: Run
) -> None:
    (storage, *words), errors = run(script, *arguments, OPTNAS_STORAGE=URL, **environment)
    assert errors == ""
    assert storage == URL
    check(words)


@pytest.mark.parametrize("script", ["slurm.sh", "ssh.sh"])
def test_script_without_a_storage_says_what_to_set(script: str, run: Run) -> None:
    told, errors = run(script, "one.example.org", OPTNAS_STORAGE="")
    assert told == []
    assert "export OPTNAS_STORAGE=postgresql://" in errors


@pytest.mark.parametrize("is_over", [True, False])
def test_a_job_of_slurm_whose_time_is_over_saves_its_trial_and_comes_back(
    is_over: bool, tmp_path: Path
) -> None:
    options = re.findall(r"^#SBATCH (--\S+)$", (CLUSTER / "slurm.sh").read_text(), re.MULTILINE)
    assert {"--signal=B:USR1@90", "--requeue"} <= set(options)  # B: it goes to the script
    told, tools = tmp_path / "told", tmp_path / "bin"
    tools.mkdir()
    ends = "" if is_over else "exit 0"  # the search is done
    programs = {
        "srun": 'while [[ $1 == -* ]]; do shift; done\nexec "$@"',
        "optnas": f"trap 'echo saved >> {told}; exit 143' TERM\necho begun >> {told}\n{ends}\n"
        "while true; do sleep 0.02; done",
        "scontrol": f'echo "$@" >> {told}',
    }
    for name, text in programs.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    job = {"SLURM_CPUS_PER_TASK": "1", "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7"}
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "OPTNAS_STORAGE": URL, **job}
    script = subprocess.Popen([str(CLUSTER / "slurm.sh")], env=env)
    while not told.exists() or not told.read_text():
        time.sleep(0.02)
    if is_over:
        time.sleep(0.2)  # the script sets its trap when the worker is under way
        script.send_signal(signal.SIGUSR1)
    assert script.wait(timeout=60) == (143 if is_over else 0)
    assert told.read_text().splitlines() == (["begun", "saved", "requeue 7"] if is_over else ["begun"])


def test_kubernetes_job() -> None:
    claim, job = yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    program, *words = container["command"]
    assert program == "optnas"
    check(words)
    assert pod["terminationGracePeriodSeconds"] >= 30
    [storage] = [entry for entry in container["env"] if entry["name"] == "OPTNAS_STORAGE"]
    assert "secretKeyRef" in storage["valueFrom"]
    [volume], [mount] = pod["volumes"], container["volumeMounts"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], f"{container['workingDir']}/runs")
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        assert rule.get("onExitCodes", {}).get("containerName", container["name"]) == container["name"]


@pytest.mark.parametrize("file", sorted(CLUSTER.iterdir()), ids=lambda file: file.name)
def test_no_example_holds_a_password(file: Path) -> None:
    assert not re.search(r"://[^\s/@]*:[^\s/@]*@|PGPASSWORD=", file.read_text())
