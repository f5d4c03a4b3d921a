"""Reads `--workers`: how many workers, where, and what each needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import typer

from optnas.cli.job import Job
from optnas.cli.messages import fail

if TYPE_CHECKING:
    from optnas.launch.launcher import Launcher


def make_workers(text: str, trial_timeout: float | None, job: Job) -> Launcher | None:
    """A launcher for the workers that `text` asks for; None if the search runs in this process."""
    where, n_workers, needs = read(text)
    if where:
        job.carry_code()
    try:
        if where == "ray":
            from optnas.launch.ray_workers import RayWorkers

            return RayWorkers(n_workers, {name: _amount(name, told) for name, told in needs.items()})
        if where == "slurm":
            from optnas.launch.slurm_workers import SlurmWorkers

            return SlurmWorkers(n_workers, **{name.replace("-", "_"): told for name, told in needs.items()})
    except (ImportError, FileNotFoundError) as error:
        fail(str(error))
    if n_workers == 1 and trial_timeout is None:
        return None
    from optnas.launch.launcher import LocalProcesses

    return LocalProcesses(n_workers)


def read(text: str) -> tuple[str, int, dict[str, str]]:
    """`ray:8,GPU=0.5` is `("ray", 8, {"GPU": "0.5"})`, and `8` is `("", 8, {})`."""
    where, colon, rest = text.partition(":") if ":" in text else ("", "", text)
    number, *told = rest.split(",")
    needs = {name: value for name, equals, value in (part.partition("=") for part in told) if name and value}
    known = where in ("ray", "slurm") if colon else not told
    if not known or not number.isdecimal() or int(number) < 1 or len(needs) < len(told):
        _refuse(
            f"{text!r} is neither a number from 1 up nor of the form ray:8,GPU=0.5 or slurm:8,partition=gpu."
        )
    return where, int(number), needs


def _amount(name: str, told: str) -> float:
    try:
        return float(told)
    except ValueError:
        _refuse(f"{name}={told}: give the amount of the resource as a number, such as GPU=0.5.")


def _refuse(words: str) -> NoReturn:
    raise typer.BadParameter(words, param_hint="'--workers'")
