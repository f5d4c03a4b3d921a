"""The options that commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from optnas.cli.job import DEFAULT_STORAGE

DEFAULT_TRIALS = 50


class Format(StrEnum):
    """Of a report."""

    HTML = "html"
    MD = "md"


class Template(StrEnum):
    """Of a study file: what its networks are for."""

    IMAGES = "images"
    TEXT = "text"
    SERIES = "series"
    TABLE = "table"
    MODULE = "module"


File = Annotated[Path, typer.Argument(metavar="STUDY.py", help="Plain Python that defines `objective`.")]
StudyName = Annotated[str | None, typer.Option(help="By default the file's `study_name`, or its file name.")]
_VARIABLE = "OPTNAS_STORAGE"  # from the environment, a password is in nobody's list of processes
Storage = Annotated[
    str | None,
    typer.Option(envvar=_VARIABLE, help=f"By default the file's `storage`, or {DEFAULT_STORAGE}."),
]
StorageUrl = Annotated[
    str, typer.Argument(envvar=_VARIABLE, metavar="[STORAGE]", help="Such as sqlite:///nas.db.")
]
Trials = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=f"Number of trials of the whole study; by default the file's `n_trials`, or {DEFAULT_TRIALS}.",
    ),
]
Timeout = Annotated[float | None, typer.Option(min=0, help="Seconds after which no new trial begins.")]
Trainings = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Budget in whole trainings: the epochs of all trials together may be as "
        "many as those of this many trainings.",
    ),
]
TrialTimeout = Annotated[
    float | None,
    typer.Option(min=0, help="Seconds that one trial may take; then it fails and says where it was."),
]
Pick = Annotated[
    list[str] | None,
    typer.Option(
        help="For several objectives: knee (the default), the number of a trial, or limits within which "
        "the best in the first objective is taken, such as 'flops<=2e6'; may be given several times.",
    ),
]
Workers = Annotated[
    str,
    typer.Option(
        metavar="N|ray:N|slurm:N",
        help="Processes on this machine; on the nodes of a Ray cluster (that of RAY_ADDRESS, or as Ray finds "
        "it): ray:8,GPU=0.5,CPU=2 says what each needs; or jobs of SLURM, with options of sbatch: "
        "slurm:8,partition=gpu,time=04:00:00.",
    ),
]
Finalists = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="How many of the best trials are trained anew before one is called the best, because their "
        "order may be luck; 0 for none. By default `run` trains as many as a tenth of the cost of the "
        "search pays for, and `best` none; `best` trains each from the seeds of --retrain, or from 3.",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="For programs: an object per line on the standard output for each event (start, trial, best, "
        "end), and no summary.",
    ),
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Epochs of a training anew; by default as in the search.")
]
