import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import optuna
import pytest
import pytorch_lightning as pl
import sqlalchemy as sa
import torch
from optuna.trial import TrialState
from torch import nn

from optnas.data import Digits
from optnas.estimation import Training
from optnas.estimation.checkpoints import Attempt
from optnas.failures import CheckpointError
from optnas.objective import Objective
from optnas.search.optimize import MAX_IDLE_TRIALS, SearchFailedError, optimize, signals_raise
from optnas.search.storage import StorageUnavailableError, open_storage
from optnas.search.study import counts, create_study
from optnas.tasks import Classification
from optnas.trial import ParamsMismatchError


def linear(trial):
    return nn.Linear(4, trial.suggest_int("width", 1, 50))


class Score:
    """The width, after one report; can be told to fail, prune or be infeasible for some widths."""

    values = {"score": "maximize"}  # noqa: RUF012  # read only

    def __init__(self, prune=(), infeasible=(), fail=()):
        self.prune, self.infeasible, self.fail = prune, infeasible, fail
        self.calls = 0

    def example(self, trial):
        return (2, 4)

    def __call__(self, model, trial):
        self.calls += 1
        width = model.out_features
        trial.report(float(width), 0)
        if width in self.fail:
            raise RuntimeError(f"no width {width}")
        if width in self.infeasible:
            trial.set_user_attr("infeasible", "too wide")
            raise optuna.TrialPruned
        if width in self.prune:
            raise optuna.TrialPruned
        return {"score": float(width)}


class Named(Score):
    """Asks for a parameter of its own."""

    def __call__(self, model, trial):
        return {"score": trial.suggest_float("lr", 0, 1)}


def states(study):
    return [t.state for t in study.trials]


def test_n_trials_is_a_budget_of_the_whole_study():
    objective = Objective(linear, Score())
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=5)
    optimize(study, objective, n_trials=8)
    optimize(study, objective, n_trials=8)  # done already: does nothing
    assert sum(map(counts, study.trials)) == 8
    assert objective.estimator.calls == 8


def test_twins_infeasible_and_failed_trials_do_not_count_but_pruned_ones_do():
    score = Score(prune=range(1, 20), infeasible=range(20, 30), fail=range(30, 35))
    objective = Objective(linear, score)
    study = create_study(objective, seed=0, sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed))
    optimize(study, objective, n_trials=20)
    counted = [t for t in study.trials if counts(t)]
    assert len(counted) == 20
    assert {t.params["width"] for t in counted} <= {*range(1, 20), *range(35, 51)}
    assert {t.state for t in counted} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(
        t.state == TrialState.FAIL or "twin_of" in t.user_attrs or "infeasible" in t.user_attrs
        for t in study.trials
        if not counts(t)
    )


def test_an_enqueued_baseline_is_trial_0():
    objective = Objective(linear, Score())
    study = create_study(objective)
    study.enqueue_trial({"width": 17})
    optimize(study, objective, n_trials=2)
    assert study.trials[0].params == {"width": 17}


def test_timeout_ends_the_search():
    class Slow(Score):
        def __call__(self, model, trial):
            time.sleep(0.05)
            return super().__call__(model, trial)

    objective = Objective(linear, Slow(), reuse_twins=False)
    study = create_study(objective)
    optimize(study, objective, timeout=0.3)
    assert 1 <= len(study.trials) <= 8


def test_the_same_failure_five_times_from_the_start_stops_with_the_reason():
    objective = Objective(linear, Score(fail=range(1, 51)))
    study = create_study(objective)
    with pytest.raises(
        SearchFailedError, match=r"5 of its last 5.*test_optimize.py:\d+ in __call__: no width"
    ):
        optimize(study, objective, n_trials=20)
    assert states(study) == [TrialState.FAIL] * 5
    assert "no width" in study.trials[0].user_attrs["reason"]


def test_eight_failures_of_the_last_ten_stop_the_search():
    failing = Score()
    objective = Objective(linear, failing, reuse_twins=False)
    study = create_study(objective)
    optimize(study, objective, n_trials=3)
    failing.fail = [w for w in range(1, 51) if w != 13]
    for width in [1, 2, 13, 3, 4, 13, 5, 6, 7, 8, 9, 10]:
        study.enqueue_trial({"width": width})
    with pytest.raises(SearchFailedError, match="8 of its last 10"):
        optimize(study, objective, n_trials=100)
    assert len(study.get_trials(states=(TrialState.FAIL,))) == 8


def test_a_few_failures_do_not_stop_the_search():
    objective = Objective(linear, Score(fail=range(1, 10)))
    study = create_study(objective, sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed), seed=1)
    for width in (20, 1, 2, 3):
        study.enqueue_trial({"width": width})
    optimize(study, objective, n_trials=15)
    assert sum(map(counts, study.trials)) == 15
    assert TrialState.FAIL in states(study)


def test_an_exhausted_space_ends_with_a_message(caplog):
    objective = Objective(lambda trial: nn.Linear(4, trial.suggest_int("width", 1, 3)), Score())
    study = create_study(objective, sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed))
    optimize(study, objective, n_trials=10)
    assert sum(map(counts, study.trials)) == 3
    assert "search ends" in caplog.text
    assert len(study.trials) <= 3 + 10 * MAX_IDLE_TRIALS


def test_a_study_that_no_longer_fits_names_parameter_and_way_out():
    objective = Objective(linear, Score())
    study = create_study(objective, study_name="widths")
    study.enqueue_trial({"width": 40})
    optimize(study, objective, n_trials=1)
    narrower = Objective(lambda trial: nn.Linear(4, trial.suggest_int("width", 1, 30)), Score())
    with pytest.raises(ParamsMismatchError, match=r"'widths'.*trial 0.*'width' is 40.*another name"):
        optimize(study, narrower, n_trials=2)
    assert len(study.trials) == 1


def test_a_study_whose_space_asked_for_more_is_not_gone_on_with():
    def two_layers(trial):
        return nn.Sequential(linear(trial), nn.LazyLinear(trial.suggest_int("second", 1, 5)))

    study = create_study(Objective(two_layers, Score()), study_name="layers", seed=0)
    study.enqueue_trial({"width": 3, "second": 4})
    optimize(study, Objective(two_layers, Named()), n_trials=1)
    with pytest.raises(
        ParamsMismatchError, match=r"'layers'.*trial 0.*no longer asks for 'second'.*another name"
    ):
        optimize(study, Objective(linear, Named()), n_trials=2)
    optimize(study, Objective(two_layers, Named()), n_trials=2)
    assert states(study) == [TrialState.COMPLETE] * 2


def test_an_enqueued_trial_that_does_not_fit_is_found_before_the_search():
    objective = Objective(linear, Score())
    study = create_study(objective)
    study.enqueue_trial({"width": 99})
    with pytest.raises(ParamsMismatchError, match="'width' is 99"):
        optimize(study, objective, n_trials=1)
    assert states(study) == [TrialState.WAITING]


SCRIPT = """
    import sys, time
    import optnas
    from torch import nn

    class Slow:
        values = {"score": "maximize"}
        def example(self, trial): return (2, 4)
        def __call__(self, model, trial):
            trial.report(0.5, 0)
            print("running", trial.number, flush=True)
            if trial.number == 1 and sys.argv[2] == "slow":
                time.sleep(60)
            return {"score": float(model.out_features)}

    def linear(trial):
        return nn.Linear(4, trial.suggest_int("width", 1, 10_000))

    objective = optnas.Objective(linear, Slow())
    study = optnas.create_study(objective, study_name="s", storage=sys.argv[1], seed=0)
    optnas.optimize(study, objective, n_trials=3)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_an_interrupted_trial_is_queued_again_and_finished_later(tmp_path, number, code):
    script = tmp_path / "search.py"
    script.write_text(textwrap.dedent(SCRIPT))
    url = f"sqlite:///{tmp_path}/s.db"
    command = [sys.executable, str(script), url]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "slow"], **pipes) as process:
        while "running 1" not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        os.kill(process.pid, number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Interrupted in trial 1, which is queued again" in stderr

    study = optuna.load_study(study_name="s", storage=url)
    assert states(study) == [TrialState.COMPLETE, TrialState.WAITING]
    width = study.trials[1].params["width"]

    subprocess.run([*command, "fast"], check=True, capture_output=True)
    study = optuna.load_study(study_name="s", storage=url)
    assert states(study) == [TrialState.COMPLETE] * 3
    assert study.trials[1].params["width"] == width
    first, second = study.trials[1].user_attrs["attempts"]
    assert first["pid"] != second["pid"]
    assert first["ended"] >= first["started"]


# ---- a process that goes on living after an interruption, as a notebook's does ----


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/s.db"


def study_of(objective, url, **options):
    storage = open_storage(url, **options)
    return create_study(objective, study_name="s", storage=storage, seed=0)


def assert_finishes(study, objective, n_trials):
    """Without waiting for anything that runs no more."""
    optimize(study, objective, n_trials, timeout=30)
    assert states(study) == [TrialState.COMPLETE] * n_trials


def test_the_end_of_a_terminal_is_a_sigterm_unless_ignored():
    with pytest.raises(SystemExit) as ended, signals_raise():
        signal.raise_signal(signal.SIGHUP)
    assert ended.value.code == 128 + signal.SIGTERM
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals_raise():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_while_a_trial_is_taken_leaves_none_running(url):
    objective = Objective(linear, Score())
    study = study_of(objective, url)

    sent = []

    def interrupt(connection, cursor, statement, *_):
        if statement.startswith("UPDATE trials") and not sent:  # WAITING becomes RUNNING
            sent.append(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    study.enqueue_trial({"width": 7})
    sa.event.listen(study._storage._database.engine, "after_cursor_execute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        optimize(study, objective, n_trials=2)
    assert states(study) == [TrialState.WAITING]
    assert_finishes(study, objective, 2)


def test_ctrl_c_while_a_trial_is_told_leaves_it_finished(url):
    objective = Objective(linear, Score())
    study = study_of(objective, url)

    class Interrupting(optuna.samplers.RandomSampler):
        def after_trial(self, study, trial, state, values):
            if trial.number == 0:
                signal.raise_signal(signal.SIGINT)

    study.sampler = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        optimize(study, objective, n_trials=2)
    assert states(study) == [TrialState.COMPLETE]
    assert_finishes(study, objective, 2)


def test_a_sampler_that_fails_before_a_trial_leaves_none_running(url):
    class Failing(optuna.samplers.RandomSampler):
        def before_trial(self, study, trial):
            raise ValueError("no samples")

    objective = Objective(linear, Score())
    study = study_of(objective, url)
    sampler, study.sampler = study.sampler, Failing()
    with pytest.raises(ValueError, match="no samples"):
        optimize(study, objective, n_trials=1)
    study.sampler = sampler
    assert_finishes(study, objective, 1)


@pytest.mark.parametrize("lease", [60.0, 0.4])
def test_a_storage_that_fails_for_a_while_costs_no_trial(tmp_path, url, lease):
    class Moving(Score):
        def __call__(self, model, trial):
            if trial.number == 1 and self.calls == 1:
                (tmp_path / "s.db").rename(tmp_path / "away.db")
            return super().__call__(model, trial)

    objective = Objective(linear, Moving())
    study = study_of(objective, url, patience=0.3, lease=lease)
    with pytest.raises(StorageUnavailableError, match=r"s.db is gone. Waited 0 s"):
        optimize(study, objective, n_trials=2)
    (tmp_path / "away.db").rename(tmp_path / "s.db")
    if lease < 1:  # it queues the trial by itself, for other processes
        plain = optuna.load_study(study_name="s", storage=url)
        deadline = time.monotonic() + 20
        while states(plain)[1] != TrialState.WAITING:
            assert time.monotonic() < deadline
    assert_finishes(study, objective, 2)
    assert [a.get("how") for a in study.trials[1].user_attrs["attempts"]] == ["interrupted", None]
    assert "reason" not in study.trials[1].user_attrs


class Filling(pl.Callback):
    """Fills the disk, as it were, in the second epoch: no file may become longer than a megabyte."""

    started = []  # noqa: RUF012  # of all copies

    def on_train_epoch_start(self, trainer, module):
        self.started.append(trainer.current_epoch)
        if self.started == [0, 1]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))


def test_a_full_disk_costs_no_trial_and_no_epoch(tmp_path, url):
    training = Training(
        Classification(10),
        Digits(batch_size=256),
        monitor="val_acc",
        mode="max",
        max_epochs=3,
        folder=tmp_path,
        callbacks=[Filling()],
    )

    def wide(trial):
        width = trial.suggest_int("width", 2000, 2001)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))

    objective = Objective(wide, training)
    study = study_of(objective, url)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(CheckpointError, match=r"Cannot write .*epoch-00001.ckpt.*Make room"):
            optimize(study, objective, n_trials=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert states(study) == [TrialState.WAITING]
    assert not list(tmp_path.rglob("*.part"))
    assert_finishes(study, objective, 1)
    assert Filling.started == [0, 1, 1, 2]
    assert "reason" not in study.trials[0].user_attrs


class Interrupting(pl.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (2, 1):
            raise KeyboardInterrupt


def test_resumed_with_other_threads_a_trial_ends_as_if_nothing_had_happened(tmp_path, caplog):
    def conv(trial):
        convolution = nn.Conv2d(1, trial.suggest_int("width", 8, 9), 3)
        return nn.Sequential(convolution, nn.Flatten(), nn.Dropout(0.2), nn.LazyLinear(10))

    def run(name, threads, *callbacks):
        torch.set_num_threads(threads)
        training = Training(
            Classification(10),
            Digits(batch_size=64),
            monitor="val_loss",
            mode="min",
            max_epochs=4,
            folder=tmp_path / name,
            callbacks=callbacks,
        )
        objective = Objective(conv, training)
        storage = f"sqlite:///{tmp_path}/{name}.db"
        study = create_study(objective, study_name="s", storage=storage, seed=0)
        try:
            optimize(study, objective, n_trials=1)
        except KeyboardInterrupt:
            return study, {}
        return study, training.load_weights(study, study.trials[0])

    threads = torch.get_num_threads()
    try:
        undisturbed, weights = run("undisturbed", 1)
        assert run("interrupted", 1, Interrupting())[1] == {}
        with pytest.warns(UserWarning, match="threads: 1 when the study began, 2 now"):
            resumed, weights_again = run("interrupted", 2)
    finally:
        torch.set_num_threads(threads)
    assert resumed.trials[0].intermediate_values == undisturbed.trials[0].intermediate_values
    assert resumed.trials[0].values == undisturbed.trials[0].values
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)
    assert "CPU threads" not in caplog.text


# ---- other processes ----


def test_a_process_whose_trial_and_files_are_gone_takes_another_trial(tmp_path, url, caplog):
    """Paused, then overtaken by one that finished the trial and deleted what its attempts left behind."""

    class Overtaken(Score):
        def __call__(self, model, trial):
            if trial.number == 0:
                attempt = Attempt(tmp_path / "trial-0", "x")
                other = study_of(Objective(linear, Silent()), url)
                other._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                optimize(other, Objective(linear, Silent()), n_trials=1)
                shutil.rmtree(attempt.folder)
                attempt.write(0, lambda path: path.write_bytes(b"state"))
            return super().__call__(model, trial)

    objective = Objective(linear, Overtaken())
    study = study_of(objective, url)
    assert_finishes(study, objective, 2)
    assert "Trial 0 was taken over by another process, with its files" in caplog.text
    assert len(study.trials[0].user_attrs["attempts"]) == 2


def test_running_trials_that_others_left_are_run(url):
    objective = Objective(linear, Score())
    study = study_of(objective, url)
    plain = optuna.load_study(study_name="s", storage=url)
    for width in (7, 8, 9):
        plain.enqueue_trial({"width": width})
        plain.ask().suggest_int("width", 1, 50)
    assert_finishes(study, objective, 4)
    assert [trial.params["width"] for trial in study.trials[:3]] == [7, 8, 9]


PAUSED = """
    import sys, time
    import optnas
    from optnas.search.storage import open_storage
    from torch import nn

    class Steps:
        values = {"score": "maximize"}
        def example(self, trial): return (2, 4)
        def __call__(self, model, trial):
            for step in range(20 if trial.number == 0 else 1):
                trial.report(0.5, step)
                print(trial.number, step, flush=True)
                time.sleep(0.1)
            return {"score": 0.5}

    def linear(trial):
        return nn.Linear(4, trial.suggest_int("width", 1, 50))

    objective = optnas.Objective(linear, Steps())
    study = optnas.create_study(objective, study_name="s", storage=open_storage(sys.argv[1], lease=1.0))
    optnas.optimize(study, objective, n_trials=2)
"""


class Silent(Score):
    """Reports nothing: other attempts may have."""

    def __call__(self, model, trial):
        return {"score": float(model.out_features)}


def test_a_paused_process_gives_way_and_takes_another_trial(tmp_path, url):
    script = tmp_path / "search.py"
    script.write_text(textwrap.dedent(PAUSED))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(script), url], **pipes) as process:
        while process.stdout.readline() != "0 2\n":
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGSTOP)
        objective = Objective(linear, Silent())
        study = study_of(objective, url, lease=1.0)
        optimize(study, objective, n_trials=1)  # waits for the end of its lease
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Trial 0 was taken over by another attempt" in errors
    first, second = study.trials
    assert [a["pid"] for a in first.user_attrs["attempts"]] == [process.pid, os.getpid()]
    assert first.value == first.params["width"]  # ours
    assert [a["pid"] for a in second.user_attrs["attempts"]] == [process.pid]
    assert second.value == 0.5
