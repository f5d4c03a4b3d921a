"""A search from the shell: run, go on, look, export, serve; and every way to get it wrong."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from typer.testing import Result

from optnas import record
from optnas.limits import in_words

URL = "sqlite:///nas.db"
Cli = Callable[..., Result]


def load() -> optuna.Study:
    return optuna.load_study(study_name="toy", storage=URL)


def test_run_searches_once_and_resume_goes_on(toy: Path, optnas_cli: Cli) -> None:
    first = optnas_cli("run", toy)
    assert first.exit_code == 0, first.output
    study = load()
    assert [trial.state for trial in study.trials].count(TrialState.COMPLETE) >= 4
    best = study.best_trial
    assert f"Best: trial {best.number}, score {best.value:.4f} in the search" in first.stdout
    assert f"depth = {best.params['depth']}" in first.stdout
    assert "optnas resume toy.py --trials" in first.stdout
    assert "optnas dashboard sqlite:///nas.db" in first.stdout

    again = optnas_cli("run", toy)
    assert "has its 4 trials; nothing is searched again" in again.stdout
    assert len(load().trials) == len(study.trials)

    more = optnas_cli("resume", toy, "--trials", 6)
    assert more.exit_code == 0, more.output
    own = [t for t in load().trials if t.state == TrialState.COMPLETE and record.TWIN_OF.of(t) is None]
    assert len(own) == 6
    assert [trial.params for trial in load().trials[: len(study.trials)]] == [t.params for t in study.trials]


def test_options_win_over_the_file_and_are_repeated_in_what_to_type_next(toy: Path, optnas_cli: Cli) -> None:
    toy.write_text(toy.read_text() + "study_name, storage = 'named', 'sqlite:///named.db'\n")
    done = optnas_cli("run", toy, "--trials", 1, "--study-name", "other one", "--storage", URL)
    assert done.exit_code == 0, done.output
    assert optuna.get_all_study_names(URL) == ["other one"]
    assert not Path("named.db").exists()
    assert (
        "optnas resume toy.py --trials 2 --storage sqlite:///nas.db --study-name 'other one'" in done.stdout
    )


def test_ls_lists_studies_with_states_and_best_values(toy: Path, optnas_cli: Cli) -> None:
    optnas_cli("run", toy, "--trials", 2)
    study = load()
    study.enqueue_trial({"depth": 1})
    optuna.create_study(study_name="empty", storage=URL)
    lines = optnas_cli("ls").stdout.splitlines()
    [row] = [line.split() for line in lines if line.strip().startswith("toy")]
    n_complete = len(study.get_trials(states=(TrialState.COMPLETE,)))
    assert row[:7] == ["toy", str(n_complete), "0", "0", "0", "1", in_words(study.best_value)]
    assert any(line.split() == ["empty", "0", "0", "0", "0", "0"] for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "missing.py"), "There is no study file 'missing.py'"),
        (("run", "empty.py"), "empty.py has no `objective`"),
        (("run", "function.py"), "has a function as `objective`"),
        (("run", "toy.py", "--storage", "nowhere://x/y"), "Cannot open the storage 'nowhere://x/y'"),
        (("run", "toy.py", "--storage", "sqlite:///no/such/folder.db"), "Cannot open the storage"),
        (("resume", "toy.py"), "nas.db' does not exist"),
        (
            ("best", "toy.py", "--storage", "sqlite:///other.db"),
            "which has another. Say which with --study-name",
        ),
        (("best", "toy.py", "--epochs", "3"), "--epochs: The objective's estimator"),
        (
            ("best", "toy.py", "--storage", "sqlite:///other.db", "--study-name", "another"),
            "began in order to minimize a value, maximize a value, and the objective",
        ),
        (("export", "toy.py", "model.h5"), "must end in .onnx"),
        (("export", "toy.py", "model.onnx"), "no weights to export"),
        (("report", "toy.py", "--output", "report.pdf"), "must end in .html or .md"),
        (("report", "--storage", "sqlite:///other.db", "--study-name", "toy"), "There is no study 'toy'"),
        (("report",), "nas.db' does not exist"),
        (("ls",), "nas.db' does not exist"),
        (("ls", "sqlite:///text.db"), "Cannot open the storage"),
        (("dashboard", "nowhere://x/y"), "Cannot open the storage"),
        (("dashboard", "sqlite:///other.db", "--host", "192.0.2.1"), "choose another one with --port"),
    ],
)
def test_a_mistake_gets_one_line_and_no_traceback(
    arguments: tuple[str, ...], message: str, toy: Path, optnas_cli: Cli
) -> None:
    Path("empty.py").write_text("")
    Path("function.py").write_text("def objective(trial): return 0.0")
    Path("text.db").write_text("not a database, however long this text may be" * 100)
    optuna.create_study(
        study_name="another", storage="sqlite:///other.db", directions=["minimize", "maximize"]
    )
    result = optnas_cli(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert not Path("nas.db").exists()


def test_an_error_in_a_study_file_shows_the_users_own_lines(toy: Path, optnas_cli: Cli) -> None:
    toy.write_text("def helper():\n    return 1 / 0\n\nobjective = helper()\n")
    result = optnas_cli("run", toy)
    assert result.exit_code == 1
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert result.stderr.count("File") == 2, result.stderr


def test_a_study_that_no_longer_fits_the_space_names_the_parameter_and_a_way_out(
    toy: Path, optnas_cli: Cli
) -> None:
    optnas_cli("run", toy)
    toy.write_text(toy.read_text().replace('"depth", 1, 3', '"depth", 7, 9'))
    result = optnas_cli("run", toy, "--trials", 20)
    assert result.exit_code == 2
    assert "'depth'" in result.stderr
    assert "--study-name toy-2" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_space_that_always_fails_ends_the_search_with_its_reason(toy: Path, optnas_cli: Cli) -> None:
    toy.write_text(toy.read_text().replace("nn.Linear(width, 2)", "nn.Linear(99, 2)"))
    result = optnas_cli("run", toy)
    assert result.exit_code == 1
    assert "The search does not begin" in result.stderr
    assert "shapes cannot be multiplied" in result.stderr
    assert load().trials == []  # a rehearsal costs none


def test_a_search_without_a_value_ends_with_the_reason(toy: Path, optnas_cli: Cli) -> None:
    toy.write_text(toy.read_text().replace('{"score": -float', '{"score": float("nan") * float'))
    result = optnas_cli("run", toy, "--trials", 2)
    assert result.exit_code == 1
    assert "No trial has finished with a value (the last: diverged: score is nan)" in result.stderr


def optnas_process(*arguments: object) -> subprocess.Popen[str]:
    code = "from optnas.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_control_c_queues_the_trial_again_and_says_how_to_go_on(toy: Path, optnas_cli: Cli) -> None:
    quick = toy.read_text()
    wait = "import pathlib, time; pathlib.Path('started').touch(); time.sleep(3600)"
    toy.write_text(quick.replace('return {"score"', f'{wait}\n    return {{"score"'))
    with optnas_process("run", toy) as process:
        try:
            deadline = time.monotonic() + 600
            while not Path("started").exists():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=600)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "To go on: optnas resume toy.py" in errors
    assert "Traceback" not in errors
    assert [trial.state for trial in load().trials] == [TrialState.WAITING]

    toy.write_text(quick)
    assert optnas_cli("resume", toy, "--trials", 1).exit_code == 0
    assert [trial.state for trial in load().trials] == [TrialState.COMPLETE]


def test_dashboard_serves_the_study_to_this_machine(toy: Path, optnas_cli: Cli) -> None:
    optnas_cli("run", toy, "--trials", 1)
    with optnas_process("dashboard", "--port", 0) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[0]
            assert address.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(address + "api/studies", timeout=600) as answer:
                [summary] = json.load(answer)["study_summaries"]
            assert summary["study_name"] == "toy"
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=600)
        finally:
            process.kill()
    assert process.returncode == 0


def test_who_serves_everybody_is_warned_with_the_way_out(toy: Path, optnas_cli: Cli) -> None:
    optnas_cli("run", toy, "--trials", 1)
    with optnas_process("dashboard", "--port", 0, "--host", "0.0.0.0") as process:
        try:
            assert process.stderr is not None
            told = process.stderr.readline()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=600)
        finally:
            process.kill()
    assert "can read, change and delete these studies" in told
    assert re.search(r"ssh -L \d+:localhost:\d+", told)


def test_a_study_of_several_objectives_or_without_a_value_gets_words(toy: Path, optnas_cli: Cli) -> None:
    optuna.create_study(study_name="two", storage=URL, directions=["minimize", "maximize"])
    study = optuna.create_study(study_name="none", storage=URL, direction="maximize")
    study.tell(study.ask(), state=TrialState.FAIL)
    for command in (("best", toy), ("export", toy, "m.onnx"), ("report", toy), ("ls",)):
        for name in () if command[0] == "ls" else ("two", "none"):
            result = optnas_cli(*command, "--study-name", name)
            assert (result.exit_code == 0) == (command[0] == "report"), result.output
            assert "Traceback" not in result.output
            assert result.output.strip()
    none = optnas_cli("best", toy, "--study-name", "none")
    assert "No trial has finished with a value" in none.stderr


def test_json_is_all_that_programs_get(optnas_cli: Cli, toy: Path) -> None:
    for command, kinds in (("run", {"start", "trial", "best", "end"}), ("resume", {"start", "end"})):
        result = optnas_cli(command, toy, "--json")
        assert result.exit_code == 0
        events = [json.loads(line) for line in result.stdout.splitlines()]
        assert {event["event"] for event in events} == kinds
        assert (events[-1]["status"], events[-1]["complete"]) == ("done", 4)


def test_a_full_disk_ends_the_command_with_the_way_on_and_a_status_for_schedulers(
    toy: Path, optnas_cli: Cli
) -> None:
    full = "raise OSError(28, 'No space left on device')"
    source = toy.read_text()
    toy.write_text(source.replace("    return {", f"    if trial.number == 1: {full}\n    return {{"))
    result = optnas_cli("run", "toy.py")
    assert result.exit_code == 75
    assert "No space left" in result.stderr
    assert "optnas resume toy.py" in result.stderr
    toy.write_text(source)
    assert optnas_cli("resume", "toy.py").exit_code == 0


def test_a_seed_in_the_file_makes_the_same_search_again(toy: Path, optnas_cli: Cli) -> None:
    toy.write_text(toy.read_text() + "seed = 5\n")
    searches = []
    for name in ("one", "two"):
        assert optnas_cli("run", "toy.py", "--study-name", name).exit_code == 0
        study = optuna.load_study(study_name=name, storage="sqlite:///nas.db")
        searches.append([trial.params for trial in study.trials])
    assert searches[0] == searches[1]


def test_a_trial_that_hangs_is_ended_and_says_where_it_was(toy: Path) -> None:
    hangs = "    import time; trial.number == 0 and time.sleep(600)\n    return {"
    toy.write_text(toy.read_text().replace("    return {", hangs, 1))
    process = optnas_process("run", toy, "--trials", 2, "--trial-timeout", 8)
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    first = load().trials[0]
    assert first.state == TrialState.FAIL
    assert "toy.py" in record.why(first)
    assert record.n_counted(load().trials) == 2


def test_a_network_by_hand_that_is_over_a_limit_is_told(
    trained: Path, optnas_cli: Callable[..., Result]
) -> None:
    source = trained.read_text().replace(
        "Objective(space, estimator)", "Objective(space, estimator, limits=LIMITS)"
    )
    trained.write_text(source.replace("estimator = ", "LIMITS = {'n_params': (600, 700)}\nestimator = "))
    told = optnas_cli("run", trained).output
    assert "within 600 <= n_params <= 700" in " ".join(told.split())
    assert "by hand" in told
    assert "over a limit" not in told  # 650 parameters
    trained.write_text(trained.read_text().replace("(600, 700)", "(600, 649)"))
    told = optnas_cli("run", trained, "--study-name", "other").output
    assert "is over a limit: n_params is 650, and 600 <= n_params <= 649" in told


def test_of_several_objectives_one_of_the_front_is_picked(
    toy: Path, optnas_cli: Callable[..., Result]
) -> None:
    source = toy.read_text().replace('{"score": "maximize"}', '{"width": "maximize", "flops": "minimize"}')
    toy.write_text(
        source.replace('return {"score"', 'return {"width": float(model[-1].in_features), "score"')
    )
    told = optnas_cli("run", toy, "--trials", 8).output
    assert "Front of" in told
    assert "Picked: trial" in told
    every = json.loads(optnas_cli("run", toy, "--trials", 9, "--json").output.splitlines()[-1])
    dearest = max(every["front"], key=lambda member: member["values"][1])
    assert (
        f"Picked: trial {dearest['number']}," in optnas_cli("best", toy, "--pick", dearest["number"]).output
    )
    limit = f"flops<={dearest['values'][1] - 1}"
    told = optnas_cli("best", toy, "--pick", limit).output
    assert "Picked: trial" in told
    assert f"Picked: trial {dearest['number']}," not in told
    for wrong, words in (
        ("flops<=1", "the smallest seen is"),
        ("cheap", "give knee, the number"),
        ("99", "99"),
    ):
        refused = optnas_cli("best", toy, "--pick", wrong)
        assert refused.exit_code == 2
        assert words in refused.output
    assert "no trial is the best in all" in optnas_cli("best", toy, "--finalists", 2).output
