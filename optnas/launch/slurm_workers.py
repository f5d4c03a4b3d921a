"""Workers as jobs of SLURM: it places them, and everything else is as with local ones."""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

from optnas.launch.launcher import Launcher
from optnas.launch.process import Farewell, Job
from optnas.storage.base import Storage

SECRET = "OPTNAS_SECRET"
"""The environment variable in which a worker finds the storage's arguments."""

EVERY = 15.0
"""Seconds between two questions to the scheduler."""

_SCRIPT = """#!/bin/bash
#SBATCH --job-name=optnas
#SBATCH --output={folder}/%A_%a.out
#SBATCH --open-mode=append
# A preempted job comes back by itself. A minute before its time is over, the worker is told and queues its
# trial again.
#SBATCH --requeue
#SBATCH --signal=TERM@60
{options}
exec srun --ntasks=1 {python} -P -c {boot} {path} {folder}
"""
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from optnas.search.batch_worker import main; main(sys.argv[2])"
)


class SlurmWorkers(Launcher):
    """Workers as the tasks of job arrays; one that ends before the search does is submitted again.

    A worker that gets SIGTERM or SIGUSR1 (preemption, or a minute before the job's time is over) saves its
    training, queues its trial again and leaves. The nodes share a file system with this machine: the job is
    handed over in `folder`, where also the workers' output is. The storage must be a database server; its
    password reaches the workers through the environment, which SLURM passes on. If the process that started
    them ends, the workers go on by themselves until the budget is spent.

    Args:
        n_workers: number of workers.
        folder: a folder that all nodes see under the same path; None: `runs/slurm` in the working directory.
        options: options of sbatch, such as `partition="gpu"`, `time="04:00:00"`, `gpus_per_task=1`,
            `mem="8G"`.

    Raises:
        FileNotFoundError: there is no sbatch here.
        ValueError: fewer than one worker.

    Examples:
        >>> try:
        ...     workers = optnas.SlurmWorkers(8, partition="gpu", gpus_per_task=1)
        ... except FileNotFoundError:
        ...     print("run this where sbatch is")
        run this where sbatch is
    """

    def __init__(
        self, n_workers: int, folder: str | os.PathLike[str] | None = None, **options: str | int
    ) -> None:
        super().__init__(n_workers)
        if shutil.which("sbatch") is None:
            raise FileNotFoundError(
                "SlurmWorkers: there is no sbatch on this machine. Start the search where jobs are submitted."
            )
        self._base = Path(folder or "runs/slurm").absolute()
        self._options = options
        self._folder: Path | None = None  # of one search
        self._due: list[int] = []
        self._tasks: dict[int, str] = {}
        self._halted = False
        self._asked, self._queued = 0.0, frozenset[str]()

    def prepare(self, storage: Storage) -> None:
        """As of any launcher.

        Raises:
            ValueError: the storage is a file, which other nodes cannot share.
        """
        super().prepare(storage)
        if storage.place.file is not None:
            raise ValueError(
                f"storage={storage.place.file} is a file, which SQLite shares between the processes of one "
                "machine only. Use Postgres: create_study(..., storage='postgresql://user@host/database')."
            )
        self._due, self._tasks, self._halted, self._folder = [], {}, False, None

    def start(self, place: int, job: Job) -> None:
        if self._folder is None:
            self._folder = self._base / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
            self._folder.mkdir(parents=True)
            job.body.seek(0)
            with (self._folder / "job").open("wb") as body:
                shutil.copyfileobj(job.body, body)
            left = None if job.deadline is None else job.deadline - time.monotonic()
            # SLURM itself needs the clocks of its nodes to agree.
            end = None if left is None else time.time() + left
            (self._folder / "deadline").write_text(json.dumps(end))
            self._secret = base64.b64encode(job.secret).decode()
        self._tasks.pop(place, None)
        (self._folder / f"farewell-{place}").unlink(missing_ok=True)
        self._due.append(place)

    def poll(self, place: int) -> Farewell | None:
        if self._due:
            self._submit()  # all that are to start, as one array
        assert self._folder is not None
        farewell = self._folder / f"farewell-{place}"
        if farewell.exists():
            return Farewell.load(farewell.read_bytes(), "", "")
        if self._tasks[place] in self._in_queue():
            return None
        if farewell.exists():  # it came between the two questions
            return Farewell.load(farewell.read_bytes(), "", "")
        if self._halted:
            return Farewell("done")
        return Farewell("died", "its job ended", self._last_lines(self._tasks[place]))

    def _submit(self) -> None:
        assert self._folder is not None
        options = [f"#SBATCH --{name.replace('_', '-')}={value}" for name, value in self._options.items()]
        script = _SCRIPT.format(
            folder=shlex.quote(str(self._folder)),
            options="\n".join(options),
            python=shlex.quote(sys.executable),
            boot=shlex.quote(_BOOT),
            path=shlex.quote(json.dumps([os.path.abspath(entry) for entry in sys.path])),
        )
        places = ",".join(map(str, self._due))
        words = ["sbatch", "--parsable", f"--array={places}"]
        environment = {**os.environ, SECRET: self._secret}
        answer = _call(words, script, environment).partition(";")[0].strip()
        self._tasks |= {place: f"{answer}_{place}" for place in self._due}
        self._due, self._asked = [], 0.0

    def _in_queue(self) -> frozenset[str]:
        """The tasks that wait or run, as SLURM said not long ago."""
        if time.monotonic() - self._asked >= EVERY or not self._asked:
            jobs = {task.partition("_")[0] for task in self._tasks.values()}
            words = ["squeue", "--noheader", "--array", "--format=%i", "--jobs", ",".join(sorted(jobs))]
            try:
                self._queued = frozenset(_call(words).split())
            except RuntimeError as error:
                if "Invalid job id" not in str(error):  # all have ended, some time ago
                    return frozenset(self._tasks.values())  # a scheduler that is away tells nothing
                self._queued = frozenset()
            self._asked = time.monotonic()
        return self._queued

    def _last_lines(self, task: str) -> str:
        assert self._folder is not None
        try:
            return "\n".join((self._folder / f"{task}.out").read_text(errors="replace").splitlines()[-12:])
        except OSError:
            return ""

    def halt(self) -> None:
        self._halted = True
        if self._folder is not None:
            (self._folder / "halt").touch()
        self._cancel("--state=PENDING")

    def stop(self, grace: float) -> None:
        self._halted, self._due = True, []
        if self._folder is None:
            return
        if any(self.poll(place) is None for place in self._tasks):
            self._cancel("--state=PENDING")
            self._cancel("--signal=TERM")
            end = time.monotonic() + grace
            while any(self.poll(place) is None for place in self._tasks) and time.monotonic() < end:
                time.sleep(1.0)
                self._asked = 0.0
            self._cancel()
        for name in ("job", "halt", "deadline"):
            (self._folder / name).unlink(missing_ok=True)
        self._folder = None

    def _cancel(self, *how: str) -> None:
        jobs = sorted({task.partition("_")[0] for task in self._tasks.values()})
        if jobs:
            subprocess.run(["scancel", "--quiet", *how, *jobs], capture_output=True, check=False)
            self._asked = 0.0


def _call(words: list[str], given: str = "", environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, input=given, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
