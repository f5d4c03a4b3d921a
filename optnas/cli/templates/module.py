"""Search a network that a LightningModule and data of your own train.

    optnas check NAME.py    # what would go wrong, and how long the search takes
    optnas run NAME.py      # search; the same command goes on where it stopped
    optnas best NAME.py --retrain 3

It runs as it stands, on points that it makes. For a project of your own, change the three lines that are
marked 1, 2 and 3, and import from your code what stands in their place above.
"""

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from optnas import Objective, Training, Trial, scope


class Circles(LightningDataModule):
    """Points, and whether they are within a ring; any LightningDataModule does."""

    def __init__(self) -> None:
        super().__init__()
        x = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
        y = ((x.norm(dim=1) > 0.4) & (x.norm(dim=1) < 0.8)).float()
        self.points = TensorDataset(x, y)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(TensorDataset(*self.points[:800]), batch_size=64, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(TensorDataset(*self.points[800:]), batch_size=200)


class Learning(LightningModule):
    """Trains whatever network it is given; it logs what the search decides by."""

    def __init__(self, network: nn.Module, lr: float) -> None:
        super().__init__()
        self.network = network
        self.lr = lr

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.binary_cross_entropy_with_logits(self.network(x)[:, 0], y)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val_acc", ((self.network(x)[:, 0] > 0) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def space(trial: Trial) -> nn.Module:
    """What can be built: plain Python that asks the trial; here one to three layers of any widths."""
    layers: list[nn.Module] = []
    for i in range(trial.suggest_int("depth", 1, 3)):
        layer = scope(trial, "layer", i)  # names become layer.0.units, ...
        layers.append(nn.LazyLinear(layer.suggest_int("units", 4, 64, log=True)))  # lazy: any width may come
        layers.append(
            nn.ReLU() if layer.suggest_categorical("kind", ["relu", "tanh"]) == "relu" else nn.Tanh()
        )
    return nn.Sequential(*layers, nn.LazyLinear(1))


def task(network: nn.Module, trial: Trial) -> LightningModule:
    """Your LightningModule with the network in it; what it asks of the trial is searched for, too."""
    return Learning(network, lr=trial.suggest_float("lr", 1e-3, 3e-2, log=True))  # 1: your LightningModule


data = Circles()  # 2: your LightningDataModule
MONITOR = "val_acc"  # 3: the metric it logs that makes a network the best; mode below says in which direction

training = Training(task, data, monitor=MONITOR, mode="max", max_epochs=10)
objective = Objective(space, training)
n_trials = 20
