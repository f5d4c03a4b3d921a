"""How weights are trained: optimizer, schedule, clipping, averaging."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytorch_lightning as pl
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

Schedule: TypeAlias = Callable[[Optimizer, int | None], LRScheduler | None]


@dataclass(frozen=True)
class OneCycle:
    """Up to the learning rate during `rise` of all steps, then down to nearly zero (arXiv:1708.07120).

    Of a stream, whose end is not known, the learning rate stays as it is.

    Examples:
        >>> recipe = optnas.tasks.Recipe(schedule=optnas.tasks.OneCycle(rise=0.1))
        >>> task = optnas.Classification(3, recipe=recipe)
    """

    rise: float = 0.25

    def __call__(self, optimizer: Optimizer, n_steps: int | None) -> LRScheduler | None:
        if n_steps is None:
            return None
        highest = [group["lr"] for group in optimizer.param_groups]
        # Both phases need a step, or the schedule divides by zero.
        n = max(3, n_steps)
        return OneCycleLR(optimizer, highest, total_steps=n, pct_start=max(self.rise, 2 / n))


@dataclass(frozen=True)
class Cosine:
    """Linearly up during `warmup` of all steps, then along half a cosine to `floor` times the learning rate.

    arXiv:1608.03983, without restarts.

    Examples:
        >>> recipe = optnas.tasks.Recipe(schedule=optnas.tasks.Cosine(warmup=0.1))
        >>> task = optnas.Classification(3, recipe=recipe)
    """

    warmup: float = 0.05
    floor: float = 0.0

    def __call__(self, optimizer: Optimizer, n_steps: int | None) -> LRScheduler | None:
        if n_steps is None:
            raise ValueError("Cosine needs to know how many steps there are; give Constant() with a stream.")
        n, rising = n_steps, math.ceil(self.warmup * n_steps)

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            progress = min(1.0, (step - rising) / max(1, n - rising))
            return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2

        return LambdaLR(optimizer, factor)


@dataclass(frozen=True)
class Constant:
    """The learning rate, after a linear warm-up of so many steps.

    Examples:
        >>> steady = optnas.tasks.Recipe(schedule=optnas.tasks.Constant(warmup_steps=100))
        >>> task = optnas.Classification(3, recipe=steady)
    """

    warmup_steps: int = 0

    def __call__(self, optimizer: Optimizer, n_steps: int | None) -> LRScheduler | None:
        if not self.warmup_steps:
            return None
        return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / self.warmup_steps))


@dataclass(frozen=True)
class Recipe:
    """How a task trains weights, beside learning rate and weight decay.

    To let the trial decide, give the task a function instead:

        Classification(10, recipe=lambda trial: Recipe(clip=trial.suggest_float("clip", 0.1, 10, log=True)))

    Args:
        optimizer: called as `optimizer(groups, lr=lr)` with groups of parameters and their weight decay: a
            class of `torch.optim`, or a function of yours.
        schedule: `(optimizer, n_steps) -> scheduler`, stepped after every training step, or None for no
            schedule; `n_steps` is None where it is not known. `OneCycle`, `Cosine`, `Constant` or your own.
        clip: the largest norm of all gradients together (arXiv:1211.5063); None: they are not clipped.
        average: decay per step of a running average of the weights (arXiv:1407.1024), such as 0.999, which
            is what validation and test score and what is kept; None: no average.

    Examples:
        >>> recipe = optnas.tasks.Recipe(torch.optim.SGD, clip=1.0, average=0.999)
        >>> task = optnas.Classification(3, recipe=recipe)
    """

    optimizer: Callable[..., Optimizer] = torch.optim.AdamW
    schedule: Schedule = OneCycle()
    clip: float | None = None
    average: float | None = None

    def __post_init__(self) -> None:
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"Recipe(clip={self.clip}) must be above 0, or None.")
        if self.average is not None and not 0 < self.average < 1:
            raise ValueError(f"Recipe(average={self.average}) must lie between 0 and 1, or be None.")

    def optimizers(self, module: pl.LightningModule, lr: float, weight_decay: float) -> dict[str, Any]:
        """As `LightningModule.configure_optimizers` returns it; only what is trained takes part."""
        # Scalars, biases and normalization are not decayed.
        trained = [p for p in module.parameters() if p.requires_grad]
        if not trained:
            raise ValueError(
                "The model has no parameter to train: it has none at all, or none with requires_grad."
            )
        decayed = {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay}
        others = {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0}
        optimizer = self.optimizer([group for group in (decayed, others) if group["params"]], lr=lr)
        estimated = module.trainer.estimated_stepping_batches
        n_steps = int(estimated) if 0 <= estimated < math.inf else None  # -1 of a stream
        scheduler = self.schedule(optimizer, n_steps)
        found: dict[str, Any] = {"optimizer": optimizer}
        if scheduler is not None:
            found["lr_scheduler"] = {"scheduler": scheduler, "interval": "step"}
        return found

    def callbacks(self) -> list[pl.Callback]:
        """What averages the weights, if anything does."""
        if self.average is None:
            return []
        from pytorch_lightning.callbacks import EMAWeightAveraging  # Lightning 2.6

        return [EMAWeightAveraging(decay=self.average)]


USUAL = Recipe()
"""AdamW with one cycle of the learning rate."""
