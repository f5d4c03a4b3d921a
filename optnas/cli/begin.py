"""Before a search: write a study file to begin with, and check one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from optnas.cli.job import Job
from optnas.cli.messages import fail, say, warn
from optnas.cli.options import DEFAULT_TRIALS, Template

if TYPE_CHECKING:
    import optuna

_MARKS = {"fine": "ok", "careful": "careful", "wrong": "WRONG"}


def write_template(kind: Template, path: Path) -> None:
    """Write the study file of this kind, with its own name in it, unless there is a file already."""
    if path.suffix != ".py":
        fail(f"{str(path)!r} must end in .py.")
    text = Path(__file__).with_name("templates").joinpath(f"{kind}.py").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text.replace("NAME.py", path.name))
    except FileExistsError:
        fail(f"{str(path)!r} exists; choose another name.")
    except OSError as error:
        fail(f"{str(path)!r} cannot be written: {error.strerror or error}.")


def print_check(job: Job, trials: int | None, workers: int) -> None:
    """Print everything that would go wrong in a search; if something would, end the command with status 1."""
    from optnas.testing.search import Finding, check_search, line_of

    found = [
        Finding(
            "file",
            f"{name!r} is not read; {meant!r} is.",
            f"{job.file.name}:{line_of(job.file, name)}",
            "careful",
        )
        for name, meant in job.misread.items()
    ]
    found += check_search(
        job.objective,
        study_name=job.study_name,
        storage=job.storage,
        sampler=job.sampler,
        pruner=job.pruner,
        n_trials=trials or job.n_trials or DEFAULT_TRIALS,
        n_workers=workers,
        file=job.file,
    )
    for finding in found:
        say(f"{_MARKS[finding.kind]:8}{finding}")
    if n_wrong := sum(finding.kind == "wrong" for finding in found):
        fail(f"\n{n_wrong} of these must be fixed before the search; nothing was stored.", code=1)
    budget = [] if trials is None else ["--trials", str(trials)]
    say(f"\nNext: {job.command('run', *budget)}")


def check_quickly(job: Job, study: optuna.Study) -> None:
    """Before the first trial, end the command if every trial would fail; print smaller findings."""
    if any(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)):
        return
    from optnas.testing.search import check_search, line_of

    for name, meant in job.misread.items():
        warn(f"{job.file.name}:{line_of(job.file, name)}: {name!r} is not read; {meant!r} is.")
    found = check_search(
        job.objective,
        sampler=job.sampler,
        pruner=job.pruner,
        study_name=job.study_name,
        file=job.file,
        quick=True,
    )
    for finding in found:
        if finding.kind == "careful":
            warn(str(finding))
    if wrong := [str(finding) for finding in found if finding.kind == "wrong"]:
        more = f"No trial was run. All that can be known now: {job.command('check')}"
        fail("\n".join([*wrong, more]), code=1)
