"""What belongs together lies together: embeddings of views, and of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import BinaryAccuracy

from optnas.tasks import batches
from optnas.tasks.supervised import Supervised
from optnas.tasks.task import Task
from optnas.trial import Trial


@dataclass(frozen=True)
class Contrastive(Task):
    """Embeddings in which two views of a sample are near, other samples far (SimCLR, arXiv:2002.05709).

    Batches are `((view, other view), anything)`, and the model is called once for each view; it returns
    embeddings `(n, size)`. Logs the loss and `acc`, the share of views whose nearest is their other view.

    Args:
        temperature: of the softmax over cosine similarities.

    The keyword arguments of `optnas.tasks.Task` are accepted too: `lr`, `recipe`, `call`, ...

    Examples:
        >>> task = optnas.tasks.Contrastive(temperature=0.2)
        >>> module = task(nn.Linear(8, 4), trial)
    """

    temperature: float = 0.5

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        return self.supervised(model, trial, _NtXent(self.temperature), {}, _Views)


@dataclass(frozen=True)
class Siamese(Task):
    """Embeddings of two inputs, near to each other where the target is 1, apart where it is 0.

    Batches are `((one, other), same)`, and the model is called once for each. The loss is that of Hadsell,
    Chopra & LeCun (CVPR 2006). Logs it and `acc`: who is nearer than half the margin is the same. Metrics get
    that as a probability, one half at half the margin.

    Args:
        margin: how far apart pairs are enough.

    The keyword arguments of `optnas.tasks.Task` are accepted too: `lr`, `recipe`, `metrics`, `call`, ...

    Examples:
        >>> task = optnas.tasks.Siamese(margin=0.5)
        >>> module = task(nn.Linear(8, 4), trial)
    """

    margin: float = 1.0

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        return self.supervised(model, trial, _Margin(self.margin), {"acc": BinaryAccuracy()}, _Pairs)


class _TwoCalls(Supervised):
    def forward(self, x: Any) -> Any:
        if not isinstance(x, tuple | list) or len(x) != 2:
            raise TypeError(f"{type(self).__name__[1:]}: a batch must be ((one, other), target).")
        one, other = (batches.main(super(_TwoCalls, self).forward(part)) for part in x)
        return one, other


class _Views(_TwoCalls):
    loss: _NtXent

    def split(self, batch: Any) -> tuple[Any, Any]:
        x, _ = super().split(batch)
        return x, (x,)  # nothing is to be said of a view

    def score(self, output: Any, y: Any) -> tuple[Tensor, Tensor | int]:
        return self.loss(output, y), len(output[0])

    def measured(self, output: Any, y: Any) -> tuple[Any, Any]:
        return output, y

    def parts(self, output: Any, y: Any) -> Mapping[str, tuple[Tensor, Tensor | int]]:
        similarity, partner = self.loss.similarities(output)
        return {"acc": ((similarity.argmax(1) == partner).float().mean(), len(partner))}


class _NtXent(nn.Module):
    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, output: Any, y: Any) -> Tensor:
        similarity, partner = self.similarities(output)
        return functional.cross_entropy(similarity / self.temperature, partner)

    def similarities(self, output: Any) -> tuple[Tensor, Tensor]:
        """Cosines of all views with all others, and which is the other view of each."""
        n = len(output[0])
        views = functional.normalize(torch.cat(output), dim=1)
        itself = torch.eye(2 * n, dtype=torch.bool, device=views.device)
        cosines = (views @ views.T).masked_fill(itself, -torch.inf)
        return cosines, torch.arange(2 * n, device=views.device).roll(n)


class _Pairs(_TwoCalls):
    loss: _Margin

    def split(self, batch: Any) -> tuple[Any, Any]:
        x, y = super().split(batch)
        return x, (y,)  # no tensor, so that both embeddings stay

    def pair(self, output: Any, y: Any) -> tuple[Any, Any]:
        return functional.pairwise_distance(*output), y[0].reshape(-1)

    def measured(self, output: Any, y: Any) -> tuple[Any, Any]:
        return torch.sigmoid(self.loss.margin / 2 - output), y.long()


class _Margin(nn.Module):
    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, distance: Tensor, y: Tensor) -> Tensor:
        apart = (self.margin - distance).clamp(min=0)
        return torch.where(y.bool(), distance, apart).square().mean()
