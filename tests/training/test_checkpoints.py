import errno
import multiprocessing
import os
import resource
import runpy
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.errors import CheckpointError
from optnas.estimation.folders import trial_folder
from optnas.training.checkpoints import Attempt, all_weights, clean, load_snapshot, tidy, weights_path
from optnas.training.snapshot import take

SCRIPT = Path(__file__).with_name("interrupted.py")
EPOCHS = 5

# Real processes that begin with everything imported.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["optnas.training.training", "optnas.tasks", "sklearn.datasets"])


def start(folder, data, stop="", threads=1):
    folder.mkdir(exist_ok=True)
    arguments = (str(folder), data, EPOCHS, stop, threads)
    given = {"init_globals": {"arguments": arguments}, "run_name": "__main__"}
    process = context.Process(target=runpy.run_path, args=(str(SCRIPT),), kwargs=given)
    process.start()
    return process


def finish(folder, data, threads=1):
    process = start(folder, data, threads=threads)
    process.join()
    assert process.exitcode == 0, (folder / "errors").read_text()


def kill(process):
    process.kill()
    process.join()


def start_and_stop(folder, data, line):
    """A process that has written this line, and rests."""
    process = start(folder, data, stop=line)
    deadline = time.monotonic() + 600
    while line not in log(folder):
        assert time.monotonic() < deadline, f"{line!r} did not appear"
        assert process.is_alive(), (folder / "errors").read_text()
        time.sleep(0.01)
    return process


def log(folder):
    file = folder / "log"
    return file.read_text().splitlines() if file.exists() else []


def epochs(folder):
    return [int(line.split()[1]) for line in log(folder) if line.startswith("epoch")]


def trial(folder):
    storage = f"sqlite:///{folder}/study.db"
    return optuna.load_study(study_name="s", storage=storage).trials[0]


def states(folder):
    return sorted((folder / "runs").rglob("*.ckpt"))


def assert_same(one, other):
    a, b = trial(one), trial(other)
    assert a.state == b.state == TrialState.COMPLETE
    assert (a.value, a.params, a.intermediate_values) == (b.value, b.params, b.intermediate_values)
    weights = [torch.load(next(folder.rglob("weights.pt")), weights_only=True) for folder in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def learned(weight):
    model = nn.Module()
    model.w = nn.Parameter(weight)
    return take(nn.ModuleDict({"model": model}), model, {"w": list(weight.shape)})


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of a study that nothing interrupts, one per kind of data."""
    made = {}

    def get(data):
        if data not in made:
            made[data] = tmp_path_factory.mktemp(data)
            finish(made[data], data)
        return made[data]

    return get


@pytest.mark.parametrize("data", ["tensors", "loaders", "plateau"])
def test_a_killed_training_ends_as_if_nothing_had_happened(tmp_path, uninterrupted, data):
    process = start_and_stop(tmp_path, data, "batch 2 5")
    kill(process)
    assert trial(tmp_path).state == TrialState.RUNNING
    finish(tmp_path, data)
    assert epochs(tmp_path) == list(range(EPOCHS))
    assert_same(tmp_path, uninterrupted(data))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_signals_leave_within_a_batch_and_lose_no_epoch(tmp_path, uninterrupted, number, status):
    process = start_and_stop(tmp_path, "tensors", "batch 1 4")
    os.kill(process.pid, number)
    (tmp_path / "go").touch()
    process.join()
    errors = (tmp_path / "errors").read_text()
    assert process.exitcode == status, errors
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    assert log(tmp_path)[-1] in {"batch 1 4", "batch 1 5"}  # Lightning looks for a SIGTERM after the next
    finish(tmp_path, "tensors")
    assert epochs(tmp_path) == list(range(EPOCHS))
    assert_same(tmp_path, uninterrupted("tensors"))


def test_other_threads_than_before_are_told_with_the_way_out(tmp_path):
    process = start_and_stop(tmp_path, "tensors", "batch 1 3")
    kill(process)
    finish(tmp_path, "tensors", threads=2)
    told = (tmp_path / "errors").read_text()
    assert "Trial 0 was trained with 1 CPU threads until it was interrupted, and goes on with 2" in told
    assert "resume it with OMP_NUM_THREADS=1" in told


def test_a_truncated_newest_state_falls_back_to_the_one_before(tmp_path, uninterrupted):
    process = start_and_stop(tmp_path, "tensors", "batch 3 5")
    kill(process)
    older, newest = states(tmp_path)
    assert (older.name, newest.name) == ("epoch-00001.ckpt", "epoch-00002.ckpt")
    newest.write_bytes(newest.read_bytes()[:1000])
    finish(tmp_path, "tensors")
    assert epochs(tmp_path) == [0, 1, 2, 2, 3, 4]
    assert_same(tmp_path, uninterrupted("tensors"))


def test_a_finished_training_whose_trial_was_not_told_runs_no_epoch_again(tmp_path, uninterrupted):
    finish(tmp_path, "tensors")
    # Back to the moment before the trial was told, which no process survived.
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/study.db")
    number = study.trials[0]._trial_id
    with study._storage._backend.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE trials SET state = 'RUNNING' WHERE trial_id = {number}")
        connection.exec_driver_sql(f"DELETE FROM trial_values WHERE trial_id = {number}")
    finish(tmp_path, "tensors")
    assert epochs(tmp_path) == list(range(EPOCHS))
    assert_same(tmp_path, uninterrupted("tensors"))


def test_files_of_another_study_are_not_used(tmp_path, uninterrupted):
    process = start_and_stop(tmp_path, "tensors", "batch 2 1")
    kill(process)
    (tmp_path / "study.db").unlink()
    (tmp_path / "log").unlink()
    finish(tmp_path, "plateau")  # the same folder, study name and trial number; another task
    assert epochs(tmp_path) == list(range(EPOCHS))
    assert_same(tmp_path, uninterrupted("plateau"))


def test_a_full_disk_has_a_clear_error(tmp_path):
    def save(path):
        with path.open("wb") as file:
            file.write(bytes(20_000))

    attempt = Attempt(tmp_path / "trial-0000", "x")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"Cannot write .*epoch-00000.ckpt.*Make room"):
            attempt.write(0, save)
        with pytest.raises(CheckpointError, match=r"Cannot write .*weights.pt.*Make room"):
            attempt.write_snapshot(learned(torch.zeros(10_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(attempt.folder.iterdir()) == []


def test_states_hold_nothing_but_tensors_and_plain_values(tmp_path):
    process = start_and_stop(tmp_path, "loaders", "batch 1 3")
    kill(process)
    (file,) = states(tmp_path)
    state = torch.load(file, weights_only=True)
    assert state["callbacks"]["optnas"]["threads"] == 1


def test_attempts_have_folders_of_their_own_and_read_the_furthest(tmp_path):
    def save(epoch):
        return lambda path: torch.save({"callbacks": {"m": {"identity": "x", "epoch": epoch}}}, path)

    first = Attempt(tmp_path / "trial-0003", "x")
    assert first.newest("m") is None
    for epoch in range(4):
        first.write(epoch, save(epoch))
    assert sorted(os.listdir(first.folder)) == ["epoch-00002.ckpt", "epoch-00003.ckpt"]
    second = Attempt(tmp_path / "trial-0003", "x")
    assert (first.folder.name, second.folder.name) == ("attempt-0", "attempt-1")
    path, state = second.newest("m")
    assert (path.parent, state["epoch"]) == (first.folder, 3)
    second.write(4, save(4))
    assert Attempt(tmp_path / "trial-0003", "x").newest("m")[1]["epoch"] == 4
    assert Attempt(tmp_path / "trial-0003", "other").newest("m") is None


def test_an_attempt_whose_folder_is_taken_meanwhile_gets_the_next(tmp_path, monkeypatch):
    def late(trial_folder):  # after another attempt has listed them, and before it has made its own
        monkeypatch.undo()
        other.append(Attempt(trial_folder, "x"))
        return []

    other = []
    monkeypatch.setattr("optnas.training.checkpoints._attempts", late)
    attempt = Attempt(tmp_path / "trial-0000", "x")
    assert [a.folder.name for a in (*other, attempt)] == ["attempt-0", "attempt-1"]
    (tmp_path / "runs").symlink_to(tmp_path / "away")
    with pytest.raises(CheckpointError, match=r"Cannot write .*runs/trial-0000"):
        Attempt(tmp_path / "runs" / "trial-0000", "x")


def test_a_former_owner_who_begins_late_costs_no_weights(tmp_path):
    owner, former = (Attempt(tmp_path / "trial-0000", "x") for _ in range(2))
    former.write(0, lambda path: path.write_bytes(b"state"))
    owner.write_snapshot(learned(torch.ones(3)))
    clean(owner.trial_folder, keep_weights=True)
    assert {path.parent for path in tmp_path.rglob("*.*")} == {owner.folder}


def test_what_cannot_be_deleted_is_no_fault_of_a_trial(tmp_path, monkeypatch):
    attempt = Attempt(tmp_path / "trial-0000", "x")

    def refuse(path, missing_ok=False):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        for epoch in range(3):
            attempt.write(epoch, lambda path: path.write_bytes(b"state"))
        clean(attempt.trial_folder, keep_weights=True)
        assert len(list(attempt.folder.iterdir())) == 3
    clean(attempt.trial_folder, keep_weights=True)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_file_whose_writer_was_killed(tmp_path):
    attempt = Attempt(tmp_path / "trial-0000", "x")
    for name in ("weights.pt.part", "epoch-00000.ckpt.part"):
        (attempt.folder / name).touch()
    clean(attempt.trial_folder, keep_weights=True)
    assert list(tmp_path.iterdir()) == []


def test_all_weights_are_those_that_each_trial_has(tmp_path):
    study = optuna.create_study()
    study.set_user_attr(record.FOLDER.name, str(tmp_path))
    for _ in range(3):
        study.ask()
    for number, attempt in ((0, 0), (2, 0), (2, 9), (2, 10)):
        file = tmp_path / f"trial-{number:04}" / f"attempt-{attempt}" / "weights.pt"
        file.parent.mkdir(parents=True)
        file.touch()
    found = all_weights(study)
    assert {n: found.get(n) for n in range(3)} == {n: weights_path(study, n) for n in range(3)}
    assert found[2].parent.name == "attempt-10"


def test_the_best_k_keep_their_weights(tmp_path, search, scripted):
    scores = [0.5, 0.1, 0.9, 0.2, 0.8, 0.3]
    study = search(scripted(tmp_path, *[[score] for score in scores], keep=2), n_trials=6)
    tidy(study, 2)
    stored = [number for number in range(6) if weights_path(study, number)]
    assert stored == [2, 4]
    assert record.DELETED.of(study) == [0, 1, 3, 5]
    assert tidy(study, 2) == []
    assert sorted(path.name for path in (tmp_path / "runs").rglob("*.pt")) == [
        "module.pt",
        "module.pt",
        "weights.pt",
        "weights.pt",
    ]


def test_what_workers_deleted_at_one_moment_is_recorded_by_the_next(tmp_path, monkeypatch):
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(record.FOLDER.name, str(tmp_path))

    def complete():
        trial = study.ask()
        Attempt(trial_folder(study, trial.number), "x").write_snapshot(learned(torch.ones(3)))
        study.tell(trial, float(trial.number))

    def write(key, value):  # another worker tidies between our reading and our writing
        monkeypatch.undo()
        complete()
        assert tidy(study, 1) == [1]
        study.set_user_attr(key, value)

    complete()
    complete()
    monkeypatch.setattr(study, "set_user_attr", write)
    assert tidy(study, 1) == [0]
    assert record.DELETED.of(study) == [0]
    complete()
    assert tidy(study, 1) == [2]
    assert record.DELETED.of(study) == [0, 1, 2]


def test_weights_that_were_removed_by_hand_are_not_called_deleted(tmp_path, search, scripted):
    estimator = scripted(tmp_path, [0.9], [0.8], [0.1], keep=1)
    study = search(estimator, n_trials=2)
    shutil.rmtree(tmp_path / "runs")
    search(estimator, study=study)
    tidy(study, 1)
    assert record.DELETED.of(study) == [2]
    with pytest.raises(FileNotFoundError, match=r"trial 0 are not below .*removed by hand"):
        load_snapshot(study, study.trials[0])


def test_twins_take_no_places_from_those_that_have_weights(tmp_path):
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(record.FOLDER.name, str(tmp_path))
    for value in (0.5, 0.9):
        trial = study.ask()
        Attempt(trial_folder(study, trial.number), "x").write_snapshot(learned(torch.ones(3)))
        study.tell(trial, value)
    twin = study.ask()
    twin.set_user_attr(record.TWIN_OF.name, 1)
    study.tell(twin, 0.9)
    assert tidy(study, 2) == []
    assert sorted(all_weights(study)) == [0, 1]


def test_tidy_leaves_running_and_waiting_trials_alone(tmp_path, search, scripted):
    study = search(scripted(tmp_path, [0.5], [0.4]), n_trials=2)
    study.ask()
    study.enqueue_trial({})
    for number in (2, 3):
        attempt = trial_folder(study, number) / "attempt-0"
        attempt.mkdir(parents=True)
        for name in ("weights.pt", "epoch-00000.ckpt"):
            (attempt / name).touch()
    tidy(study, 0)
    found = (tmp_path / "runs").glob("trial-*/*/*.*t")
    left = sorted(str(path.relative_to(tmp_path / "runs")) for path in found)
    assert left == [f"trial-000{n}/attempt-0/{f}" for n in (2, 3) for f in ("epoch-00000.ckpt", "weights.pt")]


def test_folders_that_other_workers_delete_meanwhile_are_no_error(tmp_path):
    study = optuna.create_study()
    study.set_user_attr(record.FOLDER.name, str(tmp_path))
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            for number in range(10):
                Attempt(tmp_path / f"trial-{number:04}", "x").write_snapshot(learned(torch.ones(3)))
                shutil.rmtree(tmp_path / f"trial-{number:04}")

    with ThreadPoolExecutor() as pool:
        other = pool.submit(come_and_go)
        try:
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline:
                all_weights(study)
                tidy(study, 1)
                assert weights_path(study, 10) is None
        finally:
            stop.set()
        other.result()


def test_infeasible_trials_rank_last(tmp_path, linear, scripted):
    study = optuna.create_study(direction="maximize")
    estimator = scripted(tmp_path, [0.9], [0.1], keep=1)

    def objective(trial):
        trial.set_constraint("flops", 1.0 if trial.number == 0 else -1.0)
        return estimator(linear(trial), trial)["score"]

    study.optimize(objective, n_trials=2)
    tidy(study, 1)
    assert [weights_path(study, number) is not None for number in (0, 1)] == [False, True]


def test_weights_are_loaded_and_missing_ones_say_why(tmp_path):
    study = optuna.create_study()
    study.set_user_attr(record.FOLDER.name, str(tmp_path))
    study.set_user_attr(record.DELETED.name, [1])
    for _ in range(3):
        study.tell(study.ask(), 0.0)
    Attempt(tmp_path / "trial-0000", "x").write_snapshot(learned(torch.arange(3.0)))
    assert torch.equal(load_snapshot(study, study.trials[0]).weights["w"], torch.arange(3.0))
    assert torch.equal(torch.load(weights_path(study, 0), weights_only=True)["w"], torch.arange(3.0))
    with pytest.raises(FileNotFoundError, match="trial 1 were deleted, since only those of the best"):
        load_snapshot(study, study.trials[1])
    with pytest.raises(FileNotFoundError, match=rf"trial 2 are not below {tmp_path}.*Run this there"):
        load_snapshot(study, study.trials[2])
