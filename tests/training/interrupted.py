"""A study of one trial, run as a process that tests interrupt.

    interrupted.py FOLDER DATA EPOCHS STOP THREADS

Everything random that a training may use is used: torch (dropout), NumPy and Python (a callback), and the
order of the samples. Every batch and every finished epoch leaves a line in FOLDER/log. After the line STOP
nothing more happens until there is a file FOLDER/go.
"""

import os
import random
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pytorch_lightning as pl
import torch
from optuna.trial import TrialState
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from optnas.data import Digits, random_mixup, random_shift
from optnas.tasks import Classification
from optnas.training import Training

MIX = partial(random_mixup, n_classes=10)


class Loaders(pl.LightningDataModule):
    """The digits through ordinary DataLoaders."""

    def setup(self, stage):
        digits = Digits()
        self.splits = [TensorDataset(*split) for split in (digits.train, digits.val)]

    def train_dataloader(self):
        return DataLoader(self.splits[0], batch_size=64, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.splits[1], batch_size=64)


class Log(pl.Callback):
    def __init__(self, file):
        self.file = file
        self.stop = file.with_name("stop").read_text()  # no part of the training, nor of its settings

    def write(self, *words):
        line = " ".join(map(str, words))
        with self.file.open("a") as file:
            file.write(f"{line}\n")
        while line == self.stop and not self.file.with_name("go").exists():
            time.sleep(0.01)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        with torch.no_grad():  # noise from the other generators, so that their states matter
            next(module.parameters()).add_(1e-4 * (random.random() + np.random.random()))  # noqa: NPY002
        self.write("batch", trainer.current_epoch, batch_idx)

    def on_train_epoch_end(self, trainer, module):
        self.write("epoch", trainer.current_epoch)


def build(trial):
    width = trial.suggest_int("width", 4, 16)
    head = nn.Linear(width, 10)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.Dropout(0.2), head)


class PlateauTask:
    """Steps the learning rate by the validation loss at the end of every epoch."""

    def __call__(self, model, trial):
        module = Classification(10)(model, trial)

        def configure_optimizers():
            optimizer = torch.optim.SGD(module.parameters(), lr=1.0, momentum=0.9)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}

        module.configure_optimizers = configure_optimizers
        return module


def run(folder: Path, data: str, epochs: int, stop: str) -> None:
    (folder / "stop").write_text(stop)
    task = PlateauTask() if data == "plateau" else Classification(10, lr=(1e-3, 1e-2))
    training = Training(
        task,
        Digits(64, augment=random_shift, mix=MIX) if data == "tensors" else Loaders(),
        monitor="val_acc",
        mode="max",
        max_epochs=epochs,
        folder=folder / "runs",
        callbacks=lambda trial: [Log(folder / "log")],
    )
    study = optuna.create_study(
        storage=f"sqlite:///{folder}/study.db", study_name="s", direction="maximize", load_if_exists=True
    )

    def objective(trial):
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002 (the legacy generator is what is tested)
        return training(build(trial), trial)["val_acc"]

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    study.enqueue_trial({"width": 8, "lr": 5e-3}, skip_if_exists=True)
    # By hand: optimize would end the trial as FAIL on Ctrl-C, and a finished trial cannot go on.
    trial = study.ask()
    study.tell(trial, objective(trial))


if __name__ == "__main__":
    folder, data, epochs, stop, threads = globals().get("arguments") or sys.argv[1:]
    with Path(folder, "errors").open("w") as errors:
        os.dup2(errors.fileno(), 2)
    torch.set_num_threads(int(threads))
    run(Path(folder), data, int(epochs), stop)
