"""What a trial costs beside its training: optnas against Lightning and Optuna put together by hand.

    python studies/benchmarks/overhead.py [--trials 50] [--pairs 5]

Both run the same one-epoch trials on digits: the same random networks, the same batch size, a fresh SQLite
file each, a pruning callback that reports every validation. `by hand` is Optuna's official Lightning example
(DataLoader with num_workers=0, default SQLite) with its pruning callback written out; `by hand, tuned` has
SQLite's write-ahead log and TensorData as well. They take turns; the table shows medians over the pairs.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
import pytorch_lightning as pl
import sqlalchemy
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from optnas import Classification, Digits, Objective, Training, create_study, optimize, record
from optnas.training.quiet import quiet

BATCH_SIZE = 64


def network(trial) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    width = 64
    for i in range(trial.suggest_int("n_layers", 1, 3)):
        units = trial.suggest_int(f"n_units_l{i}", 4, 128, log=True)
        layers += [nn.Linear(width, units), nn.ReLU()]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, 10))


class ByHand(pl.LightningModule):
    def __init__(self, trial: optuna.Trial) -> None:
        super().__init__()
        self.model = network(trial)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return functional.cross_entropy(self.model(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        accuracy = (self.model(x).argmax(1) == y).float().mean()
        self.log("val_acc", accuracy)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


class PruningCallback(pl.Callback):
    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.trial.report(trainer.callback_metrics["val_acc"].item(), trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


class Loaders(pl.LightningDataModule):
    """The digits through torch's DataLoader."""

    def __init__(self) -> None:
        super().__init__()
        self.digits = Digits()

    def train_dataloader(self):
        return DataLoader(
            TensorDataset(*self.digits.train), batch_size=BATCH_SIZE, shuffle=True, num_workers=0
        )

    def val_dataloader(self):
        return DataLoader(TensorDataset(*self.digits.val), batch_size=BATCH_SIZE, num_workers=0)


def by_hand(url: str, n_trials: int, seed: int, tuned: bool = False) -> None:
    data = Digits(batch_size=BATCH_SIZE) if tuned else Loaders()

    def objective(trial: optuna.Trial) -> float:
        trainer = pl.Trainer(
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            max_epochs=1,
            accelerator="auto",
            devices=1,
            callbacks=[PruningCallback(trial)],
        )
        trainer.fit(ByHand(trial), datamodule=data)
        return trainer.callback_metrics["val_acc"].item()

    storage = optuna.storages.RDBStorage(url)
    if tuned:
        with storage.engine.connect() as connection:
            connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))

        @sqlalchemy.event.listens_for(storage.engine, "connect")
        def synchronous_normal(connection, record) -> None:
            connection.execute("PRAGMA synchronous=NORMAL")

    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(direction="maximize", storage=storage, sampler=sampler)
    with quiet():
        study.optimize(objective, n_trials=n_trials)


def with_optnas(url: str, n_trials: int, seed: int) -> optuna.Study:
    training = Training(
        Classification(10), Digits(batch_size=BATCH_SIZE), monitor="val_acc", mode="max", max_epochs=1,
        folder=Path(url.removeprefix("sqlite:///")).parent / "runs",
    )  # fmt: skip
    objective = Objective(network, training, reuse_twins=False)
    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = create_study(objective, study_name="overhead", storage=url, sampler=sampler)
    optimize(study, objective, n_trials=n_trials)
    return study


def seconds(run: Callable[..., object], *args: object, **kwargs: object) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run(f"sqlite:///{folder}/study.db", *args, **kwargs)
        return time.perf_counter() - start


def where_the_time_goes(n_trials: int) -> dict[str, float]:
    """Seconds a trial of our own: in the estimate (Lightning's fit, checkpoints) and outside it."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        study = with_optnas(f"sqlite:///{folder}/study.db", n_trials, 0)
        total = time.perf_counter() - start
        estimates = sum((record.DURATION.of(t) or 0.0) for t in study.trials)
    return {"estimate": estimates / n_trials, "everything else": (total - estimates) / n_trials}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")

    variants: dict[str, Callable[[int, int], float]] = {
        "optnas": lambda n, seed: seconds(with_optnas, n, seed),
        "by hand": lambda n, seed: seconds(by_hand, n, seed),
        "by hand, tuned": lambda n, seed: seconds(by_hand, n, seed, tuned=True),
    }
    for run in variants.values():  # warm up: imports, caches
        run(2, 0)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for pair in range(arguments.pairs):
        for name, run in variants.items():
            times[name].append(run(arguments.trials, pair))

    print(f"{arguments.trials} one-epoch trials on digits, {arguments.pairs} pairs")
    print(f"{'':<16}{'s a trial':>10}{'ratio optnas / this (min, median, max)':>44}")
    for name, spent in times.items():
        ratios = sorted(ours / other for ours, other in zip(times["optnas"], spent, strict=True))
        spread = f"{ratios[0]:.2f}  {statistics.median(ratios):.2f}  {ratios[-1]:.2f}"
        print(f"{name:<16}{statistics.median(spent) / arguments.trials:>10.3f}{spread:>44}")
    for part, spent_there in where_the_time_goes(arguments.trials).items():
        print(f"optnas, {part}: {spent_there:.3f} s a trial")


if __name__ == "__main__":
    main()
