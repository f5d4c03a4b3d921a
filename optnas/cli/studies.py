"""The commands that make studies of studies; each imports what it needs when it runs."""

from __future__ import annotations

import json
import shlex
from typing import Annotated, Any

import typer

from optnas.cli.commands import app
from optnas.cli.job import load_job
from optnas.cli.messages import fail, say
from optnas.cli.options import File, Storage, StudyName


@app.command()
def extend(
    file: File,
    name: Annotated[str, typer.Argument(metavar="NEW_NAME", help="Of the new study.")],
    default: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ANSWER",
            help="What the space did not ask before, with the answer that rebuilds the old networks, such "
            "as 'block.*.act=relu'; an answer is read as JSON where it is that. May be given several times.",
        ),
    ] = None,
    other_settings: Annotated[
        bool,
        typer.Option(
            "--other-settings",
            help="Carry trials over though data, task or estimator have changed: they train to the same.",
        ),
    ] = False,
    storage: Storage = None,
    study_name: StudyName = None,
) -> None:
    """Go on in a space that has grown, in a new study, with the trials of this one that still fit."""
    from optnas import record
    from optnas.search.extend import extend

    job = load_job(file, storage, study_name)
    study = job.load_study()
    try:
        extension = extend(
            study,
            job.objective,
            study_name=name,
            defaults=dict(map(_answer, default or [])),
            other_settings=other_settings,
            sampler=job.sampler,
            pruner=job.pruner,
        )
    except ValueError as error:
        fail(str(error))
    say(str(extension))
    more = 2 * max(1, record.n_counted(extension.study.get_trials(deepcopy=False)))
    options = ["--storage", storage] if storage else []
    command = ["optnas", "run", str(file), "--study-name", name, *options, "--trials", str(more)]
    say(f"\nNext, where what was carried counts toward --trials:\n  {shlex.join(command)}")


def _answer(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        fail(f"--default {text!r}: give a name and an answer, such as --default 'block.*.act=relu'.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
