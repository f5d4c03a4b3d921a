"""The loss that a model computes itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from optnas.tasks import batches
from optnas.tasks.supervised import Supervised
from optnas.tasks.task import Task
from optnas.trial import Trial


@dataclass(frozen=True)
class OwnLoss(Task):
    """Trains a model by the loss that it returns when it is given a whole batch, targets included.

    A dict is passed by name and a tuple as several arguments. The loss is the model's output if that is a
    number, its `loss`, the first of a tuple, or the sum of a dict of numbers. Logs it, a mean over batches
    weighted by their rows.

    The keyword arguments of `optnas.tasks.Task` are accepted too: `lr`, `recipe`, `call`, ...

    Examples:
        >>> task = optnas.tasks.OwnLoss(lr=1e-4)
        >>> module = task(nn.Linear(8, 1), trial)
    """

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        if self.metrics:
            raise ValueError("OwnLoss takes no metrics: it does not know what of a batch is the target.")
        return self.supervised(model, trial, _own, {}, _Whole)


class _Whole(Supervised):
    def split(self, batch: Any) -> tuple[Any, Any]:
        return batch, (batch,)

    def score(self, output: Any, y: Any) -> tuple[Tensor, Tensor | int]:
        leaves = tree_leaves(dict(y[0]) if isinstance(y[0], Mapping) else y[0])
        rows = [len(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim]
        return self.loss(output, y), rows[0] if rows else 1


def _own(output: Any, y: Any) -> Tensor:
    loss = batches.own_loss(output)
    if loss is None:
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
        raise ValueError(f"OwnLoss: the model returned {got}, in which there is no loss.")
    return loss
