"""The commands that make studies of studies; each imports what it needs when it runs."""

from __future__ import annotations

import json
import shlex
from typing import Annotated, Any

import typer

from optnas.cli.commands import app
from optnas.cli.job import DEFAULT_STORAGE, load_job, load_only_study, open_existing, open_storage
from optnas.cli.messages import fail, say
from optnas.cli.options import File, Storage, StorageUrl, StudyName
from optnas.passwords import without_password


@app.command()
def extend(
    file: File,
    name: Annotated[str, typer.Argument(metavar="NEW_NAME", help="Name of the new study.")],
    default: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ANSWER",
            help="A question that the space did not ask before, and the answer that rebuilds the old "
            "networks, such as 'block.*.act=relu'. The answer is read as JSON if it is JSON. May be "
            "given several times.",
        ),
    ] = None,
    other_settings: Annotated[
        bool,
        typer.Option(
            "--other-settings",
            help="Also carry over trials whose data, task or estimator has changed, because you know "
            "that they would train to the same values.",
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
    say(f"\nNext (the trials that were carried over count toward --trials):\n  {shlex.join(command)}")


@app.command()
def copy(
    to: Annotated[str, typer.Argument(metavar="TO_STORAGE", help="Such as sqlite:///copy.db.")],
    storage: Storage = None,
    study_name: Annotated[
        str | None, typer.Option(help="Name of the original; by default the only study of the storage.")
    ] = None,
    new_name: Annotated[
        str | None, typer.Option("--as", help="Name of the copy; by default that of the original.")
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(help="Folder or URL of the copy's files; by default runs/NAME beside its database."),
    ] = None,
) -> None:
    """Copy a study with its weights to another storage; then both go on independently."""
    from optnas.errors import CheckpointError, ParamsMismatchError
    from optnas.estimation.folders import own_folder
    from optnas.estimation.remote import shown
    from optnas.search.copying import copy_study

    study = load_only_study(storage or DEFAULT_STORAGE, study_name, read_only=True)
    try:
        new = copy_study(study, open_storage(to), study_name=new_name, folder=folder)
    except (ParamsMismatchError, CheckpointError) as error:
        fail(str(error))
    say(f"Study {new.study_name!r} is in {without_password(to)}, with {len(new.trials)} trials.")
    if (files := own_folder(new)) is not None:
        say(f"  its files in {shown(files)}")


@app.command()
def clean(
    storage: StorageUrl = DEFAULT_STORAGE,
    look_in: Annotated[
        list[str] | None,
        typer.Option(help="A further place, a folder or a URL, to look for folders of deleted studies."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete what no trial needs: states of trainings that have ended, folders of deleted studies.

    It is listed first. Weights stay.
    """
    from rich.filesize import decimal

    from optnas.estimation.remote import shown
    from optnas.search.leftovers import delete, leftovers

    opened = open_existing(storage)
    known = leftovers(opened, look_in or [])
    for path, why in known.spared.items():
        say(f"stays    {shown(path)}: {why}")
    for leftover in known.found:
        say(f"{decimal(leftover.n_bytes):>8} {shown(leftover.path)}: {leftover.why}")
    if not known.found:
        say("There is nothing to delete.")
    elif yes or typer.confirm(f"Delete {decimal(known.n_bytes)}?"):
        deleted = delete(opened, known.found)
        say(f"Deleted {len(deleted)} of {len(known.found)}.")


def _answer(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        fail(f"--default {text!r}: give a name and an answer, such as --default 'block.*.act=relu'.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
