"""Running statistics of normalizations, measured anew for the weights that a network has now."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


class Recalibration(pl.Callback):
    """A validation in which torch's BatchNorm and InstanceNorm take their statistics from the batches.

    They are reset, and become the plain average over all batches, whatever the layer's momentum is. All other
    layers are in evaluation mode, so that the statistics are those of the network as it will be used.

    Attributes:
        layers: those layers of the model; without any it does nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        kept = [layer for layer in model.modules() if isinstance(layer, _NormBase)]
        self.layers = [layer for layer in kept if layer.track_running_stats]
        self._momenta: list[float | None] = []

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._momenta = [layer.momentum for layer in self.layers]
        for layer in self.layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch's sign for the plain average
            layer.train()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for layer, momentum in zip(self.layers, self._momenta, strict=True):
            layer.momentum = momentum
            layer.eval()


class FirstBatches:
    """The first `n` batches of a loader."""

    def __init__(self, loader: Any, n: int) -> None:
        self.loader = loader
        self.n = n

    def __len__(self) -> int:
        return min(self.n, len(self.loader))

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self.loader), self.n)
