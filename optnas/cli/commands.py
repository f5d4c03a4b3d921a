"""The commands; each imports what it needs when it runs."""

from __future__ import annotations

import shlex
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from optnas.cli.begin import check_quickly, print_check, write_template
from optnas.cli.job import DEFAULT_STORAGE, Job, load_job, load_only_study, open_existing
from optnas.cli.messages import fail, say, warn
from optnas.cli.options import (
    DEFAULT_TRIALS,
    Epochs,
    File,
    Finalists,
    Format,
    Json,
    Pick,
    Storage,
    StorageUrl,
    StudyName,
    Template,
    Timeout,
    Trainings,
    Trials,
    TrialTimeout,
    Workers,
)
from optnas.cli.results import best_values, export_best, find_picked, show_best, show_trials
from optnas.cli.workers import make_workers, read
from optnas.passwords import without_password, without_secrets

if TYPE_CHECKING:
    import optuna

    from optnas.search.best import Best

app = typer.Typer(
    help="Neural architecture search with Optuna and PyTorch Lightning. A STUDY.py is plain Python that "
    "defines `objective`, and may define `study_name`, `storage`, `sampler`, `pruner`, `seed`, "
    "`n_trials`, `baseline` and `n_retrain`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"optnas {version('optnas')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command("resume", help="Go on with a search that exists; unlike `run`, never begin a new one.")
@app.command("run", help="Search; go on where an earlier run of the same study stopped.")
def search(
    context: typer.Context,
    file: File,
    trials: Trials = None,
    timeout: Timeout = None,
    trainings: Trainings = None,
    trial_timeout: TrialTimeout = None,
    workers: Workers = "1",
    finalists: Finalists = None,
    json: Json = False,
    storage: Storage = None,
    study_name: StudyName = None,
) -> None:
    job = load_job(file, storage, study_name)
    if context.info_name == "resume":
        job.load_study()
    study = _search(job, trials, timeout, trainings, workers, json, trial_timeout)
    if not json:
        _summary(job, study, finalists)


@app.command()
def check(
    file: File,
    trials: Trials = None,
    workers: Workers = "1",
    storage: Storage = None,
    study_name: StudyName = None,
) -> None:
    """Say everything that would go wrong in a search, and how long it will take, without a trial.

    The exit status is 1 where something is wrong.
    """
    print_check(load_job(file, storage, study_name), trials, read(workers)[1])


@app.command()
def new(
    kind: Annotated[
        Template, typer.Argument(help="What the networks are for; module: your own LightningModule.")
    ],
    path: Annotated[Path, typer.Argument(metavar="NAME.py", help="The file to write, which must not exist.")],
) -> None:
    """Write a study file that runs as it stands, and says which three lines to change for your own data."""
    write_template(kind, path)
    say(f"{path} runs as it stands. Look into it, then:")
    for command in ("check", "run"):
        say(f"  {shlex.join(['optnas', command, str(path)])}")


@app.command()
def worker(
    file: File,
    trials: Trials = None,
    timeout: Timeout = None,
    trainings: Trainings = None,
    json: Json = False,
    storage: Storage = None,
    study_name: StudyName = None,
) -> None:
    """Join a search at any time, from any machine that reaches its storage; the first worker begins it.

    It ends when the whole study has its trials. On SIGTERM it queues its trial again and leaves with status
    143; so schedulers may take its machine away.
    """
    import optuna

    job = load_job(file, storage, study_name)
    if isinstance(job.sampler, optuna.samplers.BaseSampler):
        job.sampler.reseed_rng()  # its own generator would draw what that of another worker drew
    _search(job, trials, timeout, trainings, "1", json)


@app.command()
def best(
    file: File,
    retrain: Annotated[int, typer.Option(min=0, help="Train it anew from this many seeds.")] = 0,
    finalists: Finalists = None,
    epochs: Epochs = None,
    pick: Pick = None,
    storage: Storage = None,
    study_name: StudyName = None,
) -> None:
    """Show the best architecture, its score on test data, and its scores when trained anew."""
    from optnas.search.study import check_values

    job = load_job(file, storage, study_name)
    if epochs is not None:
        try:
            job.objective.estimator.with_max_epochs(epochs)
        except NotImplementedError as error:
            fail(f"--epochs: {error}")
    study = job.load_study()
    with _fitting(job):
        check_values(study, job.objective)
        _tell_changes(job, study)
        if not show_trials(study):
            _fail_without_value(job, study)
        finalists = finalists or 1
        if finalists > 1 and len(study.directions) == 1:
            say(
                f"\nThe best {finalists} are trained anew from {retrain or 3} seeds each; the best mean wins."
            )
        show_best(job, _winner(study, job, pick, finalists, retrain or 3), retrain, epochs)


@app.command()
def export(
    file: File,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Ends in .onnx (ONNX) or .pt2 (torch.export).")
    ],
    pick: Pick = None,
    storage: Storage = None,
    study_name: StudyName = None,
) -> None:
    """Write the model that was best in the search, or picked, and its weights, to a file without optnas."""
    if path.suffix not in (".onnx", ".pt2"):
        fail(f"{str(path)!r} must end in .onnx (needs onnxruntime to run) or .pt2 (needs torch).")
    job = load_job(file, storage, study_name)
    if not job.objective.estimator.keeps_weights:
        fail("There are no weights to export: the objective's estimator keeps none (optnas.Training does).")
    from optnas.pareto import valued
    from optnas.search.study import check_values

    study = job.load_study()
    _tell_changes(job, study)
    with _fitting(job):
        check_values(study, job.objective)
        if not valued(study):
            _fail_without_value(job, study)
        winner = _winner(study, job, pick)
        try:
            say(f"Trial {winner.trial.number} is in {export_best(winner, path)}.")
        except (OSError, ImportError, TypeError, ValueError) as error:
            fail(str(error))


@app.command()
def ls(storage: StorageUrl = DEFAULT_STORAGE) -> None:
    """List the studies of a storage, with the states of their trials and their best values."""
    import optuna
    from rich.filesize import decimal
    from rich.table import Table

    from optnas import record
    from optnas.estimation.folders import own_folder
    from optnas.estimation.remote import n_bytes
    from optnas.private import study_id
    from optnas.storage.open import open_storage

    opened = open_existing(storage, read_only=True)
    shown = open_storage(opened)
    table = Table(
        "study", "complete", "pruned", "failed", "running", "waiting", "best", "last trial", "files", box=None
    )
    for name in optuna.get_all_study_names(opened):
        study = optuna.load_study(study_name=name, storage=opened)
        rows = shown.outlines(study_id(study), record.COUNTS.name)
        states = [row.state.name for row in rows]
        last = shown.last_start(study_id(study))
        table.add_row(
            name,
            *(str(states.count(state)) for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")),
            best_values(study, shown, rows),
            f"{last:%Y-%m-%d %H:%M}" if last else "",
            "" if (folder := own_folder(study)) is None else decimal(n_bytes(folder)),
        )
    say(table if table.row_count else f"There is no study in {without_password(storage)}.")


@app.command()
def report(
    file: Annotated[
        Path | None, typer.Argument(metavar="[STUDY.py]", help="With it, the best network is drawn.")
    ] = None,
    storage: Storage = None,
    study_name: Annotated[
        str | None, typer.Option(help="By default the file's, or the only study of the storage.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write, which ends in .html, or in .md for text; by default report.html."),
    ] = None,
    format: Annotated[
        Format, typer.Option(help="Format of the report, if --output is not given.")
    ] = Format.HTML,
) -> None:
    """Write what a search found, why it is the best and how sure that is, to one file."""
    path = output or Path(f"report.{format}")
    if path.suffix not in (".html", ".md"):
        fail(f"--output {str(output)!r} must end in .html or .md.")
    from optnas.reports import report

    if file is not None:
        job = load_job(file, storage, study_name)
        study, objective = job.load_study(read_only=True), job.objective
    else:
        study = load_only_study(storage or DEFAULT_STORAGE, study_name, read_only=True)
        objective = None
    try:
        say(f"The report is in {report(study, path, objective)}.")
    except OSError as error:
        fail(f"The report cannot be written: {error}")


@app.command()
def dashboard(
    storage: StorageUrl = DEFAULT_STORAGE,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen at. Whoever reaches it can change studies: there is no password."
        ),
    ] = "127.0.0.1",
) -> None:
    """Serve optuna-dashboard on a storage, to this machine only unless told otherwise."""
    opened = open_existing(storage)
    from optnas.dashboard.guard import is_local
    from optnas.dashboard.pages import keep_plots
    from optnas.dashboard.serve import make_server

    try:
        server = make_server(opened, host, port)
    except OSError as error:
        fail(f"Cannot listen on {host}:{port} ({error.strerror}); choose another one with --port.")
    say(f"http://{host}:{server.server_port}/ shows {without_password(storage)}; Ctrl-C ends it.")
    if not is_local(host):
        warn(
            "Everybody who reaches this machine over the network can read, change and delete these studies: "
            "the dashboard asks for no password. To keep it to yourself, leave --host out here, and on your "
            f"own machine run: ssh -L {server.server_port}:localhost:{server.server_port} THIS_MACHINE"
        )
    stop = threading.Event()
    plots = threading.Thread(target=keep_plots, args=(opened, stop), daemon=True)
    plots.start()
    try:
        with server, suppress(KeyboardInterrupt):
            server.serve_forever()
    finally:
        stop.set()
        plots.join(timeout=2)


def _search(
    job: Job,
    trials: int | None,
    timeout: float | None,
    trainings: float | None,
    workers: str,
    json: bool,
    trial_timeout: float | None = None,
) -> optuna.Study:
    import optuna

    from optnas import record
    from optnas.errors import SearchFailedError, is_infrastructure
    from optnas.progress.progress import Show
    from optnas.search.optimize import optimize

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the progress says it
    launcher = make_workers(workers, trial_timeout, job)
    n_trials = trials or job.n_trials or (DEFAULT_TRIALS if timeout is None and trainings is None else None)
    with warnings.catch_warnings(record=True) as caught:  # shown without the line numbers of our files
        warnings.simplefilter("always", UserWarning)
        with _fitting(job):
            study = job.create_study()
    for warning in caught:
        warn(str(warning.message))
    check_quickly(job, study)
    with _fitting(job):
        n_done = record.n_counted(study.get_trials(deepcopy=False))
        if n_trials is not None and n_done >= n_trials and not json:
            say(
                f"Study {study.study_name!r} has its {n_trials} trials; nothing is searched again. "
                f"For more: {job.command('resume', '--trials', str(2 * n_trials))}"
            )
            return study
        try:
            show: Show = "json" if json else True
            optimize(
                study,
                job.objective,
                n_trials,
                timeout=timeout,
                n_trainings=trainings,
                trial_timeout=trial_timeout,
                workers=launcher,
                show_progress=show,
            )
        except SearchFailedError as error:
            fail(without_secrets(str(error), job.storage), code=1)
        except KeyboardInterrupt:
            fail(f"To go on: {job.command('resume')}", code=130)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
            fail(f"To go on: {job.command('resume')}", code=status)
        except Exception as error:
            if not is_infrastructure(error):
                raise
            # EX_TEMPFAIL: a scheduler may start this worker again.
            reason = without_secrets(str(error), job.storage)
            fail(f"{reason}\nTo go on: {job.command('resume')}", code=75)
    return study


def _summary(job: Job, study: optuna.Study, finalists: int | None) -> None:
    from optnas import record
    from optnas.errors import describe_error
    from optnas.search.best import final

    if not show_trials(study):
        _fail_without_value(job, study)
    with _fitting(job):
        several = len(job.objective.values) > 1
        if not several and finalists != 0 and (n_trained := final(study, job.objective, finalists)):
            trained = "1 training anew" if n_trained == 1 else f"{n_trained} trainings anew"
            say(f"\nThe leaders were close, so they played a final: {trained}.")
        winner = _winner(study, job, None)
        show_best(job, winner, job.n_retrain)

    say(f"\nSaved: study {study.study_name!r} in {without_password(job.storage)}")
    if job.objective.estimator.keeps_weights:
        from optnas.estimation import remote
        from optnas.estimation.folders import study_folder

        folder = study_folder(study)
        say(f"  weights of the best trials in {remote.shown(folder)}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            exported = export_best(winner, folder / "best.onnx")
            remote.upload(exported)
            say(f"  the best model in {remote.shown(exported)}")
        except Exception as error:  # whatever a user's network does to an exporter, the search has ended well
            say(f"  no ONNX file: {describe_error(error)}")
    more = 2 * max(1, record.n_counted(study.get_trials(deepcopy=False)))
    say("\nNext:")
    say(f"  {job.command('resume', '--trials', str(more))}")
    say(f"  {job.command('best', '--retrain', '5')}")
    say(f"  {job.command('report')}")
    say(f"  {shlex.join(['optnas', 'dashboard', without_password(job.storage)])}")


def _winner(
    study: optuna.Study, job: Job, pick: list[str] | None, finalists: int = 1, n_seeds: int = 3
) -> Best:
    """The best trial; of several objectives the one that is picked from the front."""
    from optnas.search.best import best

    if len(study.directions) > 1:
        if finalists > 1:
            fail(
                "--finalists: with several objectives no trial is the best in all; "
                "name one of the front with --pick."
            )
        try:
            return find_picked(study, job.objective, pick or [])
        except ValueError as error:
            fail(str(error))
    if pick:
        fail(f"--pick {pick[0]!r}: the study has one objective, and one best trial.")
    return best(study, job.objective, finalists, n_seeds)


def _tell_changes(job: Job, study: optuna.Study) -> None:
    from optnas.search.study import describe_changes

    if changed := describe_changes(study, job.objective):
        warn(changed)


def _fail_without_value(job: Job, study: optuna.Study) -> NoReturn:
    from optnas import record

    trials = study.get_trials(deepcopy=False)
    reasons = [f" (the last: {words})" for t in trials if (words := record.why(t))]
    fail(
        f"No trial has finished with a value{''.join(reasons[-1:])}; go on with: {job.command('resume')}",
        code=1,
    )


@contextmanager
def _fitting(job: Job) -> Iterator[None]:
    from optnas.errors import ParamsMismatchError

    try:
        yield
    except ParamsMismatchError as error:
        fail(f"{error} For example: --study-name {job.study_name}-2")
