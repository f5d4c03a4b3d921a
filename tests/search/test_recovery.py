"""Interruptions and failures that are no fault of a trial cost no trial and no finished epoch."""

import logging
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

from optnas import record
from optnas.data import Digits
from optnas.errors import CheckpointError, StorageUnavailableError
from optnas.objective import Objective
from optnas.search.optimize import optimize
from optnas.search.recovery import MAX_KILLS, recover
from optnas.search.study import create_study
from optnas.storage.leases import Process
from optnas.storage.open import claim, open_storage
from optnas.storage.owners import owners
from optnas.tasks import Classification
from optnas.training import Training
from optnas.training.checkpoints import Attempt

LEASE = 3600.0


def linear(trial):
    return nn.Linear(4, trial.suggest_int("width", 1, 50))


class Score:
    """The width, after one report."""

    values = {"score": "maximize"}  # noqa: RUF012  # read only

    def __init__(self):
        self.calls = 0

    def example(self, trial):
        return (2, 4)

    def __call__(self, model, trial):
        self.calls += 1
        trial.report(float(model.out_features), 0)
        return {"score": float(model.out_features)}


class Silent(Score):
    """Reports nothing: other attempts may have."""

    def __call__(self, model, trial):
        return {"score": float(model.out_features)}


def states(study):
    return [t.state for t in study.trials]


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/s.db"


def study_of(objective, url, **options):
    storage = open_storage(url, **{"lease": LEASE, **options})
    return create_study(objective, study_name="s", storage=storage, seed=0)


def training_of(folder, *callbacks, batch_size, max_epochs):
    options = {"monitor": "val_loss", "mode": "min", "max_epochs": max_epochs, "folder": folder}
    return Training(Classification(10), Digits(batch_size=batch_size), callbacks=callbacks, **options)


def assert_finishes(study, objective, n_trials):
    """Without waiting for anything that runs no more: leases are longer than that."""
    optimize(study, objective, n_trials, timeout=LEASE / 2)
    assert states(study) == [TrialState.COMPLETE] * n_trials


# ---- a process that goes on living after an interruption, as a notebook's does ----


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


@pytest.mark.parametrize("lease", [LEASE, 0.4])
def test_a_storage_that_fails_for_a_while_costs_no_trial(tmp_path, url, lease):
    class Moving(Score):
        def __call__(self, model, trial):
            if trial.number == 1 and self.calls == 1:
                (tmp_path / "s.db").rename(tmp_path / "away.db")
            return super().__call__(model, trial)

    objective = Objective(linear, Moving())
    study = study_of(objective, url, patience=1.0, lease=lease)
    with pytest.raises(StorageUnavailableError, match=r"s.db is gone. Waited 1 s"):
        optimize(study, objective, n_trials=2)
    (tmp_path / "away.db").rename(tmp_path / "s.db")
    if lease < 1:  # it queues the trial by itself, for other processes
        plain = optuna.load_study(study_name="s", storage=url)
        deadline = time.monotonic() + 600
        while states(plain)[1] != TrialState.WAITING:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert_finishes(study, objective, 2)
    assert [a.get("how") for a in record.ATTEMPTS.of(study.trials[1])] == ["interrupted", None]
    assert not record.why(study.trials[1])


class Filling(pl.Callback):
    """Fills the disk, as it were, in the second epoch: no file may become longer than a megabyte."""

    started = []  # noqa: RUF012  # of all copies

    def on_train_epoch_start(self, trainer, module):
        self.started.append(trainer.current_epoch)
        if self.started == [0, 1]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))


def test_a_full_disk_costs_no_trial_and_no_epoch(tmp_path, url):
    def wide(trial):
        width = trial.suggest_int("width", 2000, 2001)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))

    objective = Objective(wide, training_of(tmp_path, Filling(), batch_size=256, max_epochs=3))
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
    assert not record.why(study.trials[0])


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
        training = training_of(tmp_path / name, *callbacks, batch_size=64, max_epochs=4)
        objective = Objective(conv, training)
        storage = f"sqlite:///{tmp_path}/{name}.db"
        study = create_study(objective, study_name="s", storage=storage, seed=0)
        try:
            optimize(study, objective, n_trials=1)
        except KeyboardInterrupt:
            return study, {}
        trained = training.trained(objective.build(study.trials[0]), study, study.trials[0])
        return study, trained.state_dict()

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
    assert len(record.ATTEMPTS.of(study.trials[0])) == 2


def test_an_error_in_a_trial_that_somebody_else_has_told_is_of_no_account(url):
    class Told(Score):
        def __call__(self, model, trial):
            if trial.number == 0:
                optuna.load_study(study_name="s", storage=url).tell(0, 7.0)
                raise RuntimeError("too late")
            return super().__call__(model, trial)

    objective = Objective(linear, Told())
    study = study_of(objective, url)
    assert_finishes(study, objective, 2)
    assert study.trials[0].value == 7.0


def test_running_trials_of_plain_optuna_are_left_alone_and_hold_up_nothing_for_ever(url, caplog):
    objective = Objective(linear, Score())
    study = study_of(objective, url, lease=0.5)
    optuna.load_study(study_name="s", storage=url).ask()  # it may live, or may have been killed
    with caplog.at_level(logging.WARNING):
        optimize(study, objective, n_trials=3)
    assert states(study) == [TrialState.RUNNING] + [TrialState.COMPLETE] * 3
    assert "Waiting for trial 0, which another program than optnas runs" in caplog.text


PAUSED = """
    import os, signal, sys
    import optnas
    from optnas.storage.open import open_storage
    from torch import nn

    class Steps:
        values = {"score": "maximize"}
        def example(self, trial): return (2, 4)
        def __call__(self, model, trial):
            trial.report(0.5, 0)
            if trial.number == 0:
                with storage._ledger.lock:  # no transaction that others would wait for
                    os.kill(os.getpid(), signal.SIGSTOP)
            trial.report(0.5, 1)
            return {"score": 0.5}

    def linear(trial):
        return nn.Linear(4, trial.suggest_int("width", 1, 50))

    objective = optnas.Objective(linear, Steps())
    storage = open_storage(sys.argv[1], lease=1.0)
    study = optnas.create_study(objective, study_name="s", storage=storage)
    optnas.optimize(study, objective, n_trials=2)
"""


def test_a_paused_process_gives_way_and_takes_another_trial(tmp_path, url):
    script = tmp_path / "search.py"
    script.write_text(textwrap.dedent(PAUSED))
    with subprocess.Popen([sys.executable, str(script), url], stderr=subprocess.PIPE, text=True) as process:
        try:
            os.waitpid(process.pid, os.WUNTRACED)
            assert process.poll() is None, process.stderr.read()
            objective = Objective(linear, Silent())
            study = study_of(objective, url, lease=1.0)
            optimize(study, objective, n_trials=1)  # waits for the end of its lease, and half as long
        finally:
            process.send_signal(signal.SIGCONT)
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Trial 0 was taken over by another attempt" in errors
    first, second = study.trials
    assert [a["pid"] for a in record.ATTEMPTS.of(first)] == [process.pid, os.getpid()]
    assert first.value == first.params["width"]  # ours
    assert [a["pid"] for a in record.ATTEMPTS.of(second)] == [process.pid]
    assert second.value == 0.5


# ---- trials that are lost again and again ----

# To this machine, the first one's processes are dead for sure; of the second one's, only the leases end.
LAST_BOOT, CONTAINER = "another-boot pid:[1]", f"{Process.this().machine.split()[0]} pid:[1]"


def lose(study, url, machine, epoch=None):
    """A process of another machine takes trial 0, maybe reports an epoch, and is never heard of again."""
    storage = open_storage(url, lease=0.05)
    trial_id = claim(optuna.load_study(study_name="s", storage=storage), 1, "optnas:counts").trial_id
    if epoch is not None:
        storage.set_trial_intermediate_value(trial_id, epoch, 0.5)
    storage.close()
    storage._ledger._heart.join()
    with storage._database.engine.begin() as connection:
        connection.execute(sa.update(owners).values(machine=machine, pid=1))
    watching = optuna.load_study(study_name="s", storage=open_storage(url, lease=0.05))
    while states(watching) == [TrialState.RUNNING]:
        recover(watching)
        time.sleep(0.01)


@pytest.mark.parametrize("machine", [LAST_BOOT, CONTAINER])
def test_a_trial_that_is_lost_at_the_same_point_again_and_again_is_given_up(url, machine):
    objective = Objective(linear, Score())
    study = study_of(objective, url)
    for _ in range(MAX_KILLS - 1):
        lose(study, url, machine)
        assert states(study) == [TrialState.WAITING]
    lose(study, url, machine)
    assert states(study) == [TrialState.FAIL]
    assert f"gave up: {MAX_KILLS} processes" in record.why(study.trials[0])


@pytest.mark.parametrize("machine", [LAST_BOOT, CONTAINER])
def test_a_trial_that_gets_further_between_its_losses_is_not_given_up(url, machine):
    objective = Objective(linear, Silent())
    study = study_of(objective, url)
    for epoch in range(MAX_KILLS + 1):
        lose(study, url, machine, epoch)
    assert_finishes(study, objective, 1)
    assert list(study.trials[0].intermediate_values) == list(range(MAX_KILLS + 1))
