"""A study whose checkpoints are behind a URL: nothing of a trial lives on the machine that ran it."""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path
from typing import Any

import fsspec
import optuna
import pytorch_lightning as pl
import torch
from torch import nn

from optnas import Classification, Digits, Objective, Training, create_study, optimize, record
from optnas.launch.launcher import LocalProcesses
from optnas.search.best import best
from optnas.training.checkpoints import all_weights, weights_path


def space(trial: Any) -> nn.Module:
    width = trial.suggest_int("width", 4, 32)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


class Killed(pl.Callback):
    """Writes down every epoch; the first process dies in the third."""

    def __init__(self, file: Path, dies: bool) -> None:
        self.file, self.dies = file, dies

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        n_before = len(self.file.read_text().splitlines()) if self.file.exists() else 0
        if self.dies and n_before == 2:
            self.file.write_text(self.file.read_text() + "died\n")
            os.kill(os.getpid(), signal.SIGKILL)
        with self.file.open("a") as file:
            file.write(f"{trainer.current_epoch} {os.getpid()}\n")


def make_objective(folder: str, callback: list[pl.Callback], **options: Any) -> Objective:
    task, data = Classification(10), Digits(batch_size=512)
    callbacks = (lambda trial: [] if trial.lone else callback) if callback else ()
    training = Training(
        task,
        data,
        monitor="val_loss",
        mode="min",
        max_epochs=4,
        folder=folder,
        callbacks=callbacks,
        **options,
    )
    return Objective(space, training)


def test_only_what_is_kept_is_behind_the_url_and_can_be_loaded_anywhere() -> None:
    url = f"memory://{uuid.uuid4().hex}/runs"
    objective = make_objective(url, [], keep=1)
    study = create_study(objective, seed=0, pruner=optuna.pruners.NopPruner())
    optimize(study, objective, n_trials=3)
    assert record.FOLDER.of(study) == url
    names = {name.rpartition("/")[2] for name in fsspec.url_to_fs(url)[0].find(url)}
    assert names == {"study.json", "owner", "weights.pt", "module.pt"} | {
        name
        for name in names
        if "-" in name  # drawings, by their ids
    }
    assert list(all_weights(study)) == [study.best_trial.number]
    path = weights_path(study, study.best_trial.number)
    assert path is not None
    winner = best(study, objective)
    loaded = torch.load(path, weights_only=True)
    assert loaded.keys() == winner.model().state_dict().keys()


def test_another_process_goes_on_from_what_was_uploaded(tmp_path: Path) -> None:
    """It has no files of the process that died, as on another machine, and comes to the same values."""
    epochs = tmp_path / "epochs"
    url = f"file://{tmp_path}/bucket/runs"
    objective = make_objective(url, [Killed(epochs, dies=True)])
    study = create_study(objective, study_name="s", storage=f"sqlite:///{tmp_path}/s.db", seed=0)
    study.enqueue_trial({"width": 16})
    optimize(study, objective, n_trials=1, workers=LocalProcesses(1))
    told = [line.split() for line in epochs.read_text().splitlines()]
    assert [line[0] for line in told] == ["0", "1", "died", "2", "3"]
    assert len({line[1] for line in told if len(line) == 2}) == 2
    files = {file.name for file in (tmp_path / "bucket").rglob("*") if file.is_file()}
    assert not any(name.endswith((".ckpt", ".part")) for name in files)

    [trial] = study.trials
    [*_, attempt] = record.attempts(trial)
    threads = torch.get_num_threads()
    torch.set_num_threads(attempt["threads"])
    try:
        peaceful = make_objective(f"memory://{uuid.uuid4().hex}", [Killed(tmp_path / "peace", dies=False)])
        again = create_study(peaceful)
        again.enqueue_trial(trial.params, user_attrs={record.SEED.name: record.SEED.of(trial)})
        optimize(again, peaceful, n_trials=1)
    finally:
        torch.set_num_threads(threads)
    assert again.trials[0].intermediate_values == trial.intermediate_values
